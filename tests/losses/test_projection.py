"""The projection: one W, one a layer, or none; learned beside the student, identity where widths are equal."""

import numpy as np
import pytest
import torch
from encoder_states import random_states
from messages import names

from emdistill.errors import ConfigError
from emdistill.losses import Projection
from emdistill.methods.bert_emd import bert_emd
from emdistill.models import Teacher, encoder_shape
from emdistill.models.capture import capture
from emdistill.states import EncoderShape, EncoderStates
from emdistill.students import make_student
from emdistill.training.projections import fit_projections

NARROW, WIDE = EncoderShape(layers=3, width=4, heads=2), EncoderShape(layers=6, width=8, heads=2)


def states(shape: EncoderShape) -> EncoderStates:
    return random_states(shape, torch.ones(2, 5, dtype=torch.long), seed=0, dtype=torch.float32)


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
    with names(ConfigError, 4, 8, "--objective.projection"):
        Projection(NARROW, WIDE, "none")


@pytest.mark.parametrize("kind", ["shared", "per_layer"])
def test_fitted_it_is_the_least_squares_map(kind: str) -> None:
    """Against numpy's lstsq over the unpadded tokens of embeddings and of layers with their counterparts."""
    projection = Projection(NARROW, WIDE, kind)  # type: ignore[arg-type]
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    batches = []
    for seed in range(4):
        torch.manual_seed(seed)
        ours, theirs = ([torch.randn(2, 5, shape.width) for _ in range(shape.layers + 1)] for shape in (NARROW, WIDE))
        ours[1][1, 4] = torch.nan  # padding
        batches.append(
            tuple(EncoderStates(torch.zeros(2, 3), mask, part[0], tuple(part[1:])) for part in (ours, theirs))
        )
    projection.fit(batches)
    rows: list[tuple[np.ndarray, np.ndarray]] = []
    for layer, counterpart in enumerate([0, 2, 4, 6]):  # 0 are the embeddings
        sides = [
            torch.cat([[batch[side].embeddings, *batch[side].hidden][place][mask.bool()] for batch in batches]).numpy()
            for side, place in ((0, layer), (1, counterpart))
        ]
        rows.append((sides[0], sides[1]))
    if kind == "shared":
        rows = [tuple(np.concatenate(side) for side in zip(*rows, strict=True))]  # type: ignore[list-item]
    for matrix, (ours, theirs) in zip(projection.parameters(), rows, strict=True):
        expected = np.linalg.lstsq(ours, theirs, rcond=None)[0]
        np.testing.assert_allclose(matrix.detach().numpy().T, expected, atol=1e-3)


def test_a_student_cut_out_of_the_teacher_begins_at_its_own_units(tiny_encoder, tiny_tokenizer) -> None:
    teacher = Teacher(tiny_encoder("bert", layers=2, width=32, heads=4))
    student, _ = make_student("2x24x4x48", teacher.model, tiny_tokenizer, labels=("no", "yes"), birth="random", seed=1)
    (stage,) = bert_emd(encoder_shape(student), teacher.shape, attention_scores=0)
    (weight,) = stage.objective.projection.parameters()
    batch = tiny_tokenizer(["a good movie", "it was not very bad"] * 8, padding=True, return_tensors="pt")
    needs, states = ("embeddings", "hidden"), teacher(batch, ("embeddings", "hidden"))

    def loss() -> float:
        projected = stage.objective.projection(capture(student, batch, needs)).embeddings
        return (projected - states.embeddings)[batch["attention_mask"].bool()].square().mean().item()

    before = loss()
    fit_projections([stage], student, teacher, lambda: [dict(batch)])
    assert loss() < 0.5 * before
    assert weight.requires_grad
    kept = weight.detach().clone()
    fit_projections([stage], student, teacher, lambda: [dict(batch)])
    assert torch.equal(weight, kept)


def test_equal_widths_stay_at_the_identity(tiny_encoder) -> None:
    teacher = Teacher(tiny_encoder("bert", layers=2, width=32, heads=4))
    student = tiny_encoder("bert", layers=1, width=32, heads=4, seed=2)
    (stage,) = bert_emd(encoder_shape(student), teacher.shape)
    fit_projections([stage], student, teacher, lambda: pytest.fail("no sample is needed"))
    (weight,) = stage.objective.projection.parameters()
    assert torch.equal(weight, torch.eye(32))
