"""Relation costs: which vectors they compare, cut into how many heads; the rest is in test_costs.py."""

from dataclasses import replace

import pytest
import torch
from encoder_states import random_states
from messages import names
from plain_losses import relation_divergence

from emdistill.errors import ConfigError
from emdistill.losses import RelationCosts
from emdistill.losses.relations import RELATIONS, check_relation_heads
from emdistill.states import EncoderShape, EncoderStates

# Padding on the right, on the left, a single token, and nothing else.
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
HEADS, STUDENT_WIDTH, TEACHER_WIDTH = 3, 6, 12


def drawn(layers: int, width: int, seed: int, dtype: torch.dtype = torch.float64) -> EncoderStates:
    return random_states(EncoderShape(layers, width, 1), MASK, seed, dtype=dtype)


@pytest.mark.parametrize("relations", [("queries",), ("keys", "values"), ("values", "queries")])
@pytest.mark.parametrize("heads", [1, 2, 6])
def test_chosen_relations_and_heads(relations: tuple[str, ...], heads: int) -> None:
    student, teacher = drawn(1, STUDENT_WIDTH, 3), drawn(2, TEACHER_WIDTH, 4)
    kind = RelationCosts(heads, relations)
    assert kind.needs == {*relations}
    absent = {name: () for name in RELATIONS if name not in relations}
    found = kind(replace(student, **absent), replace(teacher, **absent))
    for j in range(2):
        pairs = [(getattr(student, name)[0], getattr(teacher, name)[j]) for name in relations]
        expected = sum(relation_divergence(*pair, MASK, heads) for pair in pairs)
        assert found[0, j].item() == pytest.approx(expected, rel=1e-12)


def test_large_scores_stay_finite() -> None:
    student, teacher = drawn(1, STUDENT_WIDTH, 12, torch.float32), drawn(1, TEACHER_WIDTH, 13)
    queries = (300 * student.queries[0]).requires_grad_()  # type: ignore[operator]
    teacher = replace(teacher, queries=(300 * teacher.queries[0].float(),))  # type: ignore[union-attr]
    costs = RelationCosts(HEADS, ("queries",))(replace(student, queries=(queries,)), teacher)
    assert costs.isfinite().all()
    assert costs.item() > 0
    assert torch.autograd.grad(costs.sum(), queries)[0].isfinite().all()


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
