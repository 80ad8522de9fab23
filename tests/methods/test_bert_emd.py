"""BERT-EMD as a composition: its stages, its weights, what each switch takes away, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from messages import names

from emdistill.errors import ConfigError
from emdistill.losses import EmbeddingLoss, HardLabels, LayerLoss, SoftTargets
from emdistill.methods.bert_emd import bert_emd
from emdistill.states import EncoderShape
from emdistill.tasks import KINDS
from emdistill.training.stage import Stage
from emdistill.training.stage_arguments import stage_arguments

STUDENT, TEACHER = EncoderShape(layers=3, width=8, heads=2), EncoderShape(layers=7, width=16, heads=2)
INTERMEDIATE = {"attention_scores": 0, "hidden_states": 0, "embeddings": 0}


def build(student: EncoderShape = STUDENT, **settings: Any) -> list[Stage]:
    return bert_emd(student, TEACHER, **settings)


def test_joint_is_one_stage_with_every_loss() -> None:
    (stage,) = build(alpha=0.5)
    assert stage.name == "joint"
    assert stage.training == {}
    assert [type(loss) for loss in stage.objective.losses] == [LayerLoss, EmbeddingLoss, SoftTargets, HardLabels]
    assert stage.objective.needs == {"attention", "hidden", "embeddings"}
    assert stage.objective.projection is not None


def test_two_phases() -> None:
    first, second = build(schedule="two-phase", alpha=0.5, intermediate_share=0.25, intermediate_learning_rate=3e-4)
    assert (first.name, second.name) == ("intermediate", "prediction")
    assert (first.share, second.share) == (0.25, 0.75)
    assert first.training["learning_rate"] == 3e-4
    assert second.training == {}
    assert [type(loss) for loss in first.objective.losses] == [LayerLoss, EmbeddingLoss]
    assert [type(loss) for loss in second.objective.losses] == [SoftTargets, HardLabels]
    assert set(first.objective.weights) == {"attention_scores", "hidden_states", "embeddings"}
    assert set(second.objective.weights) == {"soft_targets", "hard_labels"}
    assert first.objective.projection is not None
    assert second.objective.projection is None
    assert second.objective.needs == set()


def test_the_intermediate_phase_is_not_chosen_by_a_score_that_nothing_trains(tmp_path: Path) -> None:
    stages = build(schedule="two-phase")
    training = {"early_stopping_patience": 2, "num_train_epochs": 9}
    first, second = (
        stage_arguments(stage, training, folder=tmp_path, choose=True, metric="accuracy", seed=0) for stage in stages
    )
    assert (first.load_best_model_at_end, first.early_stopping_patience) == (False, None)
    assert (second.load_best_model_at_end, second.early_stopping_patience) == (True, 2)
    assert (first.num_train_epochs, second.num_train_epochs) == pytest.approx((5.4, 3.6))


def test_weights_follow_the_equation() -> None:
    """L = β · (θ · (L_attention_scores + L_hidden_states) + L_embeddings) + L_prediction."""
    beta, theta, attention, hidden, embeddings, prediction, alpha = 3.0, 0.5, 0.25, 2.0, 0.75, 4.0, 0.9
    (stage,) = build(
        beta=beta,
        theta=theta,
        attention_scores=attention,
        hidden_states=hidden,
        embeddings=embeddings,
        prediction=prediction,
        alpha=alpha,
    )
    assert stage.objective.weights == pytest.approx(
        {
            "attention_scores": beta * theta * attention,
            "hidden_states": beta * theta * hidden,
            "embeddings": beta * embeddings,
            "soft_targets": prediction * alpha,
            "hard_labels": prediction * (1 - alpha),
        }
    )
    assert str(build(beta=2.0, theta=0.5)[0].objective) == (
        "L = 1·attention_scores + 1·hidden_states + 2·embeddings + 1·soft_targets"
    )


@pytest.mark.parametrize(
    ("settings", "terms", "needs"),
    [
        ({"attention_scores": 0}, {"hidden_states", "embeddings", "soft_targets"}, {"hidden", "embeddings"}),
        ({"hidden_states": 0}, {"attention_scores", "embeddings", "soft_targets"}, {"attention", "embeddings"}),
        ({"embeddings": 0}, {"attention_scores", "hidden_states", "soft_targets"}, {"attention", "hidden"}),
        ({"prediction": 0}, {"attention_scores", "hidden_states", "embeddings"}, {"attention", "hidden", "embeddings"}),
        ({"theta": 0}, {"embeddings", "soft_targets"}, {"embeddings"}),
        ({"beta": 0}, {"soft_targets"}, set()),
        ({"beta": 0, "alpha": 0}, {"hard_labels"}, set()),
        ({"beta": 0, "alpha": 0.5}, {"soft_targets", "hard_labels"}, set()),
        ({"attention_scores": 0, "embeddings": 0}, {"hidden_states", "soft_targets"}, {"hidden"}),
    ],
)
def test_a_weight_of_0_switches_a_term_off_and_captures_nothing_for_it(
    settings: dict[str, float], terms: set[str], needs: set[str]
) -> None:
    (stage,) = build(**settings)
    assert set(stage.objective.weights) == terms
    assert stage.objective.needs == needs
    assert (stage.objective.projection is not None) == bool(terms & {"hidden_states", "embeddings"})
    assert stage.objective.taught == (terms != {"hard_labels"})


def test_coupled_and_separate_layer_weights() -> None:
    (together,) = build()[0].objective.layer_losses()
    apart = build(coupled=False)[0].objective.layer_losses()
    assert [kind.name for kind in together.costs] == ["attention_scores", "hidden_states"]
    assert [[kind.name for kind in loss.costs] for loss in apart] == [["attention_scores"], ["hidden_states"]]
    assert apart[0].mapping is not apart[1].mapping
    (alone,) = build(coupled=False, attention_scores=0)[0].objective.layer_losses()
    assert [kind.name for kind in alone.costs] == ["hidden_states"]


def test_mapping_settings_arrive() -> None:
    settings = {"weight_floor": 0.02, "cost_floor": 0.1, "smoothing": 0.9}
    (loss,) = build(cost_attention="softmax", cost_attention_temperature=25.0, **settings)[0].objective.layer_losses()
    assert str(loss.mapping) == (
        "EmdMapping(student_layers=3, teacher_layers=7, cost_attention='softmax', temperature=25, weight_floor=0.02, "
        "cost_floor=0.1, smoothing=0.9)"
    )


def test_regression_and_temperature_arrive() -> None:
    soft, hard = list(
        build(beta=0, alpha=0.5, temperature=3.0, predictions=KINDS["regression"].predictions)[0].objective.losses
    )
    assert isinstance(soft, SoftTargets)
    assert isinstance(hard, HardLabels)
    assert (soft.temperature, soft.link, hard.link) == (3.0, "identity", "identity")


def test_unequal_heads_need_a_choice() -> None:
    student = replace(STUDENT, heads=4)
    with names(ConfigError, 4, 2, "--objective.heads", "mean", "match"):
        build(student)
    for settings in ({"heads": "mean"}, {"heads": "match"}, {"attention_scores": 0}, {"beta": 0}):
        assert build(student, **settings)


def test_no_projection_needs_equal_widths() -> None:
    with names(ConfigError, "'none'", "--objective.projection", STUDENT.width, TEACHER.width):
        build(projection="none")
    assert build(replace(STUDENT, width=TEACHER.width), projection="none")
    assert build(projection="none", hidden_states=0, embeddings=0)[0].objective.projection is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("beta", -1.0),
        ("theta", float("nan")),
        ("attention_scores", float("inf")),
        ("hidden_states", -1.0),
        ("embeddings", float("nan")),
        ("prediction", float("inf")),
    ],
)
def test_impossible_weights(name: str, value: float) -> None:
    with names(ConfigError, f"--objective.{name}", f"{value:g}"):
        build(**{name: value})


def test_two_negative_weights_do_not_make_a_positive_one() -> None:
    with names(ConfigError, "--objective.beta", "--objective.theta", -1):
        build(beta=-1.0, theta=-1.0, embeddings=0)


@pytest.mark.parametrize(("settings", "phase"), [(INTERMEDIATE, "intermediate"), ({"prediction": 0}, "prediction")])
def test_two_phases_with_an_empty_one(settings: dict[str, float], phase: str) -> None:
    with names(ConfigError, phase):
        build(schedule="two-phase", **settings)
    assert build(schedule="joint", **settings)


@pytest.mark.parametrize("schedule", ["joint", "two-phase"])
def test_everything_off(schedule: str) -> None:
    with pytest.raises(ConfigError):
        build(schedule=schedule, prediction=0, **INTERMEDIATE)


@pytest.mark.parametrize(
    ("settings", "option", "reader"),
    [
        ({"mapping": "uniform", "cost_attention": "softmax"}, "--objective.cost_attention softmax", "emd"),
        ({"mapping": "uniform", "weight_floor": 0.01}, "--objective.weight_floor 0.01", "emd"),
        ({"mapping": "sinkhorn", "cost_floor": 0.1}, "--objective.cost_floor 0.1", "emd"),
        ({"mapping": "last", "smoothing": 0.5}, "--objective.smoothing 0.5", "emd"),
        ({"cost_attention_temperature": 20.0}, "--objective.cost_attention_temperature 20.0", "softmax"),
        ({"intermediate_share": 0.3}, "--objective.intermediate_share 0.3", "two-phase"),
    ],
)
def test_a_setting_that_nothing_reads_is_refused(settings: dict[str, Any], option: str, reader: str) -> None:
    with names(ConfigError, option, reader):
        build(**settings)
    assert build(mapping="uniform", cost_attention="off")  # as it is anyway
