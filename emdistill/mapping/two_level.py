"""Two-level transport: first blocks of consecutive layers, then the layers inside the blocks that found each other."""

from collections.abc import Sequence

import torch
from torch import Tensor

from emdistill.errors import ConfigError, TransportError
from emdistill.mapping.mapping import SolvedMapping
from emdistill.mapping.transport import TransportPlan, solve_transport


class TwoLevelMapping(SolvedMapping):
    """Flow between blocks of consecutive layers first, then between their layers, by exact transport; uniform weights.

    blocks  how many blocks a side is cut into, as even as can be; a side with fewer layers has one block per layer.
            1: plain transport, as is max(M, N). None: half the layers of the shallower side, at least 2.
    Raises ConfigError for blocks out of range, TransportError for costs that are no transport problem.
    Of hierarchical matching it is only the idea, applied to layers: see `solve_two_level`.
    """

    def __init__(self, student_layers: int, teacher_layers: int, *, blocks: int | None = None) -> None:
        super().__init__(student_layers, teacher_layers)
        if blocks is None:
            blocks = max(2, min(student_layers, teacher_layers) // 2)
        elif not 1 <= blocks <= max(student_layers, teacher_layers):
            raise ConfigError(
                f"blocks={blocks} must lie between 1 and {max(student_layers, teacher_layers)}, the layers of the "
                f"deeper side"
            )
        self.student_blocks = even_blocks(student_layers, blocks)
        self.teacher_blocks = even_blocks(teacher_layers, blocks)

    def solve(self, costs: Tensor) -> Tensor:
        return solve_two_level(costs, self.student_blocks, self.teacher_blocks).flow

    def extra_repr(self) -> str:
        return f"student_blocks={list(self.student_blocks)}, teacher_blocks={list(self.teacher_blocks)}"


def even_blocks(layers: int, blocks: int) -> tuple[int, ...]:
    """The sizes of so many consecutive blocks of `layers`, none empty, at most 1 apart."""
    blocks = min(blocks, layers)
    return tuple((number + 1) * layers // blocks - number * layers // blocks for number in range(blocks))


def solve_two_level(costs: Tensor, student_blocks: Sequence[int], teacher_blocks: Sequence[int]) -> TransportPlan:
    """The cheapest way to move uniform layer weights along the cheapest flow between blocks of layers.

    C_kl = the cost of exact transport, per unit of mass, between the layers of student block k and teacher block l;
    G = argmin Σ_kl G_kl C_kl between the blocks' masses |k| / M and |l| / N;
    F = argmin Σ_ij F_ij D_ij,  F ≥ 0,  Σ_j F_ij = 1/M,  Σ_i F_ij = 1/N,  Σ_(i in k, j in l) F_ij = G_kl for all k, l

    costs [M, N], floating point; student_blocks, teacher_blocks: how many consecutive layers each block has.
    Where G_kl = 0, F is 0. The cost of plain transport ≤ Σ F D ≤ Σ G C; equal to the first for one block per side, or
    one per layer. No gradient passes.
    Raises ConfigError for blocks that do not hold the layers, TransportError as `solve_transport`.
    """
    if costs.ndim != 2:
        raise TransportError(f"costs have shape {tuple(costs.shape)}; they must be a matrix [M, N]")
    for side, blocks, layers in zip(("student", "teacher"), (student_blocks, teacher_blocks), costs.shape, strict=True):
        if min(blocks, default=0) < 1 or sum(blocks) != layers:
            raise ConfigError(f"{side} blocks {list(blocks)} must be sizes from 1 that sum to {layers}, its layers")
    matrix = costs.detach().double().cpu()
    if not (matrix.isfinite() & (matrix >= 0)).all():
        _plan(matrix)  # raises, with the entry's place among all layers instead of in its block
    block_costs = torch.stack(
        [
            torch.stack([_plan(part).cost for part in rows.split_with_sizes(list(teacher_blocks), dim=1)])
            for rows in matrix.split_with_sizes(list(student_blocks))
        ]
    )
    block_flow = _plan(block_costs, student_blocks, teacher_blocks).flow
    support = (block_flow > 0).repeat_interleave(torch.tensor(student_blocks), dim=0)
    support = support.repeat_interleave(torch.tensor(teacher_blocks), dim=1)
    # A plan of the network simplex has no cycle: the masses of the blocks alone decide what flows between which, so
    # whatever keeps to its support has its block flow. No optimum leaves it, where that costs more than a whole cycle.
    outside = sum(matrix.shape) * float(matrix.max()) or 1.0
    flow = torch.where(support, _plan(torch.where(support, matrix, outside)).flow, 0)
    return TransportPlan(flow.to(costs), (flow * matrix).sum().to(costs))


def _plan(
    costs: Tensor, student_sizes: Sequence[int] | None = None, teacher_sizes: Sequence[int] | None = None
) -> TransportPlan:
    """Exact transport between masses that are proportional to these sizes, or equal."""
    student, teacher = (
        torch.tensor(sizes or [1] * layers, dtype=torch.float64)
        for sizes, layers in zip((student_sizes, teacher_sizes), costs.shape, strict=True)
    )
    return solve_transport(costs, student / student.sum(), teacher / teacher.sum())
