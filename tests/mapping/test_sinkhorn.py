"""Entropic transport against POT's Sinkhorn, against exact plans as ε goes to 0, and its gradients three ways."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import ot
import pytest
import torch
from encoder_states import leaves, random_states
from messages import names
from torch import Tensor
from torch.autograd import gradcheck

from emdistill.errors import ConfigError, TransportError
from emdistill.losses import HiddenStateCosts, LayerLoss
from emdistill.mapping import SinkhornMapping, sinkhorn_plan, solve_transport
from emdistill.mapping.sinkhorn import NotConvergedWarning
from emdistill.states import EncoderShape

SHAPES = [(1, 1), (1, 5), (4, 1), (3, 6), (4, 12), (5, 7), (6, 12), (7, 4), (24, 48)]
COSTS: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "random": lambda rng, shape: rng.random(shape),
    "layers": lambda rng, shape: (
        1
        + 3 * np.subtract.outer(np.linspace(0, 1, shape[0]), np.linspace(0, 1, shape[1])) ** 2
        + 0.1 * rng.random(shape)
    ),
    "zeros": lambda rng, shape: np.zeros(shape),
    "equal": lambda rng, shape: np.full(shape, 0.7),
    "tied": lambda rng, shape: rng.integers(0, 3, shape).astype(float),
    "huge": lambda rng, shape: 1e300 * rng.random(shape),
    "tiny": lambda rng, shape: 1e-300 * rng.random(shape),
    "wide": lambda rng, shape: 10 ** (24 * rng.random(shape) - 12),
    "one is free": lambda rng, shape: rng.random(shape) * (np.arange(shape[1]) > 0),
    "a noise layer": lambda rng, shape: rng.random(shape) + 1e4 * (np.arange(shape[1]) == shape[1] - 1),
}


def problem(
    kind: str, shape: tuple[int, int], seed: int = 0, *, uniform: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    masses = [np.full(n, 1 / n) if uniform else rng.dirichlet(np.full(n, 2.0)) for n in shape]
    return torch.tensor(COSTS[kind](rng, shape)), torch.tensor(masses[0]), torch.tensor(masses[1])


@pytest.mark.parametrize("epsilon", [10.0, 0.5, 0.01, 1e-3, 1e-6])
@pytest.mark.parametrize("kind", COSTS)
def test_plans_are_feasible(kind: str, epsilon: float) -> None:
    """Exact marginals, no negative flow: at any ε, for any costs, also where the steps do not reach the optimum."""
    for seed, shape in enumerate(SHAPES[:-1]):
        costs, student, teacher = problem(kind, shape, seed)
        if seed % 2 and min(shape) > 1:
            student[0], teacher[-1] = 0, 0
            student, teacher = student / student.sum(), teacher / teacher.sum()
        plan = sinkhorn_plan(costs, student, teacher, epsilon=epsilon)
        assert (plan.flow >= 0).all()
        torch.testing.assert_close(plan.flow.sum(dim=1), student, rtol=0, atol=1e-14)
        torch.testing.assert_close(plan.flow.sum(dim=0), teacher, rtol=0, atol=1e-14)
        torch.testing.assert_close(plan.cost, (plan.flow * costs).sum())


@pytest.mark.parametrize("kind", ["random", "layers", "tied", "one is free", "equal"])
@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.05])
def test_the_plan_is_that_of_an_independent_solver(kind: str, epsilon: float) -> None:
    for seed, shape in enumerate(SHAPES[:-1]):
        costs, student, teacher = problem(kind, shape, seed)
        flow = sinkhorn_plan(costs, student, teacher, epsilon=epsilon).flow
        regularisation = epsilon * (costs.mean().item() or 1.0)
        expected = ot.bregman.sinkhorn_log(
            student.numpy(),
            teacher.numpy(),
            costs.numpy(),
            regularisation,
            numItermax=20_000,
            stopThr=1e-12,
            warn=False,
        )
        np.testing.assert_allclose(flow, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", ["random", "layers", "tied", "one is free"])
def test_it_goes_to_exact_transport(kind: str) -> None:
    """The gap shrinks with ε, is under 1% at the default, and hardly there at 1e-4."""
    for seed in range(5):
        for shape in ((3, 6), (4, 6), (4, 12), (6, 12), (7, 4)):
            costs, student, teacher = problem(kind, shape, seed, uniform=True)
            exact = solve_transport(costs, student, teacher).cost.item()
            gaps = [
                sinkhorn_plan(costs, student, teacher, epsilon=epsilon).cost.item() - exact
                for epsilon in (1.0, 0.1, 0.01, 1e-3, 1e-4)
            ]
            scale = max(exact, 1e-3 * costs.mean().item())
            assert all(gap >= -1e-12 * scale for gap in gaps)
            assert all(later <= earlier + 1e-9 * scale for earlier, later in pairwise(gaps))
            assert gaps[2] < 0.01 * scale
            assert gaps[4] < 1e-4 * scale


def test_its_default_is_near_exact_transport() -> None:
    costs, student, teacher = problem("layers", (4, 12), uniform=True)
    mapping = SinkhornMapping(4, 12)
    exact = solve_transport(costs, student, teacher)
    assert torch.equal(mapping(costs), sinkhorn_plan(costs, student, teacher).flow)
    assert (mapping(costs) * costs).sum() < 1.01 * exact.cost


def test_a_large_epsilon_spreads_the_masses_evenly() -> None:
    costs, student, teacher = problem("random", (3, 5))
    flow = sinkhorn_plan(costs, student, teacher, epsilon=1e6).flow
    torch.testing.assert_close(flow, torch.outer(student, teacher), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", ["zeros", "equal"])
def test_equal_costs_spread_the_masses_evenly(kind: str) -> None:
    costs, student, teacher = problem(kind, (3, 5))
    torch.testing.assert_close(sinkhorn_plan(costs, student, teacher).flow, torch.outer(student, teacher))


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e6, 1e30])
def test_the_scale_of_the_costs_does_not_matter(scale: float) -> None:
    costs, student, teacher = problem("random", (4, 6))
    torch.testing.assert_close(
        sinkhorn_plan(scale * costs, student, teacher).flow, sinkhorn_plan(costs, student, teacher).flow
    )


def test_the_plans_of_a_batch_are_those_of_its_parts() -> None:
    kinds = list(COSTS)
    costs, student, teacher = map(
        torch.stack, zip(*(problem(kind, (3, 6), k) for k, kind in enumerate(kinds)), strict=True)
    )
    together = sinkhorn_plan(costs, student, teacher, epsilon=0.02)
    shared = sinkhorn_plan(costs.view(2, 5, 3, 6), student[0], teacher[0], epsilon=0.02)
    assert together.cost.shape == (10,)
    assert shared.flow.shape == (2, 5, 3, 6)
    for k in range(10):
        alone = sinkhorn_plan(costs[k], student[k], teacher[k], epsilon=0.02)
        torch.testing.assert_close(together.flow[k], alone.flow, rtol=0, atol=1e-10)
        largest = costs[k].max().clamp_min(1e-300)
        torch.testing.assert_close(together.cost[k] / largest, alone.cost / largest)
        alone = sinkhorn_plan(costs[k], student[0], teacher[0], epsilon=0.02)
        torch.testing.assert_close(shared.flow.view(10, 3, 6)[k], alone.flow, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_it_comes_back_in_the_type_of_the_costs(dtype: torch.dtype) -> None:
    costs, student, teacher = problem("random", (3, 6))
    plan = sinkhorn_plan(costs.to(dtype), student.float(), 1.000001 * teacher.float())
    assert plan.flow.dtype == plan.cost.dtype == dtype
    torch.testing.assert_close(plan.flow, sinkhorn_plan(costs.to(dtype).double(), student, teacher).flow.to(dtype),
                               rtol=1e-2, atol=1e-5)  # fmt: skip


def test_masses_of_another_sum_are_moved_as_they_are() -> None:
    costs, student, teacher = problem("random", (3, 6))
    whole = sinkhorn_plan(costs, student, teacher)
    thrice = sinkhorn_plan(costs, 3 * student, 3 * teacher)
    torch.testing.assert_close(thrice.flow, 3 * whole.flow)
    torch.testing.assert_close(thrice.cost, 3 * whole.cost)


# --- gradients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.05])
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 4), (4, 3), (2, 3, 5)])
def test_gradients_of_the_plan_are_right(shape: tuple[int, ...], epsilon: float) -> None:
    """Against finite differences, in costs and masses; the scale, which ε is a share of, included."""
    rng = np.random.default_rng(0)
    costs = torch.tensor(rng.random(shape) + 0.1, requires_grad=True)
    masses = [torch.tensor(rng.dirichlet(np.full(n, 3.0), shape[:-2] or None), requires_grad=True) for n in shape[-2:]]

    def flow(costs: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
        return sinkhorn_plan(costs, student / student.sum(-1, keepdim=True), teacher / teacher.sum(-1, keepdim=True),
                             epsilon=epsilon).flow  # fmt: skip

    assert gradcheck(flow, (costs, *masses), eps=1e-6, atol=1e-6, rtol=1e-4)


def entropic_value(costs: Tensor, student: Tensor, teacher: Tensor, regularisation: float) -> Tensor:
    """min Σ F D + r Σ F (log F − 1), r fixed whatever the scale of the costs."""
    flow = sinkhorn_plan(costs, student, teacher, epsilon=regularisation / costs.mean().item()).flow
    return (flow * costs).sum() + regularisation * (flow * (flow.clamp_min(1e-300).log() - 1)).sum()


def cosine(one: Tensor, other: Tensor) -> float:
    return torch.cosine_similarity(one.flatten(), other.flatten(), dim=0).item()


@pytest.mark.parametrize("epsilon", [0.5, 0.05, 0.01, 1e-3])
@pytest.mark.parametrize("shape", [(3, 6), (4, 6), (4, 12)])
def test_the_gradient_of_the_entropic_value_is_the_plan(shape: tuple[int, int], epsilon: float) -> None:
    directions = np.random.default_rng(0)
    for seed in range(2):
        costs, student, teacher = problem("layers", shape, seed)
        regularisation = epsilon * costs.mean().item()
        flow = sinkhorn_plan(costs, student, teacher, epsilon=epsilon).flow
        costs.requires_grad_()
        (found,) = torch.autograd.grad(entropic_value(costs, student, teacher, regularisation), costs)
        torch.testing.assert_close(found, flow, rtol=1e-4, atol=1e-6)
        for _ in range(3):  # along directions drawn at random, by finite differences
            direction = torch.from_numpy(directions.standard_normal(shape))
            direction, step = direction / direction.norm(), 1e-5
            higher, lower = (
                entropic_value(costs.detach() + sign * step * direction, student, teacher, regularisation)
                for sign in (1, -1)
            )
            slope = (flow * direction).sum().item()
            assert (higher - lower).item() / (2 * step) == pytest.approx(slope, abs=1e-4 * flow.norm().item())
        exact = solve_transport(costs, student, teacher).flow
        assert epsilon > 1e-3 or cosine(found, exact) > 0.99


@pytest.mark.parametrize("kind", COSTS)
def test_gradients_are_finite_where_plans_are_extreme(kind: str) -> None:
    for epsilon in (0.1, 0.01, 1e-4):
        costs, student, teacher = (values.requires_grad_() for values in problem(kind, (4, 6)))
        weights = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
        (sinkhorn_plan(costs, student, teacher, epsilon=epsilon).flow * weights).sum().backward()
        for values in (costs, student, teacher):
            assert values.grad is not None
            assert values.grad.isfinite().all()


@pytest.mark.parametrize("differentiable", [False, True])
def test_the_flow_is_a_constant_unless_it_is_asked_to_be_none(differentiable: bool) -> None:
    mapping = SinkhornMapping(3, 6, epsilon=0.1, differentiable=differentiable)
    costs = problem("layers", (3, 6))[0].requires_grad_()
    flow = mapping(costs)
    assert mapping.differentiable == flow.requires_grad == differentiable
    with torch.no_grad():
        assert not mapping(costs).requires_grad
    assert mapping.flow(costs, []).requires_grad == differentiable
    (found,) = torch.autograd.grad((flow * costs).sum(), costs)
    assert torch.equal(found, flow) != differentiable


def test_a_layer_loss_passes_gradients_through_a_differentiable_flow() -> None:
    shapes, mask = (EncoderShape(3, 6, 1), EncoderShape(6, 6, 1)), torch.ones(2, 4, dtype=torch.long)
    student, teacher = (leaves(random_states(shape, mask, seed)) for seed, shape in enumerate(shapes))
    gradients = []
    for differentiable in (False, True):
        loss = LayerLoss([HiddenStateCosts()], SinkhornMapping(3, 6, epsilon=0.1, differentiable=differentiable))
        (term,) = loss(student, teacher, {}).values()
        gradients.append(torch.autograd.grad(term, student.hidden[0])[0])  # type: ignore[arg-type]
        assert not loss.last_flows["hidden_states"].requires_grad
        assert cosine(gradients[-1], gradients[0]) > 0.9
    assert not torch.allclose(*gradients)


# --- what it refuses and prints -----------------------------------------------------------------------------------


def test_it_has_no_state_and_reads_nothing_on_the_cpu() -> None:
    assert not SinkhornMapping(3, 6).state_dict()
    assert SinkhornMapping(3, 6).host_inputs(torch.ones(3, 6)) == []


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf")])
def test_nonsense_settings_are_refused(epsilon: float) -> None:
    with names(ConfigError, f"epsilon={epsilon:g}"):
        SinkhornMapping(3, 6, epsilon=epsilon)
    with names(ConfigError, f"epsilon={epsilon:g}"):
        sinkhorn_plan(torch.ones(1, 1), torch.ones(1), torch.ones(1), epsilon=epsilon)


@pytest.mark.parametrize(
    ("costs", "student", "teacher", "named"),
    [
        (torch.ones(3), torch.ones(3), torch.ones(3), ["costs", "(3,)"]),
        (torch.ones(0, 3), torch.ones(0), torch.ones(3), ["costs", "(0, 3)"]),
        (torch.ones(2, 3), torch.ones(3), torch.ones(3), ["student_weights", "(3,)", "(2, 3)"]),
        (torch.ones(2, 2, 3), torch.ones(2), torch.ones(3, 3), ["teacher_weights", "(3, 3)"]),
        (torch.tensor([[1.0, float("nan")]]), torch.ones(1), torch.ones(2) / 2, ["costs"]),
        (torch.tensor([[1.0, -1.0]]), torch.ones(1), torch.ones(2) / 2, ["costs"]),
        (torch.ones(1, 2), torch.ones(1), torch.tensor([2.0, -1.0]), ["teacher_weights"]),
        (torch.ones(1, 2), torch.ones(1), torch.ones(2), ["student_weights", "teacher_weights"]),
        (torch.ones(1, 2), torch.zeros(1), torch.zeros(2), ["student_weights", "teacher_weights"]),
    ],
)
def test_what_is_no_transport_problem_is_refused(
    costs: Tensor, student: Tensor, teacher: Tensor, named: list[object]
) -> None:
    with names(TransportError, *named):
        sinkhorn_plan(costs, student, teacher)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_accelerator_is_not_waited_for() -> None:
    costs, student, teacher = (values.cuda() for values in problem("layers", (4, 12)))
    costs.requires_grad_()
    sinkhorn_plan(costs, student, teacher)  # the first call loads libraries
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        plan = sinkhorn_plan(costs, student, teacher)
        (gradient,) = torch.autograd.grad(plan.cost, costs)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = sinkhorn_plan(costs.detach().cpu().requires_grad_(), student.cpu(), teacher.cpu())
    torch.testing.assert_close(plan.flow.cpu(), expected.flow, rtol=0, atol=1e-9)
    assert gradient.isfinite().all()


def test_a_plan_that_the_steps_have_not_reached_says_so() -> None:
    """Two bells over 100 bins, as in POT's tests: at ε = 1e-4 the marginals alone would hide that it is dearer."""
    bins = np.arange(100.0)
    student, teacher = (torch.tensor(ot.datasets.make_1D_gauss(100, m=m, s=s)) for m, s in ((30, 10), (40, 5)))
    costs = torch.tensor(np.subtract.outer(bins, bins) ** 2)
    least = solve_transport(costs, student, teacher).cost
    with names(NotConvergedWarning, "epsilon=0.0001", "--mapping"):
        plan = sinkhorn_plan(costs, student, teacher, epsilon=1e-4)
    assert plan.cost > 1.005 * least
    assert plan.missed is not None
    assert plan.missed > 1e-3
    near = sinkhorn_plan(costs, student, teacher, epsilon=1e-2)
    assert near.missed is not None
    assert near.missed < 1e-10
