"""Relation costs against MiniLMv2's equations, one text, head and query at a time, in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from emdistill.errors import ConfigError
from emdistill.losses import LayerLoss, RelationCosts
from emdistill.losses.relations import RELATIONS, check_relation_heads
from emdistill.mapping import FixedMapping
from emdistill.states import EncoderStates

# Padding on the right, on the left, a single token, and nothing else.
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
HEADS, STUDENT_WIDTH, TEACHER_WIDTH = 3, 6, 12
TEXTS = 4  # with a token


def random_states(layers: int, width: int, seed: int, dtype: torch.dtype = torch.float64) -> EncoderStates:
    draw = torch.Generator().manual_seed(seed)

    def vectors() -> tuple[Tensor, ...]:
        shape = (*MASK.shape, width)
        return tuple(torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for _ in range(layers))

    return EncoderStates(torch.zeros(len(MASK), 2), MASK, queries=vectors(), keys=vectors(), values=vectors())


def changed(states: EncoderStates, **layers: tuple[Tensor | None, ...]) -> EncoderStates:
    return replace(states, **layers)


def relation(vectors: list[list[float]], query: int) -> list[float]:
    """softmax of one row of a aᵀ / sqrt(d_r)."""
    size = len(vectors[0])
    row = [sum(a * b for a, b in zip(vectors[query], key, strict=True)) / math.sqrt(size) for key in vectors]
    exponentials = [math.exp(score) for score in row]
    return [value / sum(exponentials) for value in exponentials]


def reference(student: Tensor, teacher: Tensor, heads: int = HEADS) -> float:
    """1/(A_r |x|) Σ_heads Σ_tokens KL(teacher ‖ student) of one relation, mean over texts."""
    total = 0.0
    for text, row in enumerate(MASK.tolist()):
        places = [place for place, value in enumerate(row) if value]
        for head in range(heads):
            sides = []
            for vectors in (student, teacher):
                size = vectors.shape[-1] // heads
                sides.append(vectors[text, places, head * size : (head + 1) * size].tolist())
            for query in range(len(places)):
                own, other = (relation(side, query) for side in sides)
                divergence = sum(t * math.log(t / s) for s, t in zip(own, other, strict=True))
                total += divergence / (heads * len(places))
    return total / TEXTS


def expected_costs(
    student: EncoderStates, teacher: EncoderStates, relations: tuple[str, ...] = RELATIONS, heads: int = HEADS
) -> Tensor:
    rows = [
        [
            sum(
                reference(getattr(student, kind)[i].double(), getattr(teacher, kind)[j].double(), heads)
                for kind in relations
            )
            for j in range(len(teacher.queries))
        ]
        for i in range(len(student.queries))
    ]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.float16, 1e-5)])
def test_costs_of_unequal_widths(dtype: torch.dtype, tolerance: float) -> None:
    student, teacher = random_states(2, STUDENT_WIDTH, 1, dtype), random_states(3, TEACHER_WIDTH, 2, dtype)
    costs = RelationCosts(HEADS)(student, teacher)
    assert costs.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(costs.double(), expected_costs(student, teacher), rtol=tolerance, atol=0)


@pytest.mark.parametrize("relations", [("queries",), ("keys", "values"), ("values", "queries")])
@pytest.mark.parametrize("heads", [1, 2, 6])
def test_chosen_relations_and_heads(relations: tuple[str, ...], heads: int) -> None:
    student, teacher = random_states(1, STUDENT_WIDTH, 3), random_states(2, TEACHER_WIDTH, 4)
    kind = RelationCosts(heads, relations)
    assert kind.needs == {*relations}
    expected = expected_costs(student, teacher, relations, heads)
    absent = {name: () for name in RELATIONS if name not in relations}
    found = kind(changed(student, **absent), changed(teacher, **absent))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_gradient() -> None:
    student, teacher = random_states(1, STUDENT_WIDTH, 5), random_states(2, TEACHER_WIDTH, 6)
    vectors = [getattr(student, kind)[0].requires_grad_() for kind in RELATIONS]

    def costs(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return RelationCosts(HEADS)(changed(student, queries=(queries,), keys=(keys,), values=(values,)), teacher)

    assert torch.autograd.gradcheck(costs, vectors)
    gradients = torch.autograd.grad(costs(*vectors).sum(), vectors)
    assert not any(gradient[MASK == 0].any() for gradient in gradients)
    assert all(gradient[:3][MASK[:3] == 1].any(dim=-1).all() for gradient in gradients)


def test_the_teacher_has_no_gradient() -> None:
    student, teacher = random_states(1, STUDENT_WIDTH, 7), random_states(1, TEACHER_WIDTH, 8)
    own, other = (getattr(states, "keys")[0].requires_grad_() for states in (student, teacher))  # noqa: B009
    RelationCosts(HEADS)(student, teacher).sum().backward()
    assert own.grad is not None
    assert other.grad is None


@pytest.mark.parametrize("filler", [1e30, math.nan, math.inf])
def test_padding_has_neither_value_nor_gradient(filler: float) -> None:
    student, teacher = (random_states(2, width, 9, torch.float32) for width in (STUDENT_WIDTH, TEACHER_WIDTH))

    def spoiled(states: EncoderStates) -> EncoderStates:
        def change(layer: Tensor) -> Tensor:
            return layer.masked_fill((MASK == 0)[..., None], filler).requires_grad_()

        return changed(states, **{kind: tuple(map(change, getattr(states, kind))) for kind in RELATIONS})

    bad = spoiled(student)
    found = RelationCosts(HEADS)(bad, spoiled(teacher))
    assert torch.equal(found, RelationCosts(HEADS)(student, teacher))
    gradients = torch.autograd.grad(found.sum(), [*bad.queries, *bad.keys, *bad.values])  # type: ignore[list-item]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert not any(gradient[MASK == 0].any() for gradient in gradients)


def test_more_padding_and_shorter_company_change_nothing() -> None:
    student, teacher = random_states(1, STUDENT_WIDTH, 10), random_states(1, TEACHER_WIDTH, 11)

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
    student, teacher = random_states(1, STUDENT_WIDTH, 12, torch.float32), random_states(1, TEACHER_WIDTH, 13)
    queries = (300 * student.queries[0]).requires_grad_()  # type: ignore[operator]
    teacher = changed(teacher, queries=(300 * teacher.queries[0].float(),))  # type: ignore[union-attr]
    costs = RelationCosts(HEADS, ("queries",))(changed(student, queries=(queries,)), teacher)
    assert costs.isfinite().all()
    assert costs.item() > 0
    assert torch.autograd.grad(costs.sum(), queries)[0].isfinite().all()


def test_autocast_does_not_round() -> None:
    student, teacher = (random_states(1, width, 14, torch.float32) for width in (STUDENT_WIDTH, TEACHER_WIDTH))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = RelationCosts(HEADS)(student, teacher)
    assert torch.equal(found, RelationCosts(HEADS)(student, teacher))


def test_only_what_the_pairs_name_is_read() -> None:
    student, teacher = random_states(2, STUDENT_WIDTH, 15), random_states(3, TEACHER_WIDTH, 16)
    every = RelationCosts(HEADS)(student, teacher)

    def only(states: EncoderStates, layer: int) -> EncoderStates:
        kept = {
            kind: tuple(one if number == layer else None for number, one in enumerate(getattr(states, kind)))
            for kind in RELATIONS
        }
        return changed(states, **kept)

    fewer = only(student, 1), only(teacher, 2)
    expected = torch.zeros(2, 3).double()
    expected[1, 2] = every[1, 2]
    assert torch.equal(RelationCosts(HEADS)(*fewer, pairs=[(1, 2)]), expected)
    flow = torch.zeros(2, 3)
    flow[1, 2] = 1
    (term,) = LayerLoss([RelationCosts(HEADS)], FixedMapping(flow))(*fewer, {}).values()
    assert torch.equal(term, every[1, 2])
    with pytest.raises(ConfigError, match="the queries of teacher layer 1 were not recorded"):
        RelationCosts(HEADS)(*fewer, pairs=[(1, 1)])
    with pytest.raises(ConfigError, match="there are no queries of student layers"):
        RelationCosts(HEADS)(changed(student, queries=()), teacher)


def test_relation_heads_must_divide_both_widths() -> None:
    student, teacher = random_states(1, STUDENT_WIDTH, 17), random_states(1, TEACHER_WIDTH, 18)
    with pytest.raises(ConfigError, match=r"4 relation heads do not divide .* width of 6 .* of 12; .* 1, 2, 3, 6$"):
        RelationCosts(4)(student, teacher)
    for width in (312, 384, 768, 1024 * 3):
        check_relation_heads(RelationCosts().relation_heads, width, 768)
    with pytest.raises(ConfigError, match="must be 1 or more, not 0"):
        RelationCosts(0)


@pytest.mark.parametrize("relations", [(), ("queries", "queries"), ("keys", "scores")])
def test_impossible_relations(relations: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"some of queries, keys, values, each once, not (none|queries, q|keys, s)"):
        RelationCosts(HEADS, relations)
