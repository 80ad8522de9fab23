"""Relation costs against MiniLMv2's equations, one text, head and query at a time, in float64."""

import math
from dataclasses import replace

import pytest
import torch
from encoder_states import random_states, with_padding
from messages import names
from plain_losses import relation_divergence
from torch import Tensor

from emdistill.errors import ConfigError
from emdistill.losses import RelationCosts
from emdistill.losses.relations import RELATIONS, check_relation_heads
from emdistill.states import EncoderShape, EncoderStates

# Padding on the right, on the left, a single token, and nothing else.
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
HEADS, STUDENT_WIDTH, TEACHER_WIDTH = 3, 6, 12
TEXTS = 4  # with a token


def drawn(layers: int, width: int, seed: int, dtype: torch.dtype = torch.float64) -> EncoderStates:
    return random_states(EncoderShape(layers, width, 1), MASK, seed, dtype=dtype)


def expected_costs(
    student: EncoderStates, teacher: EncoderStates, relations: tuple[str, ...] = RELATIONS, heads: int = HEADS
) -> Tensor:
    rows = [
        [
            sum(
                relation_divergence(getattr(student, kind)[i].double(), getattr(teacher, kind)[j].double(), MASK, heads)
                for kind in relations
            )
            for j in range(len(teacher.queries))
        ]
        for i in range(len(student.queries))
    ]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("relations", [("queries",), ("keys", "values"), ("values", "queries")])
@pytest.mark.parametrize("heads", [1, 2, 6])
def test_chosen_relations_and_heads(relations: tuple[str, ...], heads: int) -> None:
    student, teacher = drawn(1, STUDENT_WIDTH, 3), drawn(2, TEACHER_WIDTH, 4)
    kind = RelationCosts(heads, relations)
    assert kind.needs == {*relations}
    expected = expected_costs(student, teacher, relations, heads)
    absent = {name: () for name in RELATIONS if name not in relations}
    found = kind(replace(student, **absent), replace(teacher, **absent))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("filler", [1e30, math.nan, math.inf])
def test_padding_has_neither_value_nor_gradient(filler: float) -> None:
    student, teacher = (drawn(2, width, 9, torch.float32) for width in (STUDENT_WIDTH, TEACHER_WIDTH))

    bad = with_padding(student, filler)
    found = RelationCosts(HEADS)(bad, with_padding(teacher, filler))
    assert torch.equal(found, RelationCosts(HEADS)(student, teacher))
    gradients = torch.autograd.grad(found.sum(), [*bad.queries, *bad.keys, *bad.values])
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert not any(gradient[MASK == 0].any() for gradient in gradients)


def test_more_padding_and_shorter_company_change_nothing() -> None:
    student, teacher = drawn(1, STUDENT_WIDTH, 10), drawn(1, TEACHER_WIDTH, 11)

    def longer(states: EncoderStates) -> EncoderStates:
        def pad(layer: Tensor) -> Tensor:
            return torch.nn.functional.pad(layer, (0, 0, 2, 3), value=9.0)

        padded = {kind: tuple(map(pad, getattr(states, kind))) for kind in RELATIONS}
        return replace(states, mask=torch.nn.functional.pad(MASK, (2, 3)), **padded)

    costs = RelationCosts(HEADS)(student, teacher)
    torch.testing.assert_close(RelationCosts(HEADS)(longer(student), longer(teacher)), costs, rtol=1e-12, atol=0)

    def alone(states: EncoderStates, text: int) -> EncoderStates:
        one = {kind: tuple(layer[[text]] for layer in getattr(states, kind)) for kind in RELATIONS}
        return replace(states, mask=MASK[[text]], **one)

    each = [RelationCosts(HEADS)(alone(student, text), alone(teacher, text)) for text in range(TEXTS)]
    torch.testing.assert_close(torch.stack(each).mean(dim=0), costs, rtol=1e-12, atol=0)


def test_large_scores_stay_finite() -> None:
    student, teacher = drawn(1, STUDENT_WIDTH, 12, torch.float32), drawn(1, TEACHER_WIDTH, 13)
    queries = (300 * student.queries[0]).requires_grad_()  # type: ignore[operator]
    teacher = replace(teacher, queries=(300 * teacher.queries[0].float(),))  # type: ignore[union-attr]
    costs = RelationCosts(HEADS, ("queries",))(replace(student, queries=(queries,)), teacher)
    assert costs.isfinite().all()
    assert costs.item() > 0
    assert torch.autograd.grad(costs.sum(), queries)[0].isfinite().all()


def test_autocast_does_not_round() -> None:
    student, teacher = (drawn(1, width, 14, torch.float32) for width in (STUDENT_WIDTH, TEACHER_WIDTH))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = RelationCosts(HEADS)(student, teacher)
    assert torch.equal(found, RelationCosts(HEADS)(student, teacher))


def test_vectors_that_were_not_captured() -> None:
    student, teacher = drawn(1, STUDENT_WIDTH, 15), drawn(1, TEACHER_WIDTH, 16)
    with names(ConfigError, "queries", "student"):
        RelationCosts(HEADS)(replace(student, queries=()), teacher)


def test_relation_heads_must_divide_both_widths() -> None:
    student, teacher = drawn(1, STUDENT_WIDTH, 17), drawn(1, TEACHER_WIDTH, 18)
    with names(ConfigError, 4, 6, 12, "1, 2, 3, 6"):
        RelationCosts(4)(student, teacher)
    for width in (312, 384, 768, 1024 * 3):
        check_relation_heads(RelationCosts().relation_heads, width, 768)
    with names(ConfigError, 0):
        RelationCosts(0)


@pytest.mark.parametrize("relations", [(), ("queries", "queries"), ("keys", "scores")])
def test_impossible_relations(relations: tuple[str, ...]) -> None:
    with names(ConfigError, "queries, keys, values", ", ".join(relations) or "none"):
        RelationCosts(HEADS, relations)
