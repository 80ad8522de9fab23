"""solve_transport against SciPy's HiGHS and against exact assignments."""

import time
from collections.abc import Iterator

import numpy as np
import ot
import pytest
import torch
from linear_programmes import cheapest_flow
from messages import names
from scipy.optimize import linear_sum_assignment

from emdistill.errors import TransportError
from emdistill.mapping import solve_transport

SHAPES = [(1, 1), (1, 5), (4, 1), (2, 2), (2, 6), (3, 6), (4, 12), (6, 12), (5, 7), (7, 4)]
Problem = tuple[str, np.ndarray, np.ndarray, np.ndarray]


def masses(rng: np.random.Generator, size: int, kind: str) -> np.ndarray:
    values = np.ones(size) if kind == "uniform" else rng.dirichlet(np.full(size, 0.3 if kind == "skewed" else 1.0))
    if kind == "tiny":
        values[rng.integers(size)] = 1e-12
    if kind == "zero" and size > 1:
        values[rng.permutation(size)[: max(1, size // 3)]] = 0
        values[values.argmax()] += 0.1
    return values / values.sum()


def costs_of(rng: np.random.Generator, shape: tuple[int, int], kind: str) -> np.ndarray:
    if kind == "zeros":
        return np.zeros(shape)
    if kind == "constant":
        return np.full(shape, 0.7)
    if kind == "tied":
        return rng.integers(0, 3, shape).astype(float)
    if kind == "offset":
        return 1e6 + rng.random(shape)
    if kind == "free layers":
        costs = rng.random(shape)
        costs[:, rng.integers(shape[1])] = 0
        return costs
    if kind == "noise layer":
        costs = rng.random(shape)
        costs[:, rng.integers(shape[1])] = 1e4
        return costs
    return rng.random(shape)


def problems() -> Iterator[Problem]:
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        for cost_kind in ("random", "zeros", "constant", "tied", "offset", "free layers", "noise layer"):
            for mass_kind in ("uniform", "random", "skewed", "tiny", "zero"):
                name = f"{shape} {cost_kind} {mass_kind}"
                student, teacher = masses(rng, shape[0], mass_kind), masses(rng, shape[1], mass_kind)
                yield name, costs_of(rng, shape, cost_kind), student, teacher
    for cost_kind in ("random", "zeros", "tied"):
        for mass_kind in ("uniform", "skewed"):
            student, teacher = masses(rng, 24, mass_kind), masses(rng, 48, mass_kind)
            yield f"24x48 {cost_kind} {mass_kind}", costs_of(rng, (24, 48), cost_kind), student, teacher


def lowest_cost(costs: np.ndarray, student: np.ndarray, teacher: np.ndarray) -> float:
    return float((cheapest_flow(costs, student, teacher) * costs).sum())


def test_plan_is_optimal_feasible_and_basic() -> None:
    count = 0
    for name, costs, student, teacher in problems():
        plan = solve_transport(torch.tensor(costs), torch.tensor(student), torch.tensor(teacher))
        flow = plan.flow.numpy()
        assert flow.dtype == np.float64, name
        assert flow.min() >= 0, name
        assert np.abs(flow.sum(axis=1) - student).max() <= 1e-12, name
        assert np.abs(flow.sum(axis=0) - teacher).max() <= 1e-12, name
        assert np.count_nonzero(flow) <= sum(costs.shape) - 1, name
        cost = plan.cost.item()
        assert cost == pytest.approx((flow * costs).sum(), rel=1e-12), name
        oracle = lowest_cost(costs, student, teacher)
        # HiGHS drops masses below its feasibility tolerance, so tiny masses may cost it nothing.
        assert cost == pytest.approx(oracle, rel=1e-9, abs=1e-10 * costs.max()), name
        assert cost <= (np.outer(student, teacher) * costs).sum() * (1 + 1e-12), name
        count += 1
    assert count > 300


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e-12, 1.0, 1e12, 1e30, 1e300])
def test_scale_of_the_costs_changes_nothing(scale: float) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        costs = rng.random((4, 12))
        student, teacher = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(12))
        plan = solve_transport(costs * scale, student, teacher)
        expected = solve_transport(costs, student, teacher)
        assert plan.cost.item() / scale == pytest.approx(expected.cost.item(), rel=1e-9)


@pytest.mark.parametrize("spread", ["one outlier", "many outliers", "absurd outliers", "sixteen decades"])
def test_far_apart_costs_against_an_assignment(spread: str) -> None:
    """With uniform masses and M | N the optimum is an assignment of teacher layers to copies of student layers."""
    rng = np.random.default_rng(2)
    for _ in range(100):
        costs = rng.random((4, 12))
        if spread == "one outlier":
            costs.flat[rng.integers(48)] = 1e12
        elif spread == "many outliers":
            costs[rng.random(costs.shape) < 0.2] = 1e12
        elif spread == "absurd outliers":
            costs[rng.random(costs.shape) < 0.1] = 1e150
            costs[rng.random(costs.shape) < 0.1] = 1e300
        else:
            costs = 10 ** rng.uniform(-8, 8, costs.shape)
        copies = np.repeat(costs, 3, axis=0)
        expected = copies[linear_sum_assignment(copies)].sum() / 12
        plan = solve_transport(costs, np.full(4, 1 / 4), np.full(12, 1 / 12))
        assert plan.cost.item() == pytest.approx(expected, rel=1e-12)
        assert ((plan.flow > 0).sum(dim=0) == 1).all()


@pytest.mark.parametrize("total", [1e-12, 4.0, 1e12])
def test_any_total_mass(total: float) -> None:
    rng = np.random.default_rng(3)
    costs = rng.random((4, 12))
    student, teacher = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(12))
    plan = solve_transport(costs, student * total, teacher * total)
    assert plan.cost.item() / total == pytest.approx(lowest_cost(costs, student, teacher), rel=1e-9)
    assert np.abs(plan.flow.sum(dim=1).numpy() - student * total).max() <= 1e-12 * total


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_type_of_the_costs_is_kept_and_no_gradient_passes(dtype: torch.dtype) -> None:
    costs = torch.rand(4, 12, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    weights = torch.softmax(torch.linspace(0, 1, 12, dtype=dtype), dim=0)  # sums to 1 up to the type's rounding
    plan = solve_transport(costs, torch.full((4,), 0.25, dtype=dtype), weights)
    assert plan.flow.dtype == plan.cost.dtype == dtype
    assert not plan.flow.requires_grad
    assert not plan.cost.requires_grad
    assert plan.flow.double().sum().item() == pytest.approx(1, abs=4 * torch.finfo(dtype).eps)


def test_arrays_and_read_only_arrays_become_tensors() -> None:
    costs = np.array([[1.0, 2.0], [3.0, 1.0]])
    costs.setflags(write=False)
    plan = solve_transport(costs, np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    assert plan.flow.tolist() == [[0.5, 0.0], [0.0, 0.5]]
    assert plan.cost.item() == 1.0


def test_float32_weights_are_evened_out_on_the_teachers_side() -> None:
    student = torch.full((3,), 1 / 3)
    teacher = torch.full((7,), 1 / 7)
    flow = solve_transport(torch.rand(3, 7, dtype=torch.float64), student, teacher).flow
    assert torch.equal(flow.sum(dim=1).float(), student)
    torch.testing.assert_close(flow.sum(dim=0).float(), teacher)


HALF = [0.5, 0.5]


@pytest.mark.parametrize(
    ("costs", "student", "teacher", "named"),
    [
        ([[0.0, 1.0], [float("nan"), 1.0]], HALF, HALF, ["costs[1, 0]", "nan"]),
        ([[0.0, float("inf")], [1.0, 1.0]], HALF, HALF, ["costs[0, 1]", "inf"]),
        ([[0.0, 1.0], [1.0, -1e-9]], HALF, HALF, ["costs[1, 1]", "-1e-09"]),
        ([[float("nan")] * 2] * 2, HALF, HALF, ["costs[0, 0]", "nan"]),
        ([[0.0, 1.0], [1.0, 0.0]], [0.5, float("nan")], HALF, ["student_weights[1]", "nan"]),
        ([[0.0, 1.0], [1.0, 0.0]], HALF, [1.5, -0.5], ["teacher_weights[1]", -0.5]),
        ([[0.0, 1.0], [1.0, 0.0]], HALF, [float("inf"), 0.5], ["teacher_weights[0]", "inf"]),
        ([[0.0, 1.0], [1.0, 0.0]], HALF, [0.5, 0.4], ["student_weights", "teacher_weights", 1]),
        ([[0.0, 1.0], [1.0, 0.0]], HALF, [0.5, 0.5 + 1e-5], ["student_weights", "teacher_weights", 1]),
        ([[0.0, 1.0], [1.0, 0.0]], [0.0, 0.0], [0.0, 0.0], ["student_weights", "teacher_weights"]),
        ([[0.0, 1.0], [1.0, 0.0]], [1.0], HALF, ["student_weights", "(1,)", "(2,)"]),
        ([[0.0, 1.0], [1.0, 0.0]], HALF, [HALF], ["teacher_weights", "(1, 2)"]),
        ([0.0, 1.0], HALF, HALF, ["costs", "(2,)"]),
        ([[], []], HALF, [], ["costs", "(2, 0)"]),
    ],
)
def test_no_transport_problem_is_refused(costs: object, student: object, teacher: object, named: list[object]) -> None:
    with names(TransportError, *named):
        solve_transport(torch.tensor(costs), torch.tensor(student), torch.tensor(teacher))


def test_float64_sums_may_not_differ_by_more_than_rounding() -> None:
    with names(TransportError, "student_weights", "teacher_weights"):
        solve_transport(np.ones((1, 1)), np.array([1.0]), np.array([1 + 1e-9]))


@pytest.mark.parametrize("fault", ["marginals", "nan", "warning", "warning as error"])
def test_a_faulty_solver_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def emd(student: np.ndarray, teacher: np.ndarray, *_: object, **__: object) -> tuple[np.ndarray, dict[str, object]]:
        flow = np.outer(student, teacher)
        if fault == "warning as error":
            raise UserWarning("numItermax reached")
        if fault == "marginals":
            flow[0, 0] += 1e-9
        if fault == "nan":
            flow[0, 0] = np.nan
        return flow, {"warning": "numItermax reached" if fault == "warning" else None}

    monkeypatch.setattr(ot, "emd", emd)
    with names(TransportError, "solver"):
        solve_transport(torch.rand(2, 3), torch.full((2,), 1 / 2), torch.full((3,), 1 / 3))


def test_a_call_is_cheap() -> None:
    costs, student, teacher = torch.rand(4, 12), torch.full((4,), 1 / 4), torch.full((12,), 1 / 12)
    times = []
    for _ in range(200):
        start = time.perf_counter()
        solve_transport(costs, student, teacher)
        times.append(time.perf_counter() - start)
    assert sorted(times)[10] < 1e-3  # about 0.1 ms; the bound only catches a change of kind
