"""Balanced as a composition: what each setting makes of it, what it prints, and where there are no predictions."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from encoder_states import leaves, random_states
from messages import names
from plain_losses import mean_square, soft_cross_entropy

from emdistill.errors import ConfigError
from emdistill.losses import EmbeddingLoss, HardLabels, LayerLoss, SoftTargets, StandardisedLogits
from emdistill.mapping import EmdMapping, FixedMapping, UnbalancedMapping
from emdistill.methods.balanced import balanced
from emdistill.methods.bert_emd import bert_emd
from emdistill.states import NOTHING, WORDS, EncoderShape
from emdistill.tasks import KINDS
from emdistill.training.stage import Stage

STUDENT, TEACHER = EncoderShape(layers=3, width=8, heads=2), EncoderShape(layers=6, width=8, heads=2)
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
LAYERS = ("attention_scores", "hidden_states", "embeddings")


def build(student: EncoderShape = STUDENT, teacher: EncoderShape = TEACHER, **settings: Any) -> list[Stage]:
    return balanced(student, teacher, **settings)


def test_it_is_one_stage_of_relative_costs_in_balance() -> None:
    (stage,) = build(alpha=0.5, standardised_logits=2.0)
    objective = stage.objective
    assert [type(loss) for loss in objective.losses] == [
        LayerLoss, EmbeddingLoss, SoftTargets, HardLabels, StandardisedLogits,
    ]  # fmt: skip
    assert objective.balance is not None
    assert objective.balance.terms == LAYERS
    assert not objective.balance.each
    expected = dict.fromkeys(LAYERS, 1 / 3) | {"soft_targets": 0.5, "hard_labels": 0.5, "standardised_logits": 2.0}
    assert objective.weights == pytest.approx(expected)
    (layers,) = objective.layer_losses()
    assert [kind.scale for kind in layers.costs] == ["relative", "relative"]
    assert objective.losses[1].scale == "relative"
    assert isinstance(layers.mapping, FixedMapping)


def test_values_against_a_plain_recomputation() -> None:
    """Fixed weights: L = ratio · shares of the means over layers of squared differences over the variance + soft."""
    (stage,) = build(weighting="fixed", layer_ratio=3.0, attention_scores=0.5, embeddings=0.25, projection="none")
    student, teacher = (leaves(random_states(shape, MASK, seed)) for seed, shape in enumerate((STUDENT, TEACHER)))
    total, terms = stage.objective(student, teacher, {})

    def share(own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        real = MASK.bool()
        valid = real[..., None] if own.ndim == 3 else real[:, None, :, None] & real[:, None, None, :]
        over = (0, 1) if own.ndim == 3 else (0, 2, 3)
        mean = torch.where(valid, other, 0).sum(over, keepdim=True) / valid.sum()
        return mean_square(own, other, MASK) / mean_square(mean.expand_as(other), other, MASK)

    expected = {}
    for name, factor in (("attention_scores", 0.5), ("hidden", 1.0)):
        pairs = zip(getattr(student, name), getattr(teacher, name)[1::2], strict=True)
        expected[name] = 3 * factor / 1.75 * torch.stack([share(*pair) for pair in pairs]).mean()
    expected["embeddings"] = 3 * 0.25 / 1.75 * share(student.embeddings, teacher.embeddings)
    expected["soft_targets"] = soft_cross_entropy(student.logits, teacher.logits, 1.0)
    for value, wanted in zip(terms.values(), expected.values(), strict=True):
        torch.testing.assert_close(value, wanted)
    torch.testing.assert_close(total, sum(expected.values()))


def test_with_squared_costs_fixed_weights_and_emd_it_is_bert_emd() -> None:
    plain = {"costs": "squared", "weighting": "fixed", "layer_ratio": 3.0, "projection": "none"}
    ours = build(mapping="emd", cost_attention="inverse", **plain)
    theirs = bert_emd(STUDENT, TEACHER, projection="none")
    student, teacher = (leaves(random_states(shape, MASK, seed)) for seed, shape in enumerate((STUDENT, TEACHER)))
    for _ in range(3):
        results = [stages[0].objective(student, teacher, {})[0] for stages in (ours, theirs)]
        torch.testing.assert_close(*results)


@pytest.mark.parametrize("weighting", ["gradient-norms", "each-norm"])
def test_two_phases(weighting: str) -> None:
    settings = {"intermediate_share": 0.25, "standardised_logits": 1.0}
    first, second = build(schedule="two-phase", weighting=weighting, **settings)
    assert (first.name, first.share, second.name, second.share) == ("intermediate", 0.25, "prediction", 0.75)
    assert set(first.objective.weights) == set(LAYERS)
    assert (first.objective.balance is not None) is (weighting == "each-norm")  # among themselves
    assert set(second.objective.weights) == {"soft_targets", "standardised_logits"}
    assert second.objective.balance is None
    assert "learning_rate" not in first.training
    rate = build(schedule="two-phase", intermediate_learning_rate=3e-4)[0].training["learning_rate"]
    assert rate == 3e-4


def test_layers_fade_and_predictions_do_not() -> None:
    (stage,) = build(schedule="fade")
    assert stage.objective.schedules == dict.fromkeys(LAYERS, "fade")
    assert "fade(p)·" in str(stage.objective)


@pytest.mark.parametrize("schedule", ["joint", "two-phase", "fade"])
def test_without_predictions_the_layers_are_all_there_is(schedule: str) -> None:
    (stage,) = build(predictions=NOTHING, schedule=schedule)
    assert set(stage.objective.weights) == set(LAYERS)
    assert stage.objective.schedules == {}
    assert "soft_targets" in build(predictions=WORDS)[0].objective.weights


@pytest.mark.parametrize("link", KINDS)
def test_without_layers_the_predictions_are_all_there_is(link: str) -> None:
    (stage,) = build(layer_ratio=0, predictions=KINDS[link].predictions, standardised_logits=0.5, alpha=0)
    assert stage.objective.weights == {"hard_labels": 1.0, "standardised_logits": 0.5}
    assert stage.objective.balance is None
    assert stage.objective.needs == set()
    assert stage.objective.projection is None


def test_attention_scores_of_unlike_kinds_are_compared_only_where_asked() -> None:
    biased = replace(TEACHER, biased=True)
    (by_default,) = build(teacher=biased)
    assert {*by_default.objective.balance.terms} == {"hidden_states", "embeddings"}
    assert "attention" not in by_default.objective.needs
    (asked,) = build(teacher=biased, attention_scores=1.0)
    (alike,) = build(student=replace(STUDENT, biased=True), teacher=biased)
    assert asked.objective.weights == alike.objective.weights == build()[0].objective.weights


def test_emd_and_its_settings_are_to_be_had() -> None:
    (stage,) = build(mapping="emd", cost_attention="reverse", smoothing=0.5, cost_memory=0.75)
    (loss,) = stage.objective.layer_losses()
    assert isinstance(loss.mapping, EmdMapping)
    assert (loss.mapping.cost_attention, loss.mapping.smoothing, loss.cost_memory) == ("reverse", 0.5, 0.75)
    (loss,) = build(mapping="unbalanced", penalty=0.25)[0].objective.layer_losses()
    assert isinstance(loss.mapping, UnbalancedMapping)
    assert loss.mapping.penalty == 0.25


@pytest.mark.parametrize(
    ("settings", "option", "reader"),
    [
        ({"cost_attention": "inverse"}, "--objective.cost_attention inverse", "emd"),
        ({"smoothing": 0.5, "mapping": "unbalanced"}, "--objective.smoothing 0.5", "emd"),
        ({"weighting": "fixed", "norm_steps": 5}, "--objective.norm_steps 5", "gradient-norms"),
        ({"weighting": "fixed", "norm_smoothing": 0.5}, "--objective.norm_smoothing 0.5", "each-norm"),
        ({"cost_memory": 0.5, "mapping": "last"}, "cost_memory=0.5", "emd"),
        ({"penalty": 0.1}, "--objective.penalty 0.1", "unbalanced"),
        ({"penalty": 0.1, "mapping": "emd"}, "--objective.penalty 0.1", "unbalanced"),
        ({"intermediate_share": 0.3}, "--objective.intermediate_share 0.3", "two-phase"),
        ({"intermediate_learning_rate": 1e-3}, "--objective.intermediate_learning_rate 0.001", "two-phase"),
    ],
)
def test_a_setting_that_nothing_reads_is_refused(settings: dict[str, Any], option: str, reader: str) -> None:
    with names(ConfigError, option, reader):
        build(**settings)


@pytest.mark.parametrize(("count", "heads"), [(2, "equal"), (4, "mean")])
def test_head_counts_that_differ_are_no_fault(count: int, heads: str) -> None:
    (loss,) = build(teacher=EncoderShape(6, 8, count))[0].objective.layer_losses()
    assert loss.costs[0].heads == heads


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"layer_ratio": -1.0}, ["--objective.layer_ratio"]),
        ({"standardised_logits": float("inf")}, ["--objective.standardised_logits"]),
        ({"hidden_states": -0.5}, ["--objective.hidden_states"]),
        ({"alpha": 2.0}, ["--objective.alpha"]),
        ({"layer_ratio": 0.0, "predictions": NOTHING}, []),
    ],
)
def test_nonsense_is_refused(settings: dict[str, Any], named: list[object]) -> None:
    with names(ConfigError, *named) if named else pytest.raises(ConfigError):
        build(**settings)
