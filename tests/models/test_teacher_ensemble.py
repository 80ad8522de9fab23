"""Several teachers as one: the mean of their answers in float64, and whose layers teach."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from emdistill.models import Teacher
from emdistill.models.teacher_ensemble import Member, TeacherEnsemble, mean_answers
from emdistill.states import ANSWERS, ENDS, NO_ANSWER, Link

WEIGHTS = [0.5, 2.0, 1.5]


def drawn(seed: int, classes: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(5, classes, generator=generator, dtype=torch.float64) for _ in WEIGHTS]


def plain_probabilities(row: list[float], link: Link) -> list[float]:
    if link == "identity":
        return row
    if link == "sigmoid":
        return [1 / (1 + math.exp(-value)) for value in row]
    return [math.exp(value) / sum(map(math.exp, row)) for value in row]


@pytest.mark.parametrize(("link", "classes"), [("softmax", 4), ("sigmoid", 3), ("identity", 1)])
def test_the_answers_are_the_weighted_mean_of_all(link: Link, classes: int) -> None:
    logits = drawn(0, classes)
    together = mean_answers(logits, WEIGHTS, link)
    for row in range(5):
        each = [plain_probabilities(teacher[row].tolist(), link) for teacher in logits]
        expected = [
            sum(weight * one[label] for weight, one in zip(WEIGHTS, each, strict=True)) / sum(WEIGHTS)
            for label in range(classes)
        ]
        assert plain_probabilities(together[row].tolist(), link) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_sure_answers_stay_finite_and_masks_stay_masks(link: Link) -> None:
    least = torch.finfo(torch.float32).min
    sure = [torch.tensor([[80.0, -90.0, 1.0]]), torch.tensor([[-500.0, 500.0, 2.0]])]
    assert mean_answers(sure, [1.0, 1.0], link).isfinite().all()
    if link == "softmax":
        masks = [torch.full((1, 1), mask) for mask in (least, -2e4)]
        masked = [torch.cat(pair, dim=1) for pair in zip(sure, masks, strict=True)]
        found = mean_answers(masked, [1.0, 1.0], link)
        torch.testing.assert_close(found[:, :3], mean_answers(sure, [1.0, 1.0], link))
        assert found[0, 3] <= -1e4


def test_one_teacher_twice_says_what_it_says_once() -> None:
    (logits, *_) = drawn(1, 3)
    together = mean_answers([logits, logits], [0.3, 0.7], "softmax")
    torch.testing.assert_close(together.softmax(-1), logits.softmax(-1))
    torch.testing.assert_close(mean_answers([logits, logits], [1.0, 4.0], "sigmoid"), logits)


def test_states_are_the_first_ones_and_labels_are_counted_as_it_does(tiny_encoder: Callable[..., Any]) -> None:
    first, second = (Teacher(tiny_encoder(layers=layers, labels=3, seed=layers)) for layers in (2, 3))
    ensemble = TeacherEnsemble([Member(first, 1.0, (0, 1, 2)), Member(second, 3.0, (2, 0, 1))], "softmax")
    assert ensemble.shape == first.shape
    assert not ensemble.reads_rows
    batch = {"input_ids": torch.arange(10, 18).view(2, 4), "attention_mask": torch.ones(2, 4, dtype=torch.long)}
    states, alone, other = ensemble(batch, {"hidden"}), first(batch, {"hidden"}), second(batch)
    assert all(torch.equal(*layers) for layers in zip(states.hidden, alone.hidden, strict=True))
    expected = 0.25 * alone.logits.softmax(-1) + 0.75 * other.logits.softmax(-1)[:, [2, 0, 1]]
    torch.testing.assert_close(states.logits.softmax(-1), expected)


def test_starts_and_ends_of_spans_are_chosen_among_the_answers_of_their_row(tiny_encoder: Callable[..., Any]) -> None:
    models = [tiny_encoder(head="QuestionAnswering", problem_type="question_answering", seed=seed) for seed in (1, 2)]
    first, second = map(Teacher, models)
    ensemble = TeacherEnsemble([Member(first, 1.0, (0, 1)), Member(second, 3.0, (0, 1))], "positions")
    places = torch.tensor([[0, 2, 3], [0, 1, NO_ANSWER]])
    batch = {
        "input_ids": torch.arange(10, 18).view(2, 4),
        "attention_mask": torch.ones(2, 4, dtype=torch.long),
        ANSWERS: places,
        ENDS: places,
    }
    together, one, other = (source(batch).logits for source in (ensemble, first, second))
    for row in (slice(0, 3), slice(3, 5)):
        expected = 0.25 * one[row].softmax(0) + 0.75 * other[row].softmax(0)
        torch.testing.assert_close(together[row].softmax(0), expected)
