"""Two-level transport against plain transport, a linear programme over the same block flow, and its own support."""

import numpy as np
import pytest
import torch
from linear_programmes import marginals, solution
from messages import names
from torch import Tensor

from emdistill.errors import ConfigError, TransportError
from emdistill.mapping import TwoLevelMapping, solve_transport, solve_two_level
from emdistill.mapping.two_level import even_blocks

SIZES = [(1, 1), (1, 5), (2, 5), (5, 2), (3, 6), (4, 6), (4, 12), (6, 12), (7, 12), (7, 4)]
KINDS = ["random", "layers", "tied", "zeros", "wide"]


def costs_of(kind: str, shape: tuple[int, int], seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    if kind == "layers":
        distance = np.subtract.outer(np.linspace(0, 1, shape[0]), np.linspace(0, 1, shape[1]))
        return torch.tensor(1 + 3 * distance**2 + 0.3 * rng.random(shape))
    if kind == "tied":
        return torch.tensor(rng.integers(0, 3, shape).astype(float))
    if kind == "wide":
        return torch.tensor(10 ** (12 * rng.random(shape) - 6))
    return torch.tensor(rng.random(shape) if kind == "random" else np.zeros(shape))


def uniform(layers: int) -> Tensor:
    return torch.full((layers,), 1 / layers, dtype=torch.float64)


def block_sums(matrix: Tensor, student_blocks: tuple[int, ...], teacher_blocks: tuple[int, ...]) -> Tensor:
    return torch.stack(
        [
            torch.stack([part.sum() for part in torch.split(rows, list(teacher_blocks), dim=1)])
            for rows in torch.split(matrix, list(student_blocks))
        ]
    )


def block_plan(
    costs: Tensor, student_blocks: tuple[int, ...], teacher_blocks: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """The block costs and block flow, one block pair at a time."""
    found = torch.zeros(len(student_blocks), len(teacher_blocks), dtype=torch.float64)
    for k in range(len(student_blocks)):
        for other in range(len(teacher_blocks)):
            first, second = sum(student_blocks[:k]), sum(teacher_blocks[:other])
            part = costs[first : first + student_blocks[k], second : second + teacher_blocks[other]]
            found[k, other] = solve_transport(part, uniform(part.shape[0]), uniform(part.shape[1])).cost
    masses = [torch.tensor(sizes).double() / sum(sizes) for sizes in (student_blocks, teacher_blocks)]
    return found, solve_transport(found, *masses).flow


def lowest_cost(costs: Tensor, blocks: tuple[tuple[int, ...], tuple[int, ...]], block_flow: Tensor) -> float:
    """min Σ F D with uniform marginals and this flow between the blocks, by a linear programme."""
    rows, columns = costs.shape
    student, teacher = (np.repeat(np.eye(len(sizes)), sizes, axis=1) for sizes in blocks)
    conditions = np.concatenate([*marginals(rows, columns), np.kron(student, teacher)])
    sums = np.concatenate([np.full(rows, 1 / rows), np.full(columns, 1 / columns), block_flow.numpy().ravel()])
    prices = costs.numpy().ravel()
    return float(prices @ solution(prices / max(prices.max(), 1e-300), conditions, sums))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_layers_flow_along_the_blocks(shape: tuple[int, int], kind: str) -> None:
    """Exact marginals; the block flow is the blocks' own plan, 0 where that is; no cheaper flow along it."""
    for blocks in range(1, max(shape) + 1, 1 if max(shape) < 8 else 2):
        mapping = TwoLevelMapping(*shape, blocks=blocks)
        student_blocks, teacher_blocks = mapping.student_blocks, mapping.teacher_blocks
        costs = costs_of(kind, shape, seed=blocks)
        flow = mapping(costs)
        assert (flow >= 0).all()
        torch.testing.assert_close(flow.sum(dim=1), uniform(shape[0]), rtol=0, atol=1e-12)
        torch.testing.assert_close(flow.sum(dim=0), uniform(shape[1]), rtol=0, atol=1e-12)
        block_costs, block_flow = block_plan(costs, student_blocks, teacher_blocks)
        sums = block_sums(flow, student_blocks, teacher_blocks)
        torch.testing.assert_close(sums, block_flow, rtol=0, atol=1e-12)
        assert not sums[block_flow == 0].any()
        cost, scale = (flow * costs).sum().item(), costs.mean().item()
        exact = solve_transport(costs, uniform(shape[0]), uniform(shape[1])).cost.item()
        assert exact - 1e-12 * scale <= cost <= (block_costs * block_flow).sum().item() + 1e-12 * scale
        lowest = lowest_cost(costs, (student_blocks, teacher_blocks), block_flow)
        assert cost == pytest.approx(lowest, rel=1e-6, abs=1e-6 * scale)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_trivial_blocks_are_plain_transport(shape: tuple[int, int], kind: str) -> None:
    costs = costs_of(kind, shape, 0)
    expected = solve_transport(costs, uniform(shape[0]), uniform(shape[1])).cost
    for blocks in (((shape[0],), (shape[1],)), ((1,) * shape[0], (1,) * shape[1])):
        torch.testing.assert_close(solve_two_level(costs, *blocks).cost, expected, rtol=1e-12, atol=1e-15)


def test_blocks_keep_layers_from_crossing() -> None:
    """Plain transport sends the first student layer to the last teacher layer; the blocks as a whole do not."""
    costs = torch.tensor([[1.0, 1.0, 9.0, 0.0], [1.0, 1.0, 9.0, 9.0], [9.0, 9.0, 1.0, 1.0], [0.5, 9.0, 1.0, 1.0]])
    plain = solve_transport(costs, uniform(4), uniform(4))
    two_level = solve_two_level(costs, (2, 2), (2, 2))
    assert plain.flow[0, 3] > 0
    assert two_level.flow[0, 3] == 0
    assert two_level.cost > plain.cost
    torch.testing.assert_close(block_sums(two_level.flow, (2, 2), (2, 2)), torch.eye(2) / 2)


@pytest.mark.parametrize(
    ("layers", "blocks", "sizes"),
    [
        (6, 3, (2, 2, 2)),
        (7, 3, (2, 2, 3)),
        (5, 1, (5,)),
        (3, 8, (1, 1, 1)),
        (12, 5, (2, 2, 3, 2, 3)),
    ],
)
def test_blocks_are_as_even_as_can_be(layers: int, blocks: int, sizes: tuple[int, ...]) -> None:
    assert even_blocks(layers, blocks) == sizes


@pytest.mark.parametrize(
    ("shape", "blocks"),
    [((1, 1), (1, 1)), ((1, 5), (1, 2)), ((2, 5), (2, 2)), ((3, 6), (2, 2)), ((4, 12), (2, 2)), ((6, 12), (3, 3))],
)
def test_blocks_by_default(shape: tuple[int, int], blocks: tuple[int, int]) -> None:
    mapping = TwoLevelMapping(*shape)
    assert (len(mapping.student_blocks), len(mapping.teacher_blocks)) == blocks


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_mapping_is_the_plan_of_its_blocks(dtype: torch.dtype) -> None:
    mapping = TwoLevelMapping(4, 6)
    costs = torch.rand(2, 2, 4, 6, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    assert (mapping.mass, mapping.pairs, mapping.taught_layers) == (1, None, 4)
    expected = solve_two_level(costs[1, 0].double(), (2, 2), (3, 3)).flow
    torch.testing.assert_close(mapping(costs)[1, 0], expected.to(dtype))
    (host,) = mapping.host_inputs(costs)
    assert torch.equal(host, costs)


def test_what_cannot_be_is_refused() -> None:
    for blocks in (0, -1, 7):
        with names(ConfigError, f"blocks={blocks}", 1, 6):
            TwoLevelMapping(3, 6, blocks=blocks)
    for sizes in ((1, 1), (3, 0), ()):
        with names(ConfigError, "student", [*sizes], 3):
            solve_two_level(torch.ones(3, 6), sizes, (3, 3))
    with names(TransportError, "costs", "(3,)"):
        solve_two_level(torch.ones(3), (3,), (3,))
