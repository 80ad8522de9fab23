"""Weights by gradient norms, terms that fade, and an objective that says so."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from messages import names
from torch import Tensor, nn

from emdistill.errors import ConfigError
from emdistill.losses import GradientBalance, Loss, Objective
from emdistill.losses.balance import FIRST, LARGEST_FACTOR
from emdistill.losses.objective import SCHEDULES
from emdistill.states import EncoderStates
from emdistill.training.gradient_norms import gradient_norms

STATES = EncoderStates(torch.zeros(2, 3), torch.ones(2, 4))


class Squares(Loss):
    """Terms scale · ‖A θ − b‖² of a toy student's weights θ, of unlike scales and directions."""

    def __init__(self, student: nn.Linear, **scales: float) -> None:
        super().__init__()
        self.student = [student]  # no part of the objective
        self.scales = scales
        draw = torch.Generator().manual_seed(len(scales))
        self.maps = {name: torch.randn(7, 6, generator=draw) for name in scales}
        self.goals = {name: torch.randn(7, generator=draw) for name in scales}

    def forward(self, student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = self.student[0].weight.flatten()
        return {
            name: scale * (self.maps[name] @ weights - self.goals[name]).square().sum()
            for name, scale in self.scales.items()
        }


def toy(balance: GradientBalance | None, weights: dict[str, float], **options: Any) -> tuple[Objective, nn.Linear]:
    torch.manual_seed(0)
    student = nn.Linear(3, 2, bias=False)
    scales = {"layers": 1e-3, "scores": 1e4, "answers": 3.0, "labels": 0.5}
    losses = [Squares(student, **{name: scales[name] for name in weights})]
    return Objective(losses, weights, balance=balance, **options), student


def terms_at(objective: Objective, student: nn.Linear, step: int, steps: int = 100) -> dict[str, Tensor]:
    objective.begin_step(step, steps)
    total, terms = objective(STATES, STATES, {}, None, lambda parts: gradient_norms(parts, student))
    torch.testing.assert_close(total, sum(terms.values()))
    return terms


def test_balanced_terms_pull_as_hard_as_asked_for_against_all_others() -> None:
    weights = {"layers": 0.5, "scores": 0.25, "answers": 1.0, "labels": 2.0}
    objective, student = toy(
        GradientBalance(["layers", "scores"], each=True, norm_smoothing=0.0, norm_steps=1), weights
    )
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01)
    for step in range(20):
        terms = terms_at(objective, student, step)
        norms = gradient_norms(terms | {"both": terms["answers"] + terms["labels"]}, student)
        assert norms["layers"] == pytest.approx(0.5 * norms["both"], rel=1e-4)
        assert norms["scores"] == pytest.approx(0.25 * norms["both"], rel=1e-4)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()


def test_balanced_terms_together_pull_as_hard_as_asked_for_and_keep_their_weights() -> None:
    weights = {"layers": 0.5, "scores": 0.25, "answers": 1.0, "labels": 2.0}
    objective, student = toy(GradientBalance(["layers", "scores"], norm_smoothing=0.0, norm_steps=1), weights)
    plain, _ = toy(None, weights)
    for step in range(3):
        terms, before = terms_at(objective, student, step), terms_at(plain, plain.losses[0].student[0], step)
        both = {"own": terms["layers"] + terms["scores"], "others": terms["answers"] + terms["labels"]}
        norms = gradient_norms(both, student)
        assert norms["own"] == pytest.approx(0.75 * norms["others"], rel=1e-4)
        torch.testing.assert_close(terms["layers"] / terms["scores"], before["layers"] / before["scores"])


def test_terms_alone_are_brought_to_their_own_geometric_mean() -> None:
    objective, student = toy(GradientBalance(["layers", "scores"], each=True), {"layers": 1.0, "scores": 0.5})
    plain, _ = toy(None, {"layers": 1.0, "scores": 1.0})
    before = gradient_norms(terms_at(plain, student, 0), plain.losses[0].student[0])
    norms = gradient_norms(terms_at(objective, student, 0), student)
    mean = math.sqrt(before["layers"] * before["scores"])
    assert norms == {"layers": pytest.approx(mean, rel=1e-4), "scores": pytest.approx(0.5 * mean, rel=1e-4)}


def test_norms_are_smoothed_geometrically_and_the_first_ones_count_alike() -> None:
    balance = GradientBalance(["layers"], norm_smoothing=0.75)
    drawn = [(2.0**number, 3.0 + number) for number in range(9)]
    log = [0.0, 0.0]
    for number, (norm, reference) in enumerate(drawn):
        balance.note(number, {"layers": norm, "reference": reference})
        share = max(1 / (number + 1), 0.25)
        log = [(1 - share) * old + share * math.log(new) for old, new in zip(log, (norm, reference), strict=True)]
        if number == 3:
            assert log[0] == pytest.approx(math.log(2**1.5))  # the plain mean of 0, 1, 2, 3
        assert balance.factors()["layers"].item() == pytest.approx(math.exp(log[1] - log[0]), rel=1e-5)


def test_it_measures_at_the_first_steps_and_then_at_every_so_many_once_each() -> None:
    objective, student = toy(balance := GradientBalance(["layers"], norm_steps=7), {"layers": 1.0, "answers": 1.0})
    measured = []
    for step in range(30):
        for _ in range(2):  # two batches of one optimizer step
            before = balance.measurements.item()
            terms_at(objective, student, step)
            measured += [step] * int(balance.measurements.item() - before)
    assert measured == [*range(FIRST), 14, 21, 28]
    objective.eval()
    terms_at(objective, student, 35)
    assert balance.measurements.item() == len(measured)


def test_without_norms_and_before_the_first_the_factors_are_1() -> None:
    objective, _ = toy(GradientBalance(["layers"]), {"layers": 2.0, "answers": 1.0})
    plain, _ = toy(None, {"layers": 2.0, "answers": 1.0})
    assert objective(STATES, STATES, {})[1] == plain(STATES, STATES, {})[1]


@pytest.mark.parametrize("wrong", [0.0, math.nan, math.inf])
@pytest.mark.parametrize("part", ["layers", "reference"])
def test_norms_that_are_none_leave_no_trace(part: str, wrong: float) -> None:
    """A batch without labels has no reference, and one that is left out may have any norm."""
    balance = GradientBalance(["layers"])
    balance.note(0, {"layers": 2.0, "reference": 6.0})
    before = {name: value.clone() for name, value in balance.state_dict().items()}
    balance.note(1, {"layers": 2.0, "reference": 6.0} | {part: wrong})
    assert all(torch.equal(value, before[name]) for name, value in balance.state_dict().items())
    assert balance.due(1)  # the next batch of the step may have better ones


def test_a_term_that_hardly_pulls_gets_no_boundless_factor() -> None:
    balance = GradientBalance(["layers"])
    balance.note(0, {"layers": 1e-9, "reference": 1.0})
    assert balance.factors()["layers"].item() == pytest.approx(LARGEST_FACTOR)


def test_one_of_several_tasks_is_measured_whenever_its_batches_come() -> None:
    objective, student = toy(balance := GradientBalance(["layers"]), {"layers": 1.0, "answers": 1.0})
    for step in range(11, 61, 2):
        terms_at(objective, student, step)
    assert balance.measurements.item() == FIRST


def test_it_goes_on_from_its_state() -> None:
    balance, resumed = GradientBalance(["a", "b"], each=True), GradientBalance(["a", "b"], each=True)
    for step in range(20):
        norms = {"a": 1.0 + step, "b": 2.0, "reference": 1 / (1 + step)}
        if step == 12:
            resumed.load_state_dict(balance.state_dict())
        if step >= 12:
            resumed.note(step, norms)
        balance.note(step, norms)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in balance.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "named"), [({"norm_steps": 0}, ["norm_steps=0"]), ({"norm_smoothing": 1.0}, ["norm_smoothing=1"])]
)
def test_nonsense_is_refused(settings: dict[str, Any], named: list[object]) -> None:
    with names(ConfigError, *named):
        GradientBalance(["layers"], **settings)


def test_fading_and_growing_are_lines_between_1_and_0() -> None:
    assert [SCHEDULES["fade"](progress) for progress in (0, 0.25, 0.5, 1)] == [1, 0.75, 0.5, 0]
    assert [SCHEDULES["grow"](progress) for progress in (0, 0.25, 0.5, 1)] == [0, 0.25, 0.5, 1]


def test_terms_fade_with_progress() -> None:
    objective, student = toy(None, {"layers": 2.0, "answers": 1.0}, schedules={"layers": "fade"})
    plain, _ = toy(None, {"layers": 2.0, "answers": 1.0})
    whole = terms_at(plain, student, 0)
    for step in (0, 1, 50, 99):
        terms = terms_at(objective, student, step)
        torch.testing.assert_close(terms["layers"], (1 - step / 100) * whole["layers"])
        assert torch.equal(terms["answers"], whole["answers"])


def test_the_equation_says_all_of_it() -> None:
    weights = {"layers": 0.5, "answers": 1.0, "labels": 2.0}
    objective, _ = toy(GradientBalance(["layers"]), weights, schedules={"layers": "fade"})
    assert str(objective) == (
        "L = fade(p)·0.5·r·layers + 1·answers + 2·labels, r = 0.5·‖∇(1·answers + 2·labels)‖ / ‖∇(0.5·layers)‖, "
        "p = share of the training done"
    )
    each, _ = toy(GradientBalance(["layers"], each=True), {"layers": 0.5, "answers": 1.0})
    assert str(each) == "L = 0.5·r·layers + 1·answers, r = ‖∇(1·answers)‖ / ‖∇term‖"
    assert str(toy(GradientBalance(["layers"], each=True), {"layers": 1.0})[0]) == (
        "L = 1·r·layers, r = geometric mean of all ‖∇term‖ / ‖∇term‖"
    )
