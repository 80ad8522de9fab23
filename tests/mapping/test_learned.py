"""Transport by a learned net: what it proves, its gradients, and the layer weights that descend them."""

import pytest
import torch
from messages import names
from torch import Tensor

from emdistill.errors import ConfigError
from emdistill.mapping import LearnedMapping, solve_transport
from emdistill.mapping.learned import learned_plan, price_net

SIZES = [(1, 1), (1, 6), (3, 6), (4, 12), (12, 4), (6, 24)]


def problem(students: int, teachers: int, seed: int, count: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    costs = torch.rand(count, students, teachers, generator=generator, dtype=torch.float64)
    masses = [
        torch.softmax(2 * torch.randn(count, size, generator=generator, dtype=torch.float64), -1)
        for size in (students, teachers)
    ]
    return costs, masses[0], masses[1]


def exact(costs: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
    return torch.stack([solve_transport(*one).cost for one in zip(costs, student, teacher, strict=True)])


@pytest.mark.parametrize("size", SIZES)
def test_the_true_cost_lies_between_what_the_prices_prove_and_what_the_plan_pays(size: tuple[int, int]) -> None:
    costs, student, teacher = problem(*size, seed=1)
    plan, true = learned_plan(price_net(), costs, student, teacher), exact(costs, student, teacher)
    paid = (plan.flow * costs).sum(dim=(-2, -1))
    assert (plan.cost <= true * (1 + 1e-5) + 1e-6).all()
    assert (paid >= true * (1 - 1e-5) - 1e-6).all()
    torch.testing.assert_close(plan.flow.sum(-1), student, atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(plan.flow.sum(-2), teacher, atol=1e-7, rtol=1e-6)
    assert (plan.flow >= 0).all()


@pytest.mark.parametrize("size", [(3, 6), (4, 12), (6, 12)])
def test_it_is_near_the_true_cost_on_problems_that_it_has_not_seen(size: tuple[int, int]) -> None:
    costs, student, teacher = problem(*size, seed=2, count=100)
    plan, true = learned_plan(price_net(), costs, student, teacher), exact(costs, student, teacher)
    assert ((true - plan.cost) / true).median() < 0.05


def test_prices_are_the_gradients_of_the_true_cost_where_the_guess_is_right() -> None:
    """dcost/da of the exact cost by differences, for problems whose guess proves itself to be exact."""
    costs, student, teacher = problem(2, 3, seed=3, count=60)
    plan, true = learned_plan(price_net(), costs, student, teacher), exact(costs, student, teacher)
    right = ((true - plan.cost).abs() < 1e-6).nonzero().flatten().tolist()
    assert right
    for place in right[:5]:
        moved = student[place].clone()
        moved += torch.tensor([1e-6, -1e-6], dtype=torch.float64)
        slope = (solve_transport(costs[place], moved, teacher[place]).cost - true[place]) / 1e-6
        told = plan.student_prices[place, 0] - plan.student_prices[place, 1]
        assert float(slope) == pytest.approx(float(told), abs=1e-3)


def test_gradients_pass_to_costs_and_masses() -> None:
    inputs = [part.float().requires_grad_() for part in problem(3, 6, seed=4, count=2)]
    learned_plan(price_net(), *inputs).cost.sum().backward()
    for part in inputs:
        assert part.grad is not None
        assert part.grad.isfinite().all()
        assert part.grad.abs().sum() > 0


def test_the_order_of_layers_does_not_matter() -> None:
    costs, student, teacher = problem(4, 5, seed=5, count=1)
    rows, columns = torch.randperm(4), torch.randperm(5)
    plan = learned_plan(price_net(), costs, student, teacher)
    turned = learned_plan(price_net(), costs[:, rows][:, :, columns], student[:, rows], teacher[:, columns])
    torch.testing.assert_close(turned.cost, plan.cost)
    torch.testing.assert_close(turned.flow, plan.flow[:, rows][:, :, columns], atol=1e-5, rtol=1e-4)


def test_costs_beyond_float32_are_priced_too() -> None:
    costs, student, teacher = problem(4, 5, seed=5, count=1)
    huge, plan = (learned_plan(price_net(), costs.double() * by, student, teacher) for by in (1e300, 1.0))
    torch.testing.assert_close(huge.flow, plan.flow)
    torch.testing.assert_close(huge.cost / 1e300, plan.cost)


def test_layer_weights_descend_towards_layers_that_are_cheap_and_keep_their_floor() -> None:
    mapping = LearnedMapping(3, 4, weights="descent", step=0.5, weight_floor=0.02)
    costs = torch.ones(3, 4)
    costs[0] = 0.1
    before = (mapping(costs) * costs).sum()
    for _ in range(30):
        mapping(costs)
    assert mapping.student_weights[0] > 0.5
    assert mapping.student_weights.min() >= 0.019
    assert float(mapping.student_weights.sum()) == pytest.approx(1.0)
    mapping.eval()
    assert (mapping(costs) * costs).sum() < before
    uniform = LearnedMapping(3, 4)
    uniform(costs)
    assert torch.equal(uniform.student_weights, torch.full((3,), 1 / 3))


def test_settings_that_are_none_are_refused() -> None:
    with names(ConfigError, "weights", "'up'"):
        LearnedMapping(3, 4, weights="up")  # type: ignore[arg-type]
    with names(ConfigError, "step"):
        LearnedMapping(3, 4, step=2.0)
    with names(ConfigError, "weight_floor"):
        LearnedMapping(3, 4, weight_floor=0.5)
