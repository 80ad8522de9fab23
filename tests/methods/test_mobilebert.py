"""MobileBERT's transfer against its equations in float64, its three schedules, and layers that learn slowly."""

from typing import Any

import pytest
import torch
from encoder_states import random_states
from messages import names
from plain_losses import (
    attention_divergence,
    feature_map_distance,
    feature_mean_distance,
    feature_variance_distance,
    hard_cross_entropy,
    soft_cross_entropy,
)

from emdistill.errors import ConfigError
from emdistill.methods.mobilebert import mobilebert
from emdistill.states import NOTHING, WORDS, EncoderShape
from emdistill.training.stage import Stage

STUDENT, DEEPER = EncoderShape(layers=3, width=8, heads=2), EncoderShape(layers=6, width=8, heads=2)
WIDER = EncoderShape(layers=3, width=12, heads=4)
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
LABELS = torch.tensor([1, 0, 1])
WEIGHTS = {"feature_maps": 3.0, "feature_means": 0.5, "feature_variances": 0.25, "attention": 2.0}
PLAIN = {
    "feature_maps": feature_map_distance,
    "feature_means": feature_mean_distance,
    "feature_variances": feature_variance_distance,
}
OURS = random_states(STUDENT, MASK, 0, outputs=2)


def taught_by(shape: EncoderShape) -> Any:
    return random_states(shape, MASK, 1, outputs=2)


def terms(stage: Stage, teacher: EncoderShape) -> dict[str, float]:
    stage.objective.double().eval()
    return {
        name: value.item() for name, value in stage.objective(OURS, taught_by(teacher), {"labels": LABELS})[1].items()
    }


def transfer(teacher: EncoderShape, pairs: dict[int, int], stage: Stage, **options: Any) -> dict[str, float]:
    """The weighted terms of these student layers and teacher layers."""
    theirs, projection = taught_by(teacher), stage.objective.projection
    own = OURS if projection is None else projection(OURS)
    expected = {
        name: WEIGHTS[name] * sum(plain(own.hidden[i].detach(), theirs.hidden[j], MASK) for i, j in pairs.items())
        for name, plain in PLAIN.items()
    }
    scores = [(OURS.attention_scores[i], theirs.attention_scores[j]) for i, j in pairs.items()]
    expected["attention_kl"] = WEIGHTS["attention"] * sum(
        attention_divergence(*each, MASK, **options) for each in scores
    )
    return expected


def answers(alpha: float, temperature: float) -> dict[str, float]:
    soft = soft_cross_entropy(OURS.logits, taught_by(DEEPER).logits, temperature).item()
    return {"soft_targets": alpha * soft, "hard_labels": (1 - alpha) * hard_cross_entropy(OURS.logits, LABELS).item()}


def test_progressive_goes_layer_by_layer_and_then_to_the_answers() -> None:
    *layers, last = mobilebert(STUDENT, DEEPER, **WEIGHTS, intermediate_share=0.6, alpha=0.25, temperature=2.0)
    for layer, stage in enumerate(layers):
        assert (stage.name, stage.slow_below, stage.share) == (f"layer-{layer}", layer, pytest.approx(0.2))
        assert terms(stage, DEEPER) == pytest.approx(transfer(DEEPER, {layer: 2 * layer + 1}, stage), rel=1e-6)
        assert (stage.objective.student_layers, stage.objective.teacher_layers) == ({layer}, {2 * layer + 1})
        assert not stage.objective.predicts
        assert stage.objective.projection is None  # the widths are equal
    assert len(layers) == 3
    assert (last.slow_below, last.share) == (0, pytest.approx(0.4))
    assert terms(last, DEEPER) == pytest.approx(answers(0.25, 2.0), rel=1e-6)


def test_joint_has_all_layers_first_and_auxiliary_all_at_once() -> None:
    one_to_one = {0: 0, 1: 1, 2: 2}
    first, last = mobilebert(STUDENT, STUDENT, **WEIGHTS, transfer="joint")
    assert terms(first, STUDENT) == pytest.approx(transfer(STUDENT, one_to_one, first), rel=1e-6)
    assert list(last.objective.weights) == ["soft_targets", "hard_labels"]
    (stage,) = mobilebert(STUDENT, DEEPER, **WEIGHTS, transfer="auxiliary", alpha=0.25, temperature=2.0)
    expected = transfer(DEEPER, {0: 1, 1: 3, 2: 5}, stage) | answers(0.25, 2.0)
    assert terms(stage, DEEPER) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("schedule", ["progressive", "joint"])
def test_unequal_widths_and_heads_meet(schedule: Any) -> None:
    """Each stage of a layer has a projection of its own: a run taken up later begins it as this one does."""
    stages = mobilebert(STUDENT, WIDER, **WEIGHTS, transfer=schedule)
    layers = [{0: 0}, {1: 1}, {2: 2}] if schedule == "progressive" else [{0: 0, 1: 1, 2: 2}]
    for stage, pairs in zip(stages, layers, strict=False):
        found = terms(stage, WIDER)
        assert found == pytest.approx(transfer(WIDER, pairs, stage, mean_heads=True), rel=1e-6)
    projections = [stage.objective.projection for stage in stages]
    assert projections.pop() is None
    assert len({id(projection) for projection in projections}) == len(layers)
    (stage,) = mobilebert(STUDENT, WIDER, feature_maps=0.0, transfer="auxiliary")
    assert (stage.objective.needs, stage.objective.projection) == ({"attention"}, None)


def test_of_raw_text_it_learns_words_and_without_a_head_layers_alone() -> None:
    assert mobilebert(STUDENT, STUDENT, predictions=WORDS)[-1].objective.predicts
    stages = mobilebert(STUDENT, STUDENT, predictions=NOTHING)
    assert [stage.share for stage in stages] == [pytest.approx(1 / 3)] * 3
    for schedule in ("joint", "auxiliary"):
        (stage,) = mobilebert(STUDENT, STUDENT, predictions=NOTHING, transfer=schedule)  # type: ignore[arg-type]
        assert (stage.share, stage.objective.predicts) == (1, False)


def test_a_mapping_says_which_layers_are_taught() -> None:
    stages = mobilebert(STUDENT, DEEPER, mapping="skip")
    assert [stage.name for stage in stages] == ["layer-0", "layer-1", "prediction"]
    with names(ConfigError, "--mapping emd", "--objective.transfer joint"):
        mobilebert(STUDENT, DEEPER, mapping="emd")
    mobilebert(STUDENT, DEEPER, mapping="emd", transfer="joint")


def test_wrong_settings_are_refused() -> None:
    with names(ConfigError, "--objective.feature_means", "-1"):
        mobilebert(STUDENT, STUDENT, feature_means=-1.0)
    with names(ConfigError, 2, 4, "--objective.heads"):
        mobilebert(STUDENT, WIDER, heads="equal")
    with names(ConfigError, "intermediate"):
        mobilebert(STUDENT, STUDENT, feature_maps=0.0, attention=0.0)
    with names(ConfigError, "--objective.intermediate_share"):
        mobilebert(STUDENT, STUDENT, intermediate_share=1.0)
