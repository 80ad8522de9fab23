"""Unbalanced transport against a linear programme, at its limits, and with a teacher layer that is noise."""

import numpy as np
import pytest
import torch
from linear_programmes import marginals, solution
from messages import names
from torch import Tensor

from emdistill.errors import ConfigError
from emdistill.mapping import EmdMapping, UnbalancedMapping, layer_costs, solve_transport, solve_unbalanced

SHAPES = [(1, 1), (1, 5), (4, 1), (2, 2), (3, 6), (4, 6), (6, 12), (7, 4)]


def problem(kind: str, shape: tuple[int, int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    costs = rng.integers(0, 3, shape).astype(float) if kind == "tied" else rng.random(shape)
    if kind == "noise layer":
        costs[:, rng.integers(shape[1])] += 10
    masses = [np.full(n, 1 / n) if kind == "uniform" else rng.dirichlet(np.ones(n)) for n in shape]
    return torch.tensor(costs), torch.tensor(masses[0]), torch.tensor(masses[1])


def off_share(flow: Tensor, teacher: Tensor) -> Tensor:
    """The mass that has left its teacher layer."""
    return (flow.sum(dim=0) - teacher).abs().sum() / 2


def lowest_total(costs: Tensor, student: Tensor, teacher: Tensor, price: float) -> float:
    """min Σ F D + price · ½ Σ_j |surplus_j|, with the surplus of a column cut into what is above and below 0."""
    (each_row, each_column), columns = marginals(*costs.shape), costs.shape[1]
    none = np.zeros(costs.shape)
    conditions = np.block([[each_row, none, none], [each_column, -np.eye(columns), np.eye(columns)]])
    prices = np.concatenate([costs.numpy().ravel(), np.full(2 * columns, price / 2)])
    return float(prices @ solution(prices, conditions, np.concatenate([student.numpy(), teacher.numpy()])))


@pytest.mark.parametrize("penalty", [0.0, 0.05, 0.3, 1.0, 3.0, 1e9])
@pytest.mark.parametrize("kind", ["random", "uniform", "tied", "noise layer"])
def test_no_flow_is_cheaper(kind: str, penalty: float) -> None:
    for seed, shape in enumerate(SHAPES):
        costs, student, teacher = problem(kind, shape, seed)
        if not costs.any():
            continue
        plan = solve_unbalanced(costs, student, teacher, penalty)
        assert (plan.flow >= 0).all()
        torch.testing.assert_close(plan.flow.sum(dim=1), student, rtol=0, atol=1e-12)
        torch.testing.assert_close(plan.cost, (plan.flow * costs).sum())
        price = penalty * costs.mean().item()
        total = plan.cost + price * off_share(plan.flow, teacher)
        tolerance = 1e-6 if penalty > 100 else 1e-9  # a tiny surplus has a price too
        assert total.item() == pytest.approx(lowest_total(costs, student, teacher, price), rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("penalty", [1e3, 1e300, float("inf")])
@pytest.mark.parametrize("kind", ["random", "uniform", "tied", "noise layer"])
def test_a_large_penalty_is_balanced_transport(kind: str, penalty: float) -> None:
    for seed, shape in enumerate(SHAPES):
        costs, student, teacher = problem(kind, shape, seed)
        plan, balanced = solve_unbalanced(costs, student, teacher, penalty), solve_transport(costs, student, teacher)
        torch.testing.assert_close(plan.flow.sum(dim=0), teacher, rtol=0, atol=1e-12)
        torch.testing.assert_close(plan.cost, balanced.cost, rtol=1e-9, atol=1e-12)


def test_no_penalty_gives_each_student_layer_its_nearest_teacher_layer() -> None:
    for seed, shape in enumerate(SHAPES):
        costs, student, teacher = problem("random", shape, seed)
        expected = torch.zeros(shape, dtype=torch.float64)
        expected[torch.arange(shape[0]), costs.argmin(dim=1)] = student
        torch.testing.assert_close(solve_unbalanced(costs, student, teacher, 0.0).flow, expected)


def test_mass_leaves_a_layer_only_where_that_saves_more_than_the_penalty() -> None:
    """One unit costs 3 where it belongs and 1 elsewhere; the mean is 2, so the penalty is paid up to 1."""
    costs, masses = torch.tensor([[1.0, 3.0]]), torch.tensor([0.5, 0.5])
    for penalty, flow in ((0.9, [[1.0, 0.0]]), (1.1, [[0.5, 0.5]])):
        assert solve_unbalanced(costs, torch.ones(1), masses, penalty).flow.tolist() == flow


def test_costs_of_0_leave_the_masses_where_they_are() -> None:
    flow = UnbalancedMapping(3, 6, penalty=0.0)(torch.zeros(3, 6))
    torch.testing.assert_close(flow.sum(dim=0), torch.full((6,), 1 / 6))


def noisy_costs(noise: int | None, seed: int = 0) -> Tensor:
    """Costs of a student near its teacher's layers, one of which is replaced by noise."""
    draw = torch.Generator().manual_seed(seed)
    teacher = list(torch.randn(6, 4, 5, 16, generator=draw).cumsum(dim=0) / 3)
    student = [teacher[j] + 0.2 * torch.randn(4, 5, 16, generator=draw) for j in (1, 3, 5)]
    if noise is not None:
        teacher[noise] = 3 * torch.randn(4, 5, 16, generator=draw)
    return layer_costs(student, teacher, torch.ones(4, 5))


@pytest.mark.parametrize("noise", [None, *range(6)])
def test_a_noise_layer_goes_untaught_and_others_do_not(noise: int | None) -> None:
    costs = noisy_costs(noise)
    taught = UnbalancedMapping(3, 6)(costs).sum(dim=0)
    whole = EmdMapping(3, 6, cost_attention="off")(costs).sum(dim=0)
    torch.testing.assert_close(whole, torch.full((6,), 1 / 6))
    for j in range(6):
        assert (taught[j] == 0) == (j == noise)
    assert taught.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_mapping_is_the_plan_between_uniform_weights(dtype: torch.dtype) -> None:
    mapping = UnbalancedMapping(3, 6, penalty=0.2)
    costs = torch.rand(2, 2, 3, 6, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    flow = mapping(costs)
    assert (mapping.mass, mapping.pairs, mapping.taught_layers) == (1, None, 3)
    for k in range(2):
        student, teacher = torch.full((3,), 1 / 3).double(), torch.full((6,), 1 / 6).double()
        expected = solve_unbalanced(costs[1, k].double(), student, teacher, 0.2).flow
        torch.testing.assert_close(flow[1, k], expected.to(dtype))
    (host,) = mapping.host_inputs(costs)
    assert torch.equal(host, costs)


@pytest.mark.parametrize("penalty", [-1.0, float("nan")])
def test_nonsense_settings_are_refused(penalty: float) -> None:
    with names(ConfigError, f"penalty={penalty:g}"):
        UnbalancedMapping(3, 6, penalty=penalty)
