"""TinyBERT, Patient KD, MiniLM and DistilBERT against their equations, term by term, in float64 and plain loops."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from emdistill.errors import ConfigError, LayerCountError
from emdistill.mapping import write_mapping
from emdistill.methods import METHODS
from emdistill.methods.distilbert import distilbert
from emdistill.methods.minilm import minilm
from emdistill.methods.patient_kd import patient_kd
from emdistill.methods.tinybert import tinybert
from emdistill.states import EncoderShape, EncoderStates
from emdistill.training.stage import Stage

STUDENT, TEACHER = EncoderShape(layers=3, width=8, heads=2), EncoderShape(layers=6, width=12, heads=2)
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
LABELS = torch.tensor([1, 0, 1])
EVERY_SECOND = {0: 1, 1: 3, 2: 5}  # student layer -> teacher layer


def states(shape: EncoderShape, seed: int) -> EncoderStates:
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    batch, length = MASK.shape
    every = range(shape.layers)
    return EncoderStates(
        logits=normal(batch, 2),
        mask=MASK,
        embeddings=normal(batch, length, shape.width),
        hidden=tuple(normal(batch, length, shape.width) for _ in every),
        attention_scores=tuple(normal(batch, shape.heads, length, length) for _ in every),
        queries=tuple(normal(batch, length, shape.width) for _ in every),
        keys=tuple(normal(batch, length, shape.width) for _ in every),
        values=tuple(normal(batch, length, shape.width) for _ in every),
    )


OURS, THEIRS = states(STUDENT, 1), states(TEACHER, 2)


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


def tokens() -> list[tuple[int, int]]:
    return [(text, place) for text, row in enumerate(MASK.tolist()) for place, valid in enumerate(row) if valid]


def mean_square(one: Tensor, other: Tensor) -> float:
    """Over the unpadded tokens and the width."""
    values = [((one[text, place] - other[text, place]) ** 2).mean().item() for text, place in tokens()]
    return sum(values) / len(values)


def mean_square_of_scores(one: Tensor, other: Tensor) -> float:
    """Over heads and pairs of unpadded tokens."""
    values = []
    for text, query in tokens():
        for same, key in tokens():
            if same == text:
                values += [((one - other)[text, head, query, key] ** 2).item() for head in range(one.shape[1])]
    return sum(values) / len(values)


def soft_cross_entropy(temperature: float) -> float:
    total = 0.0
    for ours, theirs in zip(OURS.logits, THEIRS.logits, strict=True):
        targets = (theirs / temperature).softmax(0)
        total -= sum(
            p.item() * math.log(q.item()) for p, q in zip(targets, (ours / temperature).softmax(0), strict=True)
        )
    return temperature**2 * total / len(MASK)


def hard_cross_entropy() -> float:
    return -sum(math.log(row.softmax(0)[label].item()) for row, label in zip(OURS.logits, LABELS, strict=True)) / 3


def test_tinybert() -> None:
    first, second = tinybert(STUDENT, TEACHER, temperature=2.0)
    expected = {
        "attention_scores": sum(
            mean_square_of_scores(OURS.attention_scores[i], THEIRS.attention_scores[j]) for i, j in EVERY_SECOND.items()
        ),
        "hidden_states": sum(
            mean_square(projected(first, OURS.hidden[i]), THEIRS.hidden[j]) for i, j in EVERY_SECOND.items()
        ),
        "embeddings": mean_square(projected(first, OURS.embeddings), THEIRS.embeddings),
    }
    assert terms(first) == pytest.approx(expected, rel=1e-6)
    assert terms(second) == pytest.approx({"soft_targets": soft_cross_entropy(2.0)}, rel=1e-6)
    assert (first.name, second.name) == ("intermediate", "prediction")
    assert first.share + second.share == pytest.approx(1)
    assert second.objective.needs == set()


@pytest.mark.parametrize("predictions", ["words", "none"])
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
    patience = 0.0
    for i, j in ((0, 1), (1, 3)):  # the last layer has the predictions to learn from
        for text in range(len(MASK)):
            ours, theirs = projected(stage, OURS.hidden[i])[text, 0], THEIRS.hidden[j][text, 0]
            patience += ((ours / ours.norm() - theirs / theirs.norm()) ** 2).sum().item() / len(MASK)
    expected = {
        "first_token": 3.0 * patience,
        "soft_targets": 0.25 * soft_cross_entropy(2.0),
        "hard_labels": 0.75 * hard_cross_entropy(),
    }
    assert terms(stage) == pytest.approx(expected, rel=1e-6)


def test_distilbert() -> None:
    (stage,) = distilbert(STUDENT, TEACHER)
    last = projected(stage, OURS.hidden[-1])
    cosines = [
        torch.dot(last[text, place], THEIRS.hidden[-1][text, place]).item()
        / (last[text, place].norm() * THEIRS.hidden[-1][text, place].norm()).item()
        for text, place in tokens()
    ]
    expected = {
        "soft_targets": 5 * soft_cross_entropy(2.0),
        "hard_labels": 2 * hard_cross_entropy(),
        "cosine": 1 - sum(cosines) / len(cosines),
    }
    assert terms(stage) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("teacher_layer", [None, 2])
def test_minilm(teacher_layer: int | None) -> None:
    heads = 4
    (stage,) = minilm(STUDENT, TEACHER, beta=2.0, relation_heads=heads, teacher_layer=teacher_layer)

    def relation(vectors: Tensor, text: int, head: int) -> Tensor:
        size = vectors.shape[-1] // heads
        part = vectors[text, : int(MASK[text].sum()), head * size : (head + 1) * size]
        return (part @ part.T / math.sqrt(size)).softmax(-1)

    divergence = 0.0
    for kind in ("queries", "keys", "values"):
        ours, theirs = getattr(OURS, kind)[-1], getattr(THEIRS, kind)[5 if teacher_layer is None else teacher_layer]
        for text, length in enumerate(MASK.sum(1).tolist()):
            for head in range(heads):
                p, q = relation(theirs, text, head), relation(ours, text, head)
                divergence += (p * (p / q).log()).sum().item() / (heads * length * len(MASK))
    assert terms(stage) == pytest.approx(
        {"relations": 2.0 * divergence, "soft_targets": soft_cross_entropy(1.0)}, rel=1e-6
    )
    (general,) = minilm(STUDENT, TEACHER, predictions="words", relation_heads=heads)
    assert list(general.objective.weights) == ["relations"]


def test_minilm_chooses_its_relation_heads_and_layer() -> None:
    assert minilm(EncoderShape(2, 24, 3), EncoderShape(4, 36, 6))[0].objective.needs == {"queries", "keys", "values"}
    with pytest.raises(LayerCountError, match=r"teacher_layer 6: this teacher has 6 \(0\.\.5\)"):
        minilm(STUDENT, TEACHER, teacher_layer=6)
    with pytest.raises(ConfigError, match=r"--objective\.teacher_layer and --mapping exclude each other"):
        minilm(STUDENT, TEACHER, teacher_layer=1, mapping="uniform")


MAPPED = ["bert-emd", "tinybert", "patient-kd", "minilm", "distilbert"]


@pytest.mark.parametrize("method", MAPPED)
@pytest.mark.parametrize("mapping", ["emd", "sinkhorn", "unbalanced", "two-level", "last", "file"])
def test_every_method_that_maps_layers_takes_any_mapping(method: str, mapping: str, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("method", MAPPED)
@pytest.mark.parametrize("setting", [{"beta": -1.0}, {"cosine": math.nan}, {"hidden_states": math.inf}])
def test_wrong_weights_are_refused(method: str, setting: dict[str, float]) -> None:
    if setting.keys() <= METHODS[method].__kwdefaults__.keys():
        (name,) = setting
        with pytest.raises(ConfigError, match=f"--objective.{name} "):
            METHODS[method](STUDENT, TEACHER, **setting)


@pytest.mark.parametrize("method", ["soft-targets", "hard-labels"])
def test_predictions_alone_teach_nothing_without_a_head(method: str) -> None:
    with pytest.raises(ConfigError, match="masked-LM head"):
        METHODS[method](STUDENT, TEACHER, predictions="none")


@pytest.mark.parametrize("method", MAPPED)
def test_layers_teach_without_a_head(method: str) -> None:
    for stage in METHODS[method](STUDENT, TEACHER, predictions="none"):
        assert not stage.objective.predicts
        assert stage.objective.taught
