"""Entropic optimal transport: smooth in the costs, differentiable, solved where the costs are."""

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from emdistill.errors import ConfigError, TransportError
from emdistill.mapping.mapping import LayerMapping
from emdistill.mapping.transport import TransportPlan, check_shapes

# ε comes down from 1 by this factor, each time from the potentials of the one before.
COOLING = 4.0
# Steps at each ε; a CPU stops earlier, where the marginals miss their masses by less than the tolerance.
STEPS, LAST_STEPS = 6, 24
TOLERANCE, LAST_TOLERANCE = 1e-2, 1e-12
CONVERGED = 1e-6  # of the mass may be missed at the end
# Added to a Hessian of entries that sum to 2, so that parts of a plan that hardly share mass do not make it singular.
RIDGE = 1e-13
# Stands for a mass of 0 in logarithms.
TINY = 1e-300


class NotConvergedWarning(UserWarning):
    """A plan that is feasible, but dearer than the one asked for."""


class SinkhornMapping(LayerMapping):
    """Flow from student to teacher layers by entropic transport between uniform layer weights; no layer is unused.

    epsilon         the weight of the entropy, as a share of the mean cost: towards 0 the flow is exact transport's,
                    towards infinity uniform over all pairs
    differentiable  False: the flow is a constant for the gradient; True: gradients pass through it
    Raises ConfigError for settings out of range; TransportError as `sinkhorn_plan`.
    Source: Cuturi, Sinkhorn Distances, NeurIPS 2013 (arXiv 1306.0895).
    """

    mass = 1.0

    def __init__(
        self, student_layers: int, teacher_layers: int, *, epsilon: float = 0.01, differentiable: bool = False
    ) -> None:
        super().__init__(student_layers, teacher_layers)
        _check_epsilon(epsilon)
        self.epsilon = epsilon
        self.differentiable = differentiable

    def flow(self, costs: Tensor, host: Sequence[Tensor]) -> Tensor:
        self.check_shape(costs)
        student, teacher = (
            torch.full((layers,), 1 / layers, dtype=torch.float64, device=costs.device) for layers in costs.shape[-2:]
        )
        costs = costs if self.differentiable else costs.detach()
        return sinkhorn_plan(costs, student, teacher, epsilon=self.epsilon).flow

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, epsilon={self.epsilon:g}, differentiable={self.differentiable}"


def sinkhorn_plan(
    costs: Tensor, student_weights: Tensor, teacher_weights: Tensor, *, epsilon: float = 0.01
) -> TransportPlan:
    """The cheapest way to move masses that is also spread out, by its entropy; batched.

    F = argmin Σ_ij F_ij D_ij + ε · mean(D) · Σ_ij F_ij (log F_ij − 1),  F ≥ 0,
    Σ_j F_ij = student_weights_i,  Σ_i F_ij = teacher_weights_j

    costs [..., M, N]; student_weights [M] or [..., M] and teacher_weights [N] or [..., N], of equal sums; the plan's
    flow [..., M, N] and cost [...] are of the costs' type, on their device, computed in float64. Its marginals are
    exact. Differentiable once in all three: the derivative of the plan that ε defines, not of the steps towards it.
    Raises ConfigError for an ε that is not positive, TransportError for shapes that disagree and, where that does not
    make an accelerator wait, for entries that are negative or not finite and for sums that differ. Where the steps end
    before the optimum, as at a small ε, `missed` says by how much, and on a CPU a NotConvergedWarning.
    Source: Cuturi (2013); damped Newton steps on the dual after Brauer et al. (arXiv 1710.06635).
    """
    _check_epsilon(epsilon)
    check_problem(costs, student_weights, teacher_weights)
    matrices, student, teacher = costs.double(), student_weights.double(), teacher_weights.double()
    total = student.sum(dim=-1, keepdim=True)
    mean = matrices.mean(dim=(-2, -1), keepdim=True)
    shares, missed = _EntropicPlan.apply(  # type: ignore[no-untyped-call]
        matrices / torch.where(mean > 0, mean, 1),
        (student / total).expand(costs.shape[:-1]),
        (teacher / teacher.sum(dim=-1, keepdim=True)).expand(*costs.shape[:-2], -1),
        epsilon,
    )
    if missed.device.type == "cpu" and (most := float(missed.max())) > CONVERGED:
        warnings.warn(
            f"Sinkhorn's steps at epsilon={epsilon:g} ended before the optimum: the plan's masses missed those asked "
            f"for by {most:.1e} and were put right, so its cost is above the least; take exact transport (--mapping "
            "emd, solve_transport), or a larger epsilon in Python",
            NotConvergedWarning,
            stacklevel=2,
        )
    flow = shares * total[..., None]
    return TransportPlan(flow.to(costs.dtype), (flow * matrices).sum(dim=(-2, -1)).to(costs.dtype), missed)


class _EntropicPlan(torch.autograd.Function):
    """F = exp(φ_i + ψ_j − D_ij / ε) with the marginals a, b; its derivative from that equation.

    With G = dLoss/dF and [u; v] the solution of H [u; v] = [(F·G) 1; (F·G)ᵀ 1], H the Hessian of `_marginal_steps`:
    dLoss/dD_ij = −F_ij (G_ij − u_i − v_j) / ε,  dLoss/da = u,  dLoss/db = v.
    """

    @staticmethod
    def forward(ctx: Any, costs: Tensor, student: Tensor, teacher: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        nearly = _entropic_plan(costs, student, teacher, epsilon)
        missed = (nearly.sum(dim=-1) - student).abs().sum(dim=-1) + (nearly.sum(dim=-2) - teacher).abs().sum(dim=-1)
        plan = with_exact_marginals(nearly, student, teacher)
        ctx.epsilon = epsilon
        ctx.save_for_backward(plan)
        ctx.mark_non_differentiable(missed)
        return plan, missed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_plan: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (plan,) = ctx.saved_tensors
        moved = plan * grad_plan
        rows, columns = _marginal_steps(plan, moved.sum(dim=-1), moved.sum(dim=-2))
        return plan * (outer_sum(rows, columns) - grad_plan) / ctx.epsilon, rows, columns, None


def _entropic_plan(costs: Tensor, student: Tensor, teacher: Tensor, epsilon: float) -> Tensor:
    """Sinkhorn's updates in the log domain, each round followed by a damped Newton step on both potentials.

    The step is shortened by log(1 + d) / d, d the most that it changes a logarithm of the plan: so it goes downhill on
    the dual, whose third derivative is at most d times its second, and is whole, of quadratic convergence, in the end.
    Alone, the updates would take thousands of rounds at a small ε.
    """
    log_student, log_teacher = student.clamp_min(TINY).log(), teacher.clamp_min(TINY).log()
    rows, columns = torch.zeros_like(student), torch.zeros_like(teacher)
    plan, previous = costs, 1.0
    for current, steps, tolerance in _schedule(epsilon):
        scaled = costs / current
        rows, columns, previous = rows * previous / current, columns * previous / current, current
        for _ in range(steps):
            rows = log_student - torch.logsumexp(columns[..., None, :] - scaled, dim=-1)
            columns = log_teacher - torch.logsumexp(rows[..., :, None] - scaled, dim=-2)
            plan = (outer_sum(rows, columns) - scaled).exp()
            missing = student - plan.sum(dim=-1)
            if plan.device.type == "cpu" and missing.abs().sum(dim=-1).max() < tolerance:
                break
            row_steps, column_steps = _marginal_steps(plan, missing, teacher - plan.sum(dim=-2))
            change = outer_sum(row_steps, column_steps).abs().amax(dim=(-2, -1))[..., None]
            damping = change.log1p() / change.clamp_min(TINY)
            rows, columns = rows + damping * row_steps, columns + damping * column_steps
    return plan


def _schedule(epsilon: float) -> Iterator[tuple[float, int, float]]:
    """(ε, steps, tolerance) from 1 down to the ε asked for."""
    for power in range(max(0, math.ceil(-math.log(epsilon, COOLING)))):
        yield COOLING**-power, STEPS, TOLERANCE
    yield epsilon, LAST_STEPS, LAST_TOLERANCE


def _marginal_steps(plan: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """The steps of φ and ψ that change the marginals of exp(φ_i + ψ_j − D_ij / ε) by `rows` and `columns`, linearly.

    Solves [diag(F 1), F; Fᵀ, diag(Fᵀ 1)] [δφ; δψ] = [rows; columns]. A constant moved from φ to ψ changes nothing: of
    all solutions, the one without it.
    """
    student_layers, teacher_layers = plan.shape[-2:]
    hessian = torch.cat(
        [
            torch.cat([torch.diag_embed(plan.sum(dim=-1)), plan], dim=-1),
            torch.cat([plan.mT, torch.diag_embed(plan.sum(dim=-2))], dim=-1),
        ],
        dim=-2,
    )
    sign = torch.ones(student_layers + teacher_layers, dtype=plan.dtype, device=plan.device)
    sign[student_layers:] = -1
    hessian = hessian + sign[:, None] * sign / sign.numel() + RIDGE * torch.diag_embed(sign.abs())
    # No check of its result, for which an accelerator would have to be waited for: with the ridge it is not singular.
    steps = torch.linalg.solve_ex(hessian, torch.cat([rows, columns], dim=-1)[..., None])[0][..., 0]
    return steps[..., :student_layers], steps[..., student_layers:]


def outer_sum(rows: Tensor, columns: Tensor) -> Tensor:
    """φ_i + ψ_j."""
    return rows[..., :, None] + columns[..., None, :]


def with_exact_marginals(plan: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
    """A plan close by with these marginals: rows and columns scaled down to them, the mass that is missing spread.

    Source: Altschuler et al., NeurIPS 2017 (arXiv 1705.09634), algorithm 2.
    """
    plan = plan * (student / plan.sum(dim=-1).clamp_min(TINY)).clamp_max(1)[..., :, None]
    plan = plan * (teacher / plan.sum(dim=-2).clamp_min(TINY)).clamp_max(1)[..., None, :]
    rows = (student - plan.sum(dim=-1)).clamp_min(0)
    columns = (teacher - plan.sum(dim=-2)).clamp_min(0)
    return plan + rows[..., :, None] * columns[..., None, :] / columns.sum(dim=-1).clamp_min(TINY)[..., None, None]


def _check_epsilon(epsilon: float) -> None:
    if not 0 < epsilon < math.inf:
        raise ConfigError(f"epsilon={epsilon:g} must be positive and finite, as a share of the mean cost")


def check_problem(costs: Tensor, student_weights: Tensor, teacher_weights: Tensor) -> None:
    """Raise TransportError for shapes that disagree; on a CPU also for entries that are no costs or masses."""
    check_shapes(costs, student_weights, teacher_weights)
    named = {"student_weights": student_weights, "teacher_weights": teacher_weights}
    if costs.device.type != "cpu":
        return
    for name, values in ({"costs": costs} | named).items():
        if not (values.isfinite() & (values >= 0)).all():
            raise TransportError(f"{name} hold an entry that is negative, NaN or infinite; all must be finite and ≥ 0")
    student_total, teacher_total = (weights.detach().double().sum(dim=-1) for weights in named.values())
    if not (student_total > 0).all() or not ((student_total - teacher_total).abs() <= 1e-5 * student_total).all():
        raise TransportError("student_weights and teacher_weights must have one positive sum: divide each by its sum")
