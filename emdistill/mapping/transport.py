"""Exact optimal transport between two sets of weighted layers; knows nothing of encoders."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ot
import torch
from numpy.typing import NDArray
from torch import Tensor

from emdistill.errors import TransportError

Array = NDArray[Any]

# Marginals of the returned plan are checked to this, as a share of the total mass.
MARGINAL_TOLERANCE = 1e-12
# Flows below it, of masses that sum to 1, are rounding: the true ones are 0 where the optimum is degenerate.
DUST = 1e-15
# Masses in a coarser type than float64 may miss their sum by this many roundings.
ROUNDINGS = 8


@dataclass(frozen=True)
class TransportPlan:
    """flow [M, N]: the mass moved from row i to column j; cost: Σ_ij flow · costs, a scalar.

    missed   what the masses of the solver's plan missed those asked for by, as a share, before they were made exact;
             None for a solver that is exact
    """

    flow: Tensor
    cost: Tensor
    missed: Tensor | None = None


def solve_transport(
    costs: Tensor | Array, student_weights: Tensor | Array, teacher_weights: Tensor | Array
) -> TransportPlan:
    """The cheapest way to move the student's masses onto the teacher's: exact, balanced.

    F = argmin Σ_ij F_ij D_ij,  F ≥ 0,  Σ_j F_ij = student_weights_i,  Σ_i F_ij = teacher_weights_j

    costs [M, N]; student_weights [M]; teacher_weights [N]; tensors of any type and device, or arrays. Solved in
    float64 by the network simplex (at most M+N−1 flows are non-zero); flow and cost come back in the type and on
    the device of the costs. No gradient passes. Sums that differ by rounding only are evened out on the teacher's side.
    Raises TransportError for shapes that disagree, NaN, infinite or negative entries, no mass, and unequal sums.
    """
    costs, student_weights, teacher_weights = map(_as_tensor, (costs, student_weights, teacher_weights))
    if costs.ndim != 2:
        raise TransportError(f"costs have shape {tuple(costs.shape)}; they must be a matrix [M, N] with M, N ≥ 1")
    check_shapes(costs, student_weights, teacher_weights)
    matrix, student, teacher = map(_to_float64, (costs, student_weights, teacher_weights))
    _check_entries("costs", matrix)
    _check_entries("student_weights", student)
    _check_entries("teacher_weights", teacher)
    totals = float(student.sum()), float(teacher.sum())
    _check_totals(*totals, (student_weights.dtype, teacher_weights.dtype))
    plan = _solve(matrix, student / totals[0], teacher / totals[1])
    dtype = costs.dtype if costs.is_floating_point() else torch.float64
    return TransportPlan(
        flow=torch.from_numpy(plan * totals[0]).to(costs.device, dtype),
        cost=torch.tensor(totals[0] * float(np.vdot(plan, matrix)), dtype=dtype, device=costs.device),
    )


def _as_tensor(values: Tensor | Array) -> Tensor:
    return values if isinstance(values, Tensor) else torch.tensor(values)


def _to_float64(values: Tensor) -> Array:
    array: Array = values.detach().double().cpu().numpy()
    return array


def check_shapes(costs: Tensor, student_weights: Tensor, teacher_weights: Tensor) -> None:
    """Raise TransportError unless the masses, [M] or [..., M] and [N] or [..., N], are those of costs [..., M, N]."""
    if costs.ndim < 2 or costs.numel() == 0:
        raise TransportError(f"costs have shape {tuple(costs.shape)}; they must be matrices [..., M, N] with M, N ≥ 1")
    for name, weights, size in (
        ("student_weights", student_weights, costs.shape[-2]),
        ("teacher_weights", teacher_weights, costs.shape[-1]),
    ):
        if tuple(weights.shape) not in {(size,), (*costs.shape[:-2], size)}:
            raise TransportError(
                f"{name} have shape {tuple(weights.shape)}, but costs {tuple(costs.shape)} need ({size},)"
            )


def _check_entries(name: str, values: Array) -> None:
    if np.minimum.reduce(values, None) >= 0 and np.maximum.reduce(values, None) < np.inf:  # NaN where anything is
        return
    bad = tuple(np.argwhere(~np.isfinite(values) | (values < 0))[0].tolist())
    mend = "look for states or losses that overflowed" if name == "costs" else "masses are shares of layers"
    raise TransportError(
        f"{name}[{', '.join(map(str, bad))}] is {values[bad]:g}; it must be finite and not negative ({mend})"
    )


def _check_totals(student_total: float, teacher_total: float, dtypes: Sequence[torch.dtype]) -> None:
    if not (0 < student_total < np.inf and teacher_total > 0):
        raise TransportError(
            f"student_weights sum to {student_total:g} and teacher_weights to {teacher_total:g}; both must be positive"
        )
    difference = abs(student_total - teacher_total) / student_total
    coarsest = max((torch.finfo(dtype).eps for dtype in dtypes if dtype.is_floating_point), default=0.0)
    if difference > max(MARGINAL_TOLERANCE, ROUNDINGS * coarsest):
        raise TransportError(
            f"student_weights sum to {student_total:.9g}, teacher_weights to {teacher_total:.9g}; "
            "balanced transport needs equal sums: divide each by its sum"
        )


def _solve(costs: Array, student: Array, teacher: Array) -> Array:
    """The plan for masses that sum to 1, however far apart the costs are.

    The solver's rounding is a share of the largest cost. So where some cost exceeds (M + N) · c, c the largest
    that the plan uses, such costs are cut to that and the problem is solved again: one cell given up then pays for
    all that can replace it in a cycle, so no optimum uses one, before the cut or after.
    """
    while True:
        largest = float(costs.max())
        plan = _network_simplex(costs / largest if largest > 0 else costs, student, teacher)
        layers = sum(costs.shape)
        if layers * np.vdot(plan, costs) >= largest:  # the mean is at most c, and quicker to have
            return plan
        limit = layers * float(costs[plan > 0].max())
        if not 0 < limit < largest:
            return plan
        costs = np.minimum(costs, limit)


def _network_simplex(costs: Array, student: Array, teacher: Array) -> Array:
    """One call of the solver, its answer checked to be a flow with the marginals asked for."""
    try:
        flow, log = ot.emd(student, teacher, costs, log=True, center_dual=False, check_marginals=False)
    except Warning as warning:  # where warnings are errors, the solver's own come as exceptions
        raise TransportError(f"the transport solver failed: {warning}") from warning
    if log["warning"] is not None:
        raise TransportError(f"the transport solver failed: {log['warning']}")
    if np.count_nonzero(flow) != np.count_nonzero(flow >= DUST):
        flow[flow < np.minimum(DUST, np.minimum.outer(student, teacher) / 2)] = 0
    rows, columns = np.add.reduce(flow, 1) - student, np.add.reduce(flow, 0) - teacher
    error = math.sqrt(rows.dot(rows) + columns.dot(columns))
    if not error <= MARGINAL_TOLERANCE:  # NaN fails too
        raise TransportError(f"the transport solver returned a plan whose marginals are wrong by {error:g}")
    plan: Array = flow
    return plan
