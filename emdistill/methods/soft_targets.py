"""Soft targets only: the student imitates the teacher's predictions (Hinton et al., 2015, arXiv 1503.02531).

L = α · T² · CE(softmax(z^teacher / T), softmax(z^student / T)) + (1 - α) · hard labels
"""

from __future__ import annotations

from collections.abc import Collection

from emdistill.errors import ConfigError
from emdistill.losses import HardLabels, Loss, Objective, SoftTargets
from emdistill.states import EncoderShape
from emdistill.training.stage import Stage

PREDICTION_TERMS = ("soft_targets", "hard_labels")


def soft_targets(
    student: EncoderShape,
    teacher: EncoderShape,
    *,
    regression: bool = False,
    alpha: float = 1.0,
    temperature: float = 1.0,
) -> list[Stage]:
    """The teacher's predictions only (Hinton et al., 2015).

    Args:
        student: the student's shape (any).
        teacher: the teacher's shape (any).
        regression: whether the task is a score rather than classes.
        alpha: share of soft targets, the rest is hard labels.
        temperature: temperature of the soft targets.
    """
    weights = prediction_weights(alpha)
    losses = prediction_losses(weights, temperature=temperature, regression=regression)
    return [Stage("prediction", Objective(losses, weights))]


def prediction_weights(alpha: float) -> dict[str, float]:
    """Term name -> weight: α on soft targets, 1 - α on hard labels; what weighs nothing is left out."""
    if not 0 <= alpha <= 1:
        raise ConfigError(f"--objective.alpha is a share between 0 and 1, not {alpha}")
    return {name: share for name, share in zip(PREDICTION_TERMS, (alpha, 1 - alpha), strict=True) if share > 0}


def prediction_losses(weights: Collection[str], *, temperature: float, regression: bool) -> list[Loss]:
    """The prediction losses whose terms have a weight."""
    losses: list[Loss] = []
    if "soft_targets" in weights:
        losses.append(SoftTargets(temperature=temperature, regression=regression))
    if "hard_labels" in weights:
        losses.append(HardLabels(regression=regression))
    return losses
