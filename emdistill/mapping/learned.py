"""Transport by a small net: it guesses the prices of a transport problem, and its cost has gradients.

φ = net(D, a, b),  ψ_j = min_i (D_ij − φ_i),  φ_i = min_j (D_ij − ψ_j)        prices of rows and columns, feasible
cost = Σ a φ + Σ b ψ  ≤  the exact cost  ≤  Σ F D                             F: a plan with exact marginals, near ψ, φ
dcost/da = φ,  dcost/db = ψ

So the error of a guess is known without solving anything: at most Σ F D − cost. The net treats rows alike and
columns alike, so that one set of weights serves all numbers of layers; it was trained to raise `cost` on random
problems, without any solution of them (benchmarks/learned_transport.py), and its weights lie beside this file.
Sources: the learned Earth Mover's Distance of Liu et al. (differentiable EMD by a CNN) gives the idea; amortised prices
after Amos et al., Meta Optimal Transport, ICML 2023 (arXiv 2206.05262); layers for rows and columns after Hartford et
al., ICML 2018 (arXiv 1803.02879).
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from emdistill.errors import ConfigError
from emdistill.mapping.mapping import LayerMapping
from emdistill.mapping.sinkhorn import check_problem, outer_sum, with_exact_marginals
from emdistill.values import with_choices

WEIGHTS = Path(__file__).with_name("learned.safetensors")
WIDTH, DEPTH, FEATURES = 32, 3, 3
SHARPNESS = 50.0  # of the plan around the prices: pairs dearer by 1/50 of the mean cost carry e times less

LearnedWeights = Literal["uniform", "descent"]


class LearnedPlan(NamedTuple):
    """cost [...], from below; flow [..., M, N] of exact marginals; prices of rows [..., M] and columns [..., N]."""

    cost: Tensor
    flow: Tensor
    student_prices: Tensor
    teacher_prices: Tensor


class Exchange(nn.Module):
    """h_ij -> SiLU(A h_ij + B [mean, least]_j h + C [mean, least]_i h + D mean h): rows and columns are each a set."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.entry = nn.Linear(6 * inputs, outputs)

    def forward(self, states: Tensor) -> Tensor:
        """[..., M, N, inputs] -> [..., M, N, outputs]."""
        rows = torch.cat([states.mean(dim=-2, keepdim=True), states.amin(dim=-2, keepdim=True)], dim=-1)
        columns = torch.cat([states.mean(dim=-3, keepdim=True), states.amin(dim=-3, keepdim=True)], dim=-1)
        every = states.mean(dim=(-3, -2), keepdim=True)
        shape = states.shape[:-1]
        parts = [states, *(part.expand(*shape, -1) for part in (rows, columns, every))]
        return nn.functional.silu(self.entry(torch.cat(parts, dim=-1)))


class PriceNet(nn.Module):
    """(costs of mean 1 [..., M, N], a [..., M], b [..., N]) -> prices of the rows [..., M]."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [FEATURES, *[WIDTH] * DEPTH]
        self.layers = nn.ModuleList(map(Exchange, sizes[:-1], sizes[1:]))
        self.price = nn.Linear(2 * WIDTH, 1)

    def forward(self, costs: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
        shares = (student[..., :, None] * costs.shape[-2], teacher[..., None, :] * costs.shape[-1])
        states = torch.stack([costs, *(share.expand(costs.shape) for share in shares)], dim=-1)
        for layer in self.layers:
            states = layer(states)
        rows = torch.cat([states.mean(dim=-2), states.amin(dim=-2)], dim=-1)
        prices: Tensor = self.price(rows)[..., 0]
        return prices


def learned_plan(net: PriceNet, costs: Tensor, student_weights: Tensor, teacher_weights: Tensor) -> LearnedPlan:
    """The transport problem as the net prices it; differentiable in all three.

    costs [..., M, N], student_weights [..., M] and teacher_weights [..., N], both of sum 1; the net
    computes in float32, the flow is float64, cost and prices are of the costs' type.
    """
    mean = costs.double().mean(dim=(-2, -1), keepdim=True)
    scale = torch.where(mean > 0, mean, 1)
    scaled, student, teacher = (costs / scale).float(), student_weights.float(), teacher_weights.float()
    student, teacher = student.expand(scaled.shape[:-1]), teacher.expand(*scaled.shape[:-2], -1)
    columns = (scaled - net(scaled, student, teacher)[..., :, None]).amin(dim=-2)
    rows = (scaled - columns[..., None, :]).amin(dim=-1)  # no price of a row can be higher beside these
    cost = (student * rows).sum(dim=-1) + (teacher * columns).sum(dim=-1)
    student, teacher = student.double(), teacher.double()  # the marginals are exact in float64
    gains = outer_sum(rows, columns).double() - scaled.double()
    near = student[..., :, None] * teacher[..., None, :] * (SHARPNESS * gains).exp()
    flow = with_exact_marginals(near / near.sum(dim=(-2, -1), keepdim=True), student, teacher)
    unit = scale[..., 0]
    cost, rows, columns = cost * unit[..., 0], rows * unit, columns * unit
    return LearnedPlan(cost.to(costs.dtype), flow, rows.to(costs.dtype), columns.to(costs.dtype))


@cache
def price_net() -> PriceNet:
    """The net as it was trained; its weights are constants."""
    net = PriceNet()
    net.load_state_dict(load_file(WEIGHTS))
    return net.requires_grad_(False).eval()


@with_choices
class LearnedMapping(LayerMapping):
    """Flow from student to teacher layers by prices that a small net guesses; layer weights may descend its gradient.

    weights   uniform, or descent: in training mode w_i ∝ w_i · exp(−step · (φ_i − mean φ) / mean D), each at least
              weight_floor: layers that are cheap to move gain weight, as the gradient of the cost says
    Buffers student_weights [M] and teacher_weights [N] start uniform. Raises ConfigError for settings out of range.
    """

    mass = 1.0
    student_weights: Tensor
    teacher_weights: Tensor

    def __init__(
        self,
        student_layers: int,
        teacher_layers: int,
        *,
        weights: LearnedWeights = "uniform",
        step: float = 0.1,
        weight_floor: float = 1e-3,
    ) -> None:
        super().__init__(student_layers, teacher_layers)
        if not 0 <= step <= 1:
            raise ConfigError(f"step={step:g} must lie between 0 and 1")
        uniform = 1 / max(student_layers, teacher_layers)
        if not 0 <= weight_floor <= uniform:
            raise ConfigError(f"weight_floor={weight_floor:g} must lie between 0 and {uniform:g}, the uniform one")
        self.weights: LearnedWeights = weights
        self.step = step
        self.weight_floor = weight_floor
        self.register_buffer("student_weights", torch.full((student_layers,), 1 / student_layers))
        self.register_buffer("teacher_weights", torch.full((teacher_layers,), 1 / teacher_layers))

    def flow(self, costs: Tensor, host: Sequence[Tensor]) -> Tensor:
        self.check_shape(costs)
        check_problem(costs.detach(), self.student_weights, self.teacher_weights)
        net = price_net().to(costs.device)
        plan = learned_plan(net, costs.detach(), self.student_weights, self.teacher_weights)
        if self.training and self.weights == "descent":
            self._descend(costs, plan)
        return plan.flow.to(costs.dtype)

    def _descend(self, costs: Tensor, plan: LearnedPlan) -> None:
        scale = costs.detach().float().mean(dim=(-2, -1)).clamp_min(torch.finfo(torch.float32).tiny)
        for weights, prices in (
            (self.student_weights, plan.student_prices),
            (self.teacher_weights, plan.teacher_prices),
        ):
            slope = ((prices - prices.mean(dim=-1, keepdim=True)) / scale[..., None]).reshape(-1, len(weights))
            moved = weights * torch.exp(-self.step * slope.mean(dim=0))
            moved = (moved / moved.sum()).clamp_min(self.weight_floor)
            weights.copy_(moved / moved.sum())

    def extra_repr(self) -> str:
        settings = f"weights='{self.weights}', step={self.step:g}, weight_floor={self.weight_floor:g}"
        return f"{super().extra_repr()}, {settings}"
