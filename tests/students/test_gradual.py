"""Units that leave step by step: scores by gradients, a schedule, and a cut that is the same function."""

from itertools import pairwise

import pytest
import torch
from messages import names
from test_extract import AUTO, BATCH, FAMILIES, outputs, random_model
from torch.nn import functional

from emdistill.errors import ConfigError
from emdistill.students import make_student
from emdistill.students.extract import Sizes
from emdistill.students.gradual import batch_importance, begin, cut_to, leave, note_gradients, sizes_at
from emdistill.students.importance import taylor_importance
from emdistill.students.shape import StudentShape, shape_of

TARGET = StudentShape(2, 24, 3, 40)


def with_random_scores(model, seed: int = 0) -> None:
    """Begin, every unit scored at random."""
    begin(model)
    generator = torch.Generator().manual_seed(seed)
    for scores in model.unit_scores.buffers():
        scores.copy_(torch.rand(scores.shape, generator=generator))


def counts(model) -> list[int]:
    """How many units are left, of each kind; per layer where they are of a layer."""
    scores = model.unit_scores
    layers = (scores.heads, scores.query_key, scores.value, scores.feed_forward)
    return [int((scores.residual >= 0).sum()), *((each >= 0).sum(dim=1).tolist() for each in layers)]


@pytest.mark.parametrize("kind", AUTO)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_cut_at_last_says_what_was_left(tiny_encoder, family, kind):
    model = random_model(tiny_encoder, family, kind).double()
    before = outputs(model)
    with_random_scores(model)
    torch.testing.assert_close(outputs(model), before, rtol=1e-10, atol=1e-10)  # nothing has left
    leave(model, TARGET, 1.0)
    assert counts(model) == [24, [3, 3], [24, 24], [24, 24], [40, 40]]
    said, kept = outputs(model), (model.unit_scores.residual >= 0).nonzero().flatten()
    student, plan = cut_to(model, TARGET)
    assert shape_of(student.config) == TARGET
    assert list(plan.residual) == kept.tolist()
    assert not any("unit_scores" in name for name in [*student.state_dict(), *model.state_dict()])
    said = said[..., kept] if kind == "bare" else said
    assert not torch.allclose(said, before[..., kept] if kind == "bare" else before)
    torch.testing.assert_close(outputs(student.double()), said, rtol=1e-6, atol=1e-6)  # cut_out is in float32


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_of_one_text_scores_units_as_taylor_does(tiny_encoder, family):
    model = random_model(tiny_encoder, family).double()
    text = {name: values[:1] for name, values in BATCH.items()} | {"labels": torch.tensor([1])}
    expected = taylor_importance(model, [text])
    begin(model)
    functional.cross_entropy(model(**{name: text[name] for name in BATCH}).logits, text["labels"]).backward()
    found = batch_importance(model)
    for name in ("heads", "value", "feed_forward"):
        for own, other in zip(getattr(found, name), getattr(expected, name), strict=True):
            torch.testing.assert_close(own, other, rtol=1e-8, atol=1e-10, check_dtype=False)
    assert found.residual.shape == (32,)
    if family != "deberta-v2":  # whose queries of positions come from the same matrix
        for own, other in zip(found.query_key, expected.query_key, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-8, atol=1e-10, check_dtype=False)


def test_the_schedule_ends_at_the_target():
    whole, target = Sizes(32, 4, 8, 64), Sizes(24, 3, 8, 40)
    path = [sizes_at(step / 40, whole, target) for step in range(41)]
    assert path[0] == path[4] == whole  # importance is measured first
    assert path[-1] == target
    assert all(now <= before for sizes in zip(*path, strict=True) for before, now in pairwise(sizes))
    assert path[22].feed_forward == 40 + 24 / 8  # half-way after the warm-up: an eighth is left


def test_units_leave_for_good(tiny_encoder):
    model = random_model(tiny_encoder, "bert")
    with_random_scores(model)
    gone: set[int] = set()
    for progress in (0.3, 0.6, 1.0):
        loss = functional.cross_entropy(model(**BATCH).logits, torch.tensor([0, 1]))
        model.zero_grad()
        loss.backward()
        note_gradients(model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01)  # a step that touches all of them
        leave(model, TARGET, progress)
        now = set((model.unit_scores.residual < 0).nonzero().flatten().tolist())
        assert gone < now
        assert not model.bert.embeddings.word_embeddings.weight[:, list(now)].any()
        gone = now
    assert counts(model) == [24, [3, 3], [24, 24], [24, 24], [40, 40]]


def test_a_birth_that_learns_is_no_birth_of_make_student(tiny_encoder, tiny_tokenizer):
    with names(ConfigError, "--student-birth gradual"):
        make_student("2x24", tiny_encoder(), tiny_tokenizer, labels=("no", "yes"), birth="gradual")
