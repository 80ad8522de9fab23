"""The projection: one W, one a layer, or none; learned beside the student, identity where widths are equal."""

from __future__ import annotations

import pytest
import torch

from emdistill.errors import ConfigError
from emdistill.losses import Projection
from emdistill.states import EncoderShape, EncoderStates

NARROW, WIDE = EncoderShape(layers=3, width=4, heads=2), EncoderShape(layers=6, width=8, heads=2)


def states(shape: EncoderShape) -> EncoderStates:
    generator = torch.Generator().manual_seed(0)
    draw = [torch.randn(2, 5, shape.width, generator=generator) for _ in range(shape.layers + 1)]
    mask = torch.ones(2, 5, dtype=torch.long)
    scores = tuple(torch.randn(2, shape.heads, 5, 5, generator=generator) for _ in range(shape.layers))
    return EncoderStates(torch.zeros(2, 3), mask, draw[0], tuple(draw[1:]), scores)


@pytest.mark.parametrize(("kind", "count"), [("shared", 1), ("per_layer", 4)])
def test_states_times_w(kind: str, count: int) -> None:
    projection, student = Projection(NARROW, WIDE, kind), states(NARROW)  # type: ignore[arg-type]
    matrices = list(projection.parameters())
    assert [tuple(matrix.shape) for matrix in matrices] == [(WIDE.width, NARROW.width)] * count
    projected = projection(student)
    assert projected.logits is student.logits
    assert projected.attention_scores is student.attention_scores
    assert len(projected.hidden) == NARROW.layers
    for layer, (before, after) in enumerate(
        zip((student.embeddings, *student.hidden), (projected.embeddings, *projected.hidden), strict=True)
    ):
        matrix = matrices[0 if kind == "shared" else layer]
        torch.testing.assert_close(after, torch.einsum("bld,wd->blw", before, matrix))


@pytest.mark.parametrize("kind", ["shared", "per_layer", "none"])
def test_equal_widths_start_from_the_states_themselves(kind: str) -> None:
    student = states(NARROW)
    projected = Projection(NARROW, NARROW, kind)(student)  # type: ignore[arg-type]
    for before, after in zip((student.embeddings, *student.hidden), (projected.embeddings, *projected.hidden)):  # noqa: B905
        assert torch.equal(before, after)


def test_random_projection_keeps_the_scale() -> None:
    torch.manual_seed(0)
    narrow, wide = EncoderShape(layers=1, width=64, heads=2), EncoderShape(layers=1, width=128, heads=2)
    student = states(narrow)
    (projected,) = Projection(narrow, wide, "shared")(student).hidden
    assert projected.std().item() == pytest.approx(student.hidden[0].std().item(), rel=0.15)


def test_absent_states_stay_absent() -> None:
    student = EncoderStates(torch.zeros(2, 3), torch.ones(2, 5, dtype=torch.long))
    projected = Projection(NARROW, WIDE, "per_layer")(student)
    assert projected.embeddings is None
    assert projected.hidden == ()


def test_none_needs_equal_widths() -> None:
    assert list(Projection(NARROW, NARROW, "none").parameters()) == []
    with pytest.raises(ConfigError, match="student is 4 wide and the teacher 8; choose --objective"):
        Projection(NARROW, WIDE, "none")
