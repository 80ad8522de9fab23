"""Soft targets: squared differences, a temperature per answer, and answers that cannot be given, in float64."""

import math

import pytest
import torch
from messages import names
from plain_losses import soft_cross_entropy
from torch import Tensor

from emdistill.errors import ConfigError
from emdistill.losses import SoftTargets
from emdistill.losses.temperatures import LEAST_SHARE, TemperatureSpread
from emdistill.states import EncoderStates

LEAST = torch.finfo(torch.float32).min
MASKS = [-1e4, -3e4, LEAST, -math.inf]


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value(loss: SoftTargets, student: Tensor, teacher: Tensor) -> Tensor:
    mask = torch.ones(len(student), 2)
    return loss(EncoderStates(student, mask), EncoderStates(teacher, mask), {})["soft_targets"]


@pytest.mark.parametrize("link", ["softmax", "sigmoid", "identity"])
def test_squared_differences_are_a_mean_over_answers_and_classes_at_any_temperature(link: str) -> None:
    student, teacher = drawn(0, 7, 3), drawn(1, 7, 3)
    expected = (
        sum((s - t) ** 2 for s, t in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True)) / 21
    )
    for temperature in (1.0, 3.0):
        loss = SoftTargets(temperature=temperature, link=link, loss="squared")  # type: ignore[arg-type]
        assert value(loss, student, teacher).item() == pytest.approx(expected, rel=1e-12)


def plain_temperatures(spread: TemperatureSpread, student: Tensor, teacher: Tensor, base: float) -> list[float]:
    weights = []
    for own, other in zip(student.tolist(), teacher.tolist(), strict=True):
        if spread.schedule == "flsw":
            lengths = [math.sqrt(sum(a * a for a in side)) for side in (own, other)]
            cosine = sum(a * b for a, b in zip(own, other, strict=True)) / (lengths[0] * lengths[1])
            weights.append((1 - cosine) ** spread.gamma)
        else:
            exponentials = [math.exp(a) for a in own]
            weights.append(sum(exponentials) / max(exponentials))
    mean = sum(weights) / len(weights)
    return [max(base + spread.beta * (mean - weight), LEAST_SHARE * base) for weight in weights]


@pytest.mark.parametrize("schedule", ["flsw", "cwsm"])
@pytest.mark.parametrize(
    ("base", "beta", "gamma"), [(1.0, 0.5, 1.0), (4.0, 1.0, 2.0), (2.0, 0.0, 1.0), (1.0, 9.0, 0.5)]
)
def test_temperatures_of_answers(schedule: str, base: float, beta: float, gamma: float) -> None:
    student, teacher = drawn(2, 6, 4).requires_grad_(), drawn(3, 6, 4)
    spread = TemperatureSpread(schedule, beta, gamma)
    each = plain_temperatures(spread, student, teacher, base)
    rows = zip(student, teacher, each, strict=True)
    expected = torch.stack([soft_cross_entropy(own[None], other[None], tau) for own, other, tau in rows]).mean()
    loss = SoftTargets(temperature=base, spread=spread)
    found = value(loss, student, teacher)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    wanted, gradient = (torch.autograd.grad(total, student)[0] for total in (expected, found))  # τ is a constant
    torch.testing.assert_close(gradient, wanted, rtol=1e-8, atol=1e-12)
    if not beta:
        torch.testing.assert_close(found, value(SoftTargets(temperature=base), student, teacher))


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    "loss",
    [
        SoftTargets(),
        SoftTargets(temperature=0.5),
        SoftTargets(loss="squared"),
        SoftTargets(temperature=2.0, spread=TemperatureSpread("flsw")),
        SoftTargets(spread=TemperatureSpread("cwsm", 0.3)),
    ],
    ids=str,
)
def test_answers_that_cannot_be_given_take_no_part(loss: SoftTargets, mask: float) -> None:
    """As padded positions of a span's ends: the answers that are left make the loss, in each row its own."""
    student, teacher = drawn(4, 3, 4), drawn(5, 3, 4)
    padding = torch.full((3, 2), mask, dtype=torch.float64)
    wide = torch.cat([student, padding], dim=1).requires_grad_()
    narrow = student.clone().requires_grad_()
    found, expected = value(loss, wide, torch.cat([teacher, padding], dim=1)), value(loss, narrow, teacher)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    gradient, wanted = (torch.autograd.grad(total, leaf)[0] for total, leaf in ((found, wide), (expected, narrow)))
    torch.testing.assert_close(gradient[:, :4], wanted, rtol=1e-8, atol=1e-12)
    assert not gradient[:, 4:].any()


@pytest.mark.parametrize("schedule", ["flsw", "cwsm"])
def test_one_answer_equal_logits_and_zeros(schedule: str) -> None:
    for student in (drawn(6, 1, 3), torch.zeros(2, 3, dtype=torch.float64)):
        loss = SoftTargets(spread=TemperatureSpread(schedule, 5.0))
        leaf = student.clone().requires_grad_()
        total = value(loss, leaf, student)
        assert total.isfinite()
        torch.testing.assert_close(torch.autograd.grad(total, leaf)[0], torch.zeros_like(leaf), rtol=0, atol=1e-12)


def test_where_no_answer_can_be_given_nothing_is_learned() -> None:
    student = drawn(7, 2, 3).requires_grad_()
    total = value(SoftTargets(loss="squared"), student, torch.full((2, 3), LEAST, dtype=torch.float64))
    assert total.item() == 0
    assert not torch.autograd.grad(total, student)[0].any()


@pytest.mark.parametrize("loss", [SoftTargets(loss="squared"), SoftTargets(spread=TemperatureSpread("flsw"))], ids=str)
def test_nan_shows(loss: SoftTargets) -> None:
    student, teacher = drawn(8, 3, 2), drawn(9, 3, 2)
    for spoiled in (student.clone(), teacher.clone()):
        spoiled[1, 1] = math.nan
    assert value(loss, spoiled, teacher).isnan()
    assert value(loss, student, spoiled).isnan()


def test_a_score_may_be_of_any_size() -> None:
    """It is no class that a mask could rule out."""
    student, teacher = drawn(10, 4, 1) - 2e4, drawn(11, 4, 1) - 2e4
    loss = SoftTargets(link="identity")
    torch.testing.assert_close(value(loss, student, teacher), (student - teacher).square().mean())


def test_impossible_settings_are_refused() -> None:
    with names(ConfigError, "--objective.temperature_beta", -1):
        TemperatureSpread("flsw", beta=-1.0)
    with names(ConfigError, "--objective.temperature_gamma", 0):
        TemperatureSpread("flsw", gamma=0.0)
    with names(ConfigError, "--objective.unmasked_share", 1.5):
        SoftTargets(unmasked_share=1.5)
    with names(ConfigError, "--objective.temperature_schedule", "flsw", "identity"):
        SoftTargets(link="identity", spread=TemperatureSpread("flsw"))
    with names(ConfigError, "--objective.temperature_schedule", "cwsm", "squared"):
        SoftTargets(loss="squared", spread=TemperatureSpread("cwsm"))
