"""EmdMapping and cost attention against plain recomputation and the method's own facts."""

import numpy as np
import pytest
import torch
from messages import names
from torch import Tensor

from emdistill.errors import ConfigError
from emdistill.mapping import EmdMapping, layer_costs, solve_transport
from emdistill.mapping.emd import cost_attention_update

RULES = [("inverse", {}), ("softmax", {"temperature": 10.0}), ("softmax", {"temperature": 1.0})]
SETTINGS = [
    *(
        {"cost_attention": rule, "weight_floor": floor, "smoothing": smoothing} | temperature
        for rule, temperature in RULES
        for floor in (1e-3, 0.0)
        for smoothing in (0.0, 0.9)
    ),
    *({"cost_attention": rule, "weight_floor": 0.0, "cost_floor": 1e-12} | temperature for rule, temperature in RULES),
    {"cost_attention": "inverse", "weight_floor": 1 / 3, "cost_floor": 1.0},
    {"cost_attention": "off"},
]


def random_costs(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def plain_update(
    flow: np.ndarray, costs: np.ndarray, weights: np.ndarray, rule: str, temperature: float, floors: tuple[float, float]
) -> np.ndarray:
    """The student's side of bert-emd's update, one number at a time."""
    unit = np.array([sum(flow[i, j] * costs[i, j] for j in range(costs.shape[1])) / w for i, w in enumerate(weights)])
    unit = np.array([max(c, floors[1] * unit.mean()) for c in unit])
    attraction = np.array([unit.sum() / c for c in unit])
    new = attraction / attraction.sum()
    if rule == "softmax":
        new = np.exp(attraction / temperature) / np.exp(attraction / temperature).sum()
    if rule == "reverse":
        new = unit / unit.sum()
    new = np.array([max(w, floors[0]) for w in new])
    return new / new.sum()


def quiet_mapping(student_layers: int, teacher_layers: int, settings: dict[str, object]) -> EmdMapping:
    if settings.get("temperature", 10.0) < 10:  # type: ignore[operator]
        with names(UserWarning, "temperature", f"{settings['temperature']:g}"):
            return EmdMapping(student_layers, teacher_layers, **settings)  # type: ignore[arg-type]
    return EmdMapping(student_layers, teacher_layers, **settings)  # type: ignore[arg-type]


def test_weights_start_uniform_as_float32_buffers() -> None:
    mapping = EmdMapping(student_layers=4, teacher_layers=12)
    torch.testing.assert_close(dict(mapping.named_buffers())["student_weights"], torch.full((4,), 0.25))
    torch.testing.assert_close(dict(mapping.named_buffers())["teacher_weights"], torch.full((12,), 1 / 12))
    assert not list(mapping.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_flow_is_the_plan_between_the_weights_before_the_update(dtype: torch.dtype) -> None:
    mapping = EmdMapping(3, 6)
    for seed in range(5):
        student, teacher = mapping.student_weights.clone(), mapping.teacher_weights.clone()
        costs = random_costs((3, 6), seed).to(dtype).requires_grad_()
        flow = mapping(costs)
        expected = solve_transport(costs, student, teacher).flow
        assert flow.dtype == dtype
        assert not flow.requires_grad
        torch.testing.assert_close(flow, expected)
        assert flow.sum().item() == pytest.approx(mapping.mass, abs=torch.finfo(dtype).eps * 8)
        assert not torch.allclose(mapping.student_weights, student)
        assert not torch.allclose(mapping.teacher_weights, teacher)


@pytest.mark.parametrize(
    ("rule", "temperature"), [("inverse", 10.0), ("softmax", 10.0), ("softmax", 25.0), ("reverse", 10.0)]
)
@pytest.mark.parametrize("floors", [(1e-3, 1e-2), (0.05, 0.5), (0.0, 1e-6)])
def test_update_against_a_plain_recomputation(rule: str, temperature: float, floors: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        costs, student, teacher = rng.random((4, 7)), rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(7))
        flow = solve_transport(costs, student, teacher).flow
        new_student, new_teacher = cost_attention_update(
            flow,
            torch.tensor(costs),
            torch.tensor(student),
            torch.tensor(teacher),
            cost_attention=rule,  # type: ignore[arg-type]
            temperature=temperature,
            weight_floor=floors[0],
            cost_floor=floors[1],
        )
        plain = flow.numpy()
        expected_student = plain_update(plain, costs, student, rule, temperature, floors)
        expected_teacher = plain_update(plain.T, costs.T, teacher, rule, temperature, floors)
        np.testing.assert_allclose(new_student, expected_student, rtol=1e-9)
        np.testing.assert_allclose(new_teacher, expected_teacher, rtol=1e-9)


def test_smoothing_keeps_a_share_of_the_old_weights() -> None:
    costs, weights = random_costs((3, 3), 0).double(), torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    flow = solve_transport(costs, weights, weights).flow
    sharp = cost_attention_update(flow, costs, weights, weights)
    smooth = cost_attention_update(flow, costs, weights, weights, smoothing=0.75)
    for new, expected in zip(smooth, sharp, strict=True):
        torch.testing.assert_close(new, 0.75 * weights + 0.25 * expected)


@pytest.mark.parametrize(("smoothing", "steady"), [(0.0, False), (0.9, True)])
def test_inverse_cost_attention_swings_even_on_costs_that_never_change(smoothing: float, steady: bool) -> None:
    """As the method's page says: with period 2, and smoothing ends it."""
    mapping = EmdMapping(3, 6, smoothing=smoothing)
    weights = []
    for _ in range(400):
        mapping(random_costs((3, 6), 0))
        weights.append(mapping.student_weights.clone())
    assert torch.allclose(weights[-1], weights[-3], atol=1e-3)
    assert torch.allclose(weights[-1], weights[-2], atol=1e-3) is steady


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_weights_stay_on_the_simplex(settings: dict[str, object]) -> None:
    """Costs of all sizes, ties, free layers, free pairs and outliers, in every combination: 385 is 5 · 7 · 11."""
    generator = torch.Generator().manual_seed(0)
    mapping = quiet_mapping(2, 3, settings)
    floor = 0.0 if settings["cost_attention"] == "off" else settings["weight_floor"]
    for step in range(385):
        costs = torch.rand(2, 3, generator=generator)
        if step % 5 == 1:
            costs = 10 ** (24 * costs - 12)
        if step % 5 == 2:
            costs = (costs * 3).floor()
        if step % 7 == 3:
            costs[:, step % 3] = 0
        if step % 11 == 4:
            costs.zero_()
        mapping(costs)
        both = torch.stack([mapping.student_weights.sum(), mapping.teacher_weights.sum()])
        smallest = torch.cat([mapping.student_weights, mapping.teacher_weights]).min()
        assert (both - 1).abs().max() < 1e-6, step  # NaN fails too
        assert smallest >= 0.999 * floor / (1 + 3 * floor), step  # type: ignore[operator]


def random_states(count: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 6, 16, generator=generator) for _ in range(count)]


def test_identical_layers_cost_nothing() -> None:
    student = [layer.requires_grad_() for layer in random_states(6, 0)]
    teacher = [layer.detach().clone() for layer in student]
    mapping = EmdMapping(6, 6)
    for _ in range(20):
        costs = layer_costs(student, teacher, torch.ones(2, 6))
        loss = (mapping(costs) * costs).sum()
        assert loss.item() == 0
        torch.testing.assert_close(mapping.student_weights, torch.full((6,), 1 / 6))
        torch.testing.assert_close(mapping.teacher_weights, torch.full((6,), 1 / 6))
    assert all((grad == 0).all() for grad in torch.autograd.grad(loss, student))


def test_the_layer_that_costs_nothing_weighs_most() -> None:
    costs = torch.tensor([[0.0, 1.0], [1.0, 0.5]])
    mapping = EmdMapping(2, 2)
    mapping(costs)
    assert mapping.student_weights[0] > 0.9
    assert mapping.teacher_weights[0] > 0.9


def noise_layer_weight(settings: dict[str, object], steps: int = 30) -> float:
    """The weight of the teacher's layer 3 when it is fresh noise in every batch, the student near the others."""
    mapping = quiet_mapping(3, 6, settings)
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        teacher = [torch.randn(2, 6, 16, generator=generator) for _ in range(6)]
        student = [teacher[j] + 0.3 * torch.randn(2, 6, 16, generator=generator) for j in (0, 2, 4)]
        teacher = [student[j // 2] + 0.5 * torch.randn(2, 6, 16, generator=generator) for j in range(6)]
        teacher[3] = 3 * torch.randn(2, 6, 16, generator=generator)
        mapping(layer_costs(student, teacher, torch.ones(2, 6)))
    return mapping.teacher_weights[3].item()


@pytest.mark.parametrize(
    "settings", [{}, {"smoothing": 0.8}, {"cost_attention": "softmax", "temperature": 10.0}], ids=str
)
def test_noise_layer_loses_its_weight(settings: dict[str, object]) -> None:
    assert noise_layer_weight(settings) < 0.6 / 6


def test_noise_layer_keeps_its_weight_without_cost_attention() -> None:
    assert noise_layer_weight({"cost_attention": "off"}) == pytest.approx(1 / 6)


def test_stacked_costs_share_the_mean_of_the_new_weights() -> None:
    costs = random_costs((2, 3, 6), 0)
    together, first, second = EmdMapping(3, 6), EmdMapping(3, 6), EmdMapping(3, 6)
    flow = together(costs)
    torch.testing.assert_close(flow, torch.stack([first(costs[0]), second(costs[1])]))
    torch.testing.assert_close(together.student_weights, (first.student_weights + second.student_weights) / 2)
    torch.testing.assert_close(together.teacher_weights, (first.teacher_weights + second.teacher_weights) / 2)
    assert together(random_costs((2, 1, 3, 6), 1)).shape == (2, 1, 3, 6)


@pytest.mark.parametrize("frozen", ["eval", "off"])
def test_weights_that_must_not_move(frozen: str) -> None:
    mapping = EmdMapping(3, 6, cost_attention="off" if frozen == "off" else "inverse").train(frozen == "off")
    flow = mapping(random_costs((3, 6), 0))
    torch.testing.assert_close(flow.sum(dim=1), torch.full((3,), 1 / 3))
    assert torch.equal(mapping.student_weights, torch.full((3,), 1 / 3))
    assert torch.equal(mapping.teacher_weights, torch.full((6,), 1 / 6))


def test_a_layer_without_weight_is_rated_by_its_cheapest_pair() -> None:
    costs = torch.tensor([[1.0, 1.0], [4.0, 3.0]], dtype=torch.float64)
    flow = torch.tensor([[0.5, 0.5], [0.0, 0.0]], dtype=torch.float64)
    student, _ = cost_attention_update(flow, costs, torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5]), weight_floor=0)
    torch.testing.assert_close(student, torch.tensor([0.75, 0.25], dtype=torch.float64))


@pytest.mark.parametrize("shape", [(3, 7, 5), (3, 2, 7, 7)])
def test_gradient_is_the_pull_to_each_layers_own_blend(shape: tuple[int, ...]) -> None:
    """The flow is a constant for the gradient: d(Σ F D)/ds_i = 2 (w_i s_i − Σ_j F_ij t_j) / count."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(3, 7, generator=generator) < 0.7
    valid = (
        mask[..., None].expand(shape)
        if len(shape) == 3
        else (mask[:, None, :, None] & mask[:, None, None]).expand(shape)
    )
    student = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]
    teacher = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(5)]
    mapping = EmdMapping(3, 5)
    mapping(random_costs((3, 5), 0))  # so that the weights are not uniform
    weights = (mapping.student_weights / mapping.student_weights.sum()).double()
    costs = layer_costs(student, teacher, mask)
    flow = mapping(costs)
    grads = torch.autograd.grad((flow * costs).sum(), student)
    for i, grad in enumerate(grads):
        blend = sum(flow[i, j] * teacher[j] for j in range(5))
        expected = torch.where(valid, 2 * (weights[i] * student[i] - blend) / valid.sum(), 0)
        torch.testing.assert_close(grad, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"student_layers": 0}, ["student_layers=0"]),
        ({"teacher_layers": -1}, ["teacher_layers=-1"]),
        ({"cost_attention": "invers"}, ["'invers'", "inverse, softmax, reverse, off"]),
        ({"temperature": 0.0}, ["temperature=0"]),
        ({"temperature": float("nan")}, ["temperature=nan"]),
        ({"weight_floor": 0.2}, ["weight_floor=0.2", 0, 0.166667]),
        ({"weight_floor": -0.1}, ["weight_floor=-0.1"]),
        ({"cost_floor": 0.0}, ["cost_floor=0"]),
        ({"cost_floor": 2.0}, ["cost_floor=2"]),
        ({"smoothing": 1.0}, ["smoothing=1"]),
    ],
)
def test_nonsense_settings_are_refused(settings: dict[str, object], named: list[object]) -> None:
    with names(ConfigError, *named):
        EmdMapping(**({"student_layers": 3, "teacher_layers": 6} | settings))  # type: ignore[arg-type]


def test_it_prints_what_matters() -> None:
    assert "temperature=12" in repr(EmdMapping(3, 6, cost_attention="softmax", temperature=12))
    assert repr(EmdMapping(3, 6, cost_attention="off")).endswith("cost_attention='off')")
