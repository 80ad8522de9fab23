"""TinyBERT, Patient KD, MiniLM and DistilBERT against their equations, term by term, in float64 and plain loops."""

import math
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_states import random_states
from messages import names
from plain_losses import (
    attention_divergence,
    cosine_distance,
    first_token_distance,
    flow_difference,
    hard_cross_entropy,
    mean_square,
    relation_divergence,
    soft_cross_entropy,
    unit_discrepancy,
)
from torch import Tensor

from emdistill.errors import ConfigError, LayerCountError
from emdistill.losses import RelationCosts
from emdistill.mapping import write_mapping
from emdistill.methods import METHODS
from emdistill.methods.distilbert import distilbert
from emdistill.methods.matched_layers import matched_layers
from emdistill.methods.minilm import minilm
from emdistill.methods.minilm_v1 import minilm_v1
from emdistill.methods.patient_kd import patient_kd
from emdistill.methods.tinybert import tinybert
from emdistill.states import NOTHING, WORDS, EncoderShape
from emdistill.training.stage import Stage

STUDENT, TEACHER = EncoderShape(layers=3, width=8, heads=2), EncoderShape(layers=6, width=12, heads=2)
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
LABELS = torch.tensor([1, 0, 1])
EVERY_SECOND = {0: 1, 1: 3, 2: 5}  # student layer -> teacher layer


OURS, THEIRS = (random_states(shape, MASK, seed, outputs=2) for seed, shape in enumerate((STUDENT, TEACHER)))


def terms(stage: Stage) -> dict[str, float]:
    """The weighted terms of one batch, in float64."""
    stage.objective.double().eval()
    total, found = stage.objective(OURS, THEIRS, {"labels": LABELS})
    assert total.item() == pytest.approx(sum(value.item() for value in found.values()))
    return {name: value.item() for name, value in found.items()}


def projected(stage: Stage, layer: Tensor) -> Tensor:
    projection = stage.objective.projection
    assert projection is not None
    (weight,) = projection.parameters()
    return layer @ weight.detach().double().T


def soft_targets(temperature: float) -> float:
    return soft_cross_entropy(OURS.logits, THEIRS.logits, temperature).item()


def hard_labels() -> float:
    return hard_cross_entropy(OURS.logits, LABELS).item()


def test_tinybert() -> None:
    first, second = tinybert(STUDENT, TEACHER, temperature=2.0)
    expected = {
        "attention_scores": sum(
            mean_square(OURS.attention_scores[i], THEIRS.attention_scores[j], MASK).item()
            for i, j in EVERY_SECOND.items()
        ),
        "hidden_states": sum(
            mean_square(projected(first, OURS.hidden[i]), THEIRS.hidden[j], MASK).item()
            for i, j in EVERY_SECOND.items()
        ),
        "embeddings": mean_square(projected(first, OURS.embeddings), THEIRS.embeddings, MASK).item(),
    }
    assert terms(first) == pytest.approx(expected, rel=1e-6)
    assert terms(second) == pytest.approx({"soft_targets": soft_targets(2.0)}, rel=1e-6)
    assert (first.name, second.name) == ("intermediate", "prediction")
    assert first.share + second.share == pytest.approx(1)
    assert second.objective.needs == set()


@pytest.mark.parametrize("predictions", [WORDS, NOTHING], ids=["words", "none"])
def test_tinybert_on_raw_text_is_its_first_phase(predictions: Any) -> None:
    torch.manual_seed(0)  # of the projection
    (stage,) = tinybert(STUDENT, TEACHER, predictions=predictions)
    torch.manual_seed(0)
    first, _ = tinybert(STUDENT, TEACHER)
    assert stage.share == 1
    assert not stage.objective.predicts
    assert terms(stage) == pytest.approx(terms(first))


def test_patient_kd() -> None:
    (stage,) = patient_kd(STUDENT, TEACHER, beta=3.0, alpha=0.25, temperature=2.0)
    # The last layer has the predictions to learn from.
    patience = sum(
        first_token_distance(projected(stage, OURS.hidden[i]), THEIRS.hidden[j], MASK) for i, j in ((0, 1), (1, 3))
    )
    expected = {
        "first_token": 3.0 * patience,
        "soft_targets": 0.25 * soft_targets(2.0),
        "hard_labels": 0.75 * hard_labels(),
    }
    assert terms(stage) == pytest.approx(expected, rel=1e-6)


def test_distilbert() -> None:
    (stage,) = distilbert(STUDENT, TEACHER)
    expected = {
        "soft_targets": 5 * soft_targets(2.0),
        "hard_labels": 2 * hard_labels(),
        "cosine": cosine_distance(projected(stage, OURS.hidden[-1]), THEIRS.hidden[-1], MASK),
    }
    assert terms(stage) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("teacher_layer", [None, 2])
def test_minilm(teacher_layer: int | None) -> None:
    heads = 4
    (stage,) = minilm(STUDENT, TEACHER, beta=2.0, relation_heads=heads, teacher_layer=teacher_layer)

    taught_by = 5 if teacher_layer is None else teacher_layer
    divergence = sum(
        relation_divergence(getattr(OURS, kind)[-1], getattr(THEIRS, kind)[taught_by], MASK, heads)
        for kind in ("queries", "keys", "values")
    )
    assert terms(stage) == pytest.approx({"relations": 2.0 * divergence, "soft_targets": soft_targets(1.0)}, rel=1e-6)
    (general,) = minilm(STUDENT, TEACHER, predictions=WORDS, relation_heads=heads)
    assert list(general.objective.weights) == ["relations"]


def test_minilm_chooses_its_relation_heads_and_layer() -> None:
    assert minilm(EncoderShape(2, 24, 3), EncoderShape(4, 36, 6))[0].objective.needs == {"queries", "keys", "values"}
    # A MobileBERT's queries are as wide as its bottleneck, whatever its states are.
    for shapes, heads in (
        ((EncoderShape(2, 24, 3), EncoderShape(4, 36, 6)), 12),
        ((EncoderShape(2, 24, 4, attention_width=20), EncoderShape(4, 36, 6)), 2),
        ((EncoderShape(2, 20, 4, attention_width=24), EncoderShape(4, 36, 6)), 12),
    ):
        (relations,) = minilm(*shapes)[0].objective.layer_losses()[0].costs
        assert isinstance(relations, RelationCosts)
        assert relations.relation_heads == heads
    with names(LayerCountError, "--objective.teacher_layer", 6, "0..5"):
        minilm(STUDENT, TEACHER, teacher_layer=6)
    with names(ConfigError, "--objective.teacher_layer", "--mapping"):
        minilm(STUDENT, TEACHER, teacher_layer=1, mapping="uniform")


@pytest.mark.parametrize("relation_heads", [None, 4])
def test_minilm_v1(relation_heads: int | None) -> None:
    (stage,) = minilm_v1(STUDENT, TEACHER, beta=2.0, values=0.5, relation_heads=relation_heads)
    values = relation_divergence(OURS.values[-1], THEIRS.values[-1], MASK, relation_heads or 2)
    expected = {
        "attention_kl": 2.0 * attention_divergence(OURS.attention_scores[-1], THEIRS.attention_scores[-1], MASK),
        "relations": 1.0 * values,
        "soft_targets": soft_targets(1.0),
    }
    assert terms(stage) == pytest.approx(expected, rel=1e-6)
    assert stage.objective.needs == {"attention", "values"}
    (general,) = minilm_v1(STUDENT, TEACHER, predictions=WORDS)
    assert list(general.objective.weights) == ["attention_kl", "relations"]


def test_minilm_v1_and_unequal_heads() -> None:
    """Attention is refused by name; values are cut into heads of their own."""
    other = EncoderShape(layers=3, width=12, heads=3)
    with names(ConfigError, 3, 2, "--objective.attention"):
        minilm_v1(other, TEACHER)
    (stage,) = minilm_v1(other, EncoderShape(6, 12, 6), attention=0.0)
    assert stage.objective.needs == {"values"}
    (loss,) = stage.objective.layer_losses()
    assert loss.costs[0].relation_heads == 3  # type: ignore[attr-defined]


def test_matched_layers() -> None:
    """Every kind at once, over one mapping, each layer counting fully."""
    kinds = ("hidden_states", "cosine", "first_token", "nst", "fsp")
    kinds += ("attention_scores", "attention_ce", "attention_kl", "embeddings")
    weights = {name: 0.5 + place for place, name in enumerate(kinds)}
    (stage,) = matched_layers(STUDENT, TEACHER, **weights, alpha=0.25)
    own = [projected(stage, layer) for layer in OURS.hidden]
    start = projected(stage, OURS.embeddings)
    pairs = [(own[i], THEIRS.hidden[j]) for i, j in EVERY_SECOND.items()]
    scores = [(OURS.attention_scores[i], THEIRS.attention_scores[j]) for i, j in EVERY_SECOND.items()]
    flows = [((start, one), (THEIRS.embeddings, two)) for one, two in pairs]
    expected = {
        "hidden_states": sum(mean_square(one, two, MASK).item() for one, two in pairs),
        "cosine": sum(cosine_distance(one, two, MASK) for one, two in pairs),
        "first_token": sum(first_token_distance(one, two, MASK) for one, two in pairs),
        "nst": sum(unit_discrepancy(one, two, MASK) for one, two in pairs),
        "fsp": sum(flow_difference(one, two, MASK) for one, two in flows),
        "attention_scores": sum(mean_square(one, two, MASK).item() for one, two in scores),
        "attention_ce": sum(attention_divergence(one, two, MASK, cross_entropy=True) for one, two in scores),
        "attention_kl": sum(attention_divergence(one, two, MASK) for one, two in scores),
        "embeddings": mean_square(start, THEIRS.embeddings, MASK).item(),
    }
    expected = {name: weights[name] * value for name, value in expected.items()}
    expected |= {"soft_targets": 0.25 * soft_targets(1.0), "hard_labels": 0.75 * hard_labels()}
    assert terms(stage) == pytest.approx(expected, rel=1e-6)


def test_matched_layers_capture_and_project_what_they_compare() -> None:
    (stage,) = matched_layers(STUDENT, TEACHER, hidden_states=0.0, nst=1.0)
    assert (stage.objective.needs, stage.objective.projection) == ({"hidden"}, None)
    other = EncoderShape(layers=3, width=8, heads=4)
    (stage,) = matched_layers(other, TEACHER, hidden_states=0.0, attention_ce=1.0, heads="mean")
    assert stage.objective.needs == {"attention"}
    with names(ConfigError, 4, 2, "--objective.heads"):
        matched_layers(other, TEACHER, attention_ce=1.0)


MAPPED = ["bert-emd", "tinybert", "patient-kd", "minilm", "minilm-v1", "distilbert", "matched-layers"]


@pytest.mark.parametrize("method", MAPPED)
@pytest.mark.parametrize("mapping", ["emd", "last", "file"])
def test_every_method_that_maps_layers_takes_any_mapping(method: str, mapping: str, tmp_path: Path) -> None:
    """One that moves its weights, a fixed one and a file: the contract of mappings makes all others like these."""
    if mapping == "file":
        mapping = str(tmp_path / "mapping.yaml")
        write_mapping(Path(mapping), [(0, 2), (2, 5)], 3, 6)
    stages = METHODS[method](STUDENT, TEACHER, mapping=mapping)
    found = terms(stages[0])
    assert all(math.isfinite(value) for value in found.values())


@pytest.mark.parametrize("method", MAPPED)
def test_a_layer_weighs_the_same_under_every_mapping(method: str) -> None:
    """Flows of any mass are brought to one scale: what is compared are mappings, not weights of terms."""
    scales = {}
    for mapping in ("emd", "uniform", "last", "sinkhorn", "final"):
        (loss,) = METHODS[method](STUDENT, TEACHER, mapping=mapping)[0].objective.layer_losses()
        scales[mapping] = loss.scale * loss.mapping.mass / loss.mapping.taught_layers
    assert len({round(scale, 9) for scale in scales.values()}) == 1


WEIGHTS = {"beta": -1.0, "cosine": math.nan, "hidden_states": math.inf}


@pytest.mark.parametrize(
    ("method", "name"),
    [(method, name) for method in MAPPED for name in WEIGHTS if name in signature(METHODS[method]).parameters],
)
def test_wrong_weights_are_refused(method: str, name: str) -> None:
    with names(ConfigError, f"--objective.{name}", f"{WEIGHTS[name]:g}"):
        METHODS[method](STUDENT, TEACHER, **{name: WEIGHTS[name]})


@pytest.mark.parametrize("method", ["soft-targets", "hard-labels"])
def test_predictions_alone_teach_nothing_without_a_head(method: str) -> None:
    with names(ConfigError, method):
        METHODS[method](STUDENT, TEACHER, predictions=NOTHING)


@pytest.mark.parametrize("method", MAPPED)
def test_layers_teach_without_a_head(method: str) -> None:
    for stage in METHODS[method](STUDENT, TEACHER, predictions=NOTHING):
        assert not stage.objective.predicts
        assert stage.objective.taught
