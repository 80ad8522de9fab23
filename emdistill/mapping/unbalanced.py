"""Unbalanced transport: every student layer learns its share, but a teacher layer may be left out, at a price."""

import torch
from torch import Tensor

from emdistill.errors import ConfigError
from emdistill.mapping.mapping import SolvedMapping
from emdistill.mapping.transport import TransportPlan, solve_transport


class UnbalancedMapping(SolvedMapping):
    """Flow by exact transport between uniform layer weights, where a useless teacher layer may go untaught.

    penalty  what it costs to move one unit of mass off a teacher layer onto others, as a share of the mean cost:
             0 gives each student layer its nearest teacher layer, infinity the balanced transport of "emd"
    Raises ConfigError for a penalty out of range, TransportError for costs that are no transport problem.
    """

    def __init__(self, student_layers: int, teacher_layers: int, *, penalty: float = 1.0) -> None:
        super().__init__(student_layers, teacher_layers)
        _check_penalty(penalty)
        self.penalty = penalty

    def solve(self, costs: Tensor) -> Tensor:
        student, teacher = (torch.full((layers,), 1 / layers, dtype=torch.float64) for layers in costs.shape)
        return solve_unbalanced(costs, student, teacher, self.penalty).flow

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, penalty={self.penalty:g}"


def solve_unbalanced(costs: Tensor, student_weights: Tensor, teacher_weights: Tensor, penalty: float) -> TransportPlan:
    """The cheapest way to move the student's masses onto about the teacher's: exact.

    F = argmin Σ_ij F_ij D_ij + λ · ½ Σ_j |Σ_i F_ij − teacher_weights_j|,  F ≥ 0,  Σ_j F_ij = student_weights_i,
    λ = penalty · mean(D); half that sum is the mass that leaves its teacher layer, so it leaves only to save over λ.

    costs [M, N], floating point; student_weights [M]; teacher_weights [N], of equal sums; penalty 0 to infinity. The
    plan's cost is Σ F D, without the price of the mass moved off. Costs all 0: balanced. No gradient passes.
    Raises ConfigError for a penalty out of range, TransportError as `solve_transport`.
    Source: partial transport by a dummy point (Caffarelli & McCann, 2010; Chapel et al., NeurIPS 2020) on one side.
    """
    _check_penalty(penalty)
    balanced = solve_transport(costs, student_weights, teacher_weights)  # checks all, and is what λ = ∞ gives
    matrix = costs.detach().double()
    if not matrix.any():
        return balanced
    # At (M + N) · max(D) no mass is worth moving off: that is more than a whole chain of exchanges can save.
    price = (penalty * matrix.mean()).clamp(max=sum(matrix.shape) * matrix.max())
    nearest = matrix.min(dim=1)
    # One more column takes the mass beyond the teacher's shares, at λ more than the nearest layer; one more row fills
    # the shares that are left, for nothing.
    wider = torch.nn.functional.pad(matrix, (0, 1, 0, 1))
    wider[:-1, -1] = nearest.values + price
    total = student_weights.sum()[None]
    flow = solve_transport(wider, torch.cat([student_weights, total]), torch.cat([teacher_weights, total])).flow[:-1]
    flow = flow[:, :-1].scatter_add(1, nearest.indices[:, None], flow[:, -1:])
    return TransportPlan(flow.to(costs.dtype), (flow * matrix).sum().to(costs.dtype))


def _check_penalty(penalty: float) -> None:
    if not penalty >= 0:  # NaN fails too
        raise ConfigError(f"penalty={penalty:g} must be 0 or more, as a share of the mean cost")
