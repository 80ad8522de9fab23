"""The two baselines: soft targets alone, hard labels alone."""

import pytest
from messages import names

from emdistill.errors import ConfigError
from emdistill.methods.hard_labels import hard_labels
from emdistill.methods.soft_targets import soft_targets
from emdistill.states import EncoderShape

SHAPE = EncoderShape(layers=2, width=8, heads=2)


@pytest.mark.parametrize(
    ("alpha", "equation"),
    [
        (1.0, "L = 1·soft_targets"),
        (0.75, "L = 0.75·soft_targets + 0.25·hard_labels"),
        (0.0, "L = 1·hard_labels"),
    ],
)
def test_soft_targets(alpha: float, equation: str) -> None:
    (stage,) = soft_targets(SHAPE, SHAPE, alpha=alpha, temperature=2.0)
    assert str(stage.objective) == equation
    assert stage.objective.needs == set()
    assert stage.objective.taught == (alpha > 0)
    assert len(stage.objective.losses) == len(stage.objective.weights)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_is_a_share(alpha: float) -> None:
    with names(ConfigError, "--objective.alpha", alpha):
        soft_targets(SHAPE, SHAPE, alpha=alpha)


def test_hard_labels_reads_no_teacher() -> None:
    (stage,) = hard_labels(SHAPE, SHAPE)
    assert str(stage.objective) == "L = 1·hard_labels"
    assert stage.objective.needs == set()
    assert stage.objective.taught is False
