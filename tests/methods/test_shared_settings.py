"""What every method can be told under --objective: what reads it, in which stages, and what is refused."""

from typing import Any

import pytest
from messages import names

from emdistill.errors import ConfigError
from emdistill.losses import SoftTargets
from emdistill.methods import METHODS, compose_stages
from emdistill.options import load_config
from emdistill.states import CLASSES, NOTHING, WORDS, EncoderShape, Predictions
from emdistill.training.stage import Stage

STUDENT, TEACHER = EncoderShape(layers=3, width=24, heads=2), EncoderShape(layers=6, width=24, heads=2)


def stages(method: str, predictions: Predictions = CLASSES, **objective: Any) -> list[Stage]:
    config = load_config(teacher="teacher/", data="reviews.csv", output="run/", method=method, objective=objective)
    return compose_stages(config, STUDENT, TEACHER, predictions)


def soft_targets(composed: list[Stage]) -> list[SoftTargets]:
    return [loss for stage in composed for loss in stage.objective.losses if isinstance(loss, SoftTargets)]


# Without those of a student without attention, and of raw text.
@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("cross-view", "sentence-vectors")])
def test_soft_targets_of_every_method_follow_the_settings(method: str) -> None:
    if method == "hard-labels":
        with names(ConfigError, "--objective.soft_loss", "squared"):
            stages(method, soft_loss="squared")
        return
    (loss,) = soft_targets(stages(method, temperature=3.0, soft_loss="squared"))
    assert (loss.loss, loss.link, loss.temperature) == ("squared", "softmax", 3.0)
    options = {"temperature_schedule": "flsw", "temperature_beta": 0.5, "temperature_gamma": 2.0}
    (loss,) = soft_targets(stages(method, temperature=3.0, **options))
    assert (str(loss.spread), loss.temperature, loss.loss) == ("flsw β=0.5 γ=2", 3.0, "cross-entropy")
    (loss,) = soft_targets(stages(method))
    assert (loss.loss, loss.spread, loss.unmasked_share) == ("cross-entropy", None, 0)


def test_weights_that_grow_and_fade_in_the_stages_that_have_them() -> None:
    first, second = stages("tinybert", alpha=0.5, grow="hard_labels", fade="soft_targets, embeddings")
    assert first.objective.schedules == {"embeddings": "fade"}
    assert second.objective.schedules == {"hard_labels": "grow", "soft_targets": "fade"}
    assert "grow(p)·0.5·hard_labels" in str(second.objective)


def test_terms_that_are_not_there_or_follow_another_schedule_are_refused() -> None:
    with names(ConfigError, "--objective.grow", "soft_target", "'soft_targets'"):
        stages("balanced", grow="soft_target")
    with names(ConfigError, "--objective.fade", "soft_targets", "grow"):
        stages("soft-targets", grow="soft_targets", fade="soft_targets")
    with names(ConfigError, "--objective.grow", "embeddings", "fade"):
        stages("balanced", schedule="fade", grow="embeddings")


def test_answers_of_unmasked_tokens_are_for_raw_text_with_a_head() -> None:
    (stage,) = stages("distilbert", WORDS, unmasked_share=1.0)
    assert stage.objective.unmasked_share == 1
    assert stages("distilbert", WORDS)[0].objective.unmasked_share == 0
    for predictions in (CLASSES, NOTHING):
        with names(ConfigError, "--objective.unmasked_share", 0.5, "--task"):
            stages("distilbert", predictions, unmasked_share=0.5)
    with names(ConfigError, "--objective.unmasked_share", 1.0):
        stages("minilm", WORDS, unmasked_share=1.0)


def test_settings_that_nothing_reads_are_refused() -> None:
    with names(ConfigError, "--objective.temperature_beta", 2.0, "--objective.temperature_schedule"):
        stages("soft-targets", temperature_beta=2.0)


def test_a_parameter_of_a_methods_own_comes_first(tmp_path: Any) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "from emdistill.methods.soft_targets import soft_targets\n"
        "def mine(student, teacher, *, predictions, grow: float = 2.0):\n"
        "    return soft_targets(student, teacher, predictions=predictions, temperature=grow)\n"
    )
    (loss,) = soft_targets(stages(f"{file}:mine", grow=5.0, soft_loss="squared"))
    assert (loss.temperature, loss.loss) == (5.0, "squared")
