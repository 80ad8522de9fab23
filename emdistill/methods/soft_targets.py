"""Soft targets only: the student imitates the teacher's predictions (Hinton et al., 2015, arXiv 1503.02531).

L = α · T² · CE(softmax(z^teacher / T), softmax(z^student / T)) + (1 - α) · hard labels
"""

from __future__ import annotations

from emdistill.errors import ConfigError
from emdistill.losses import HardLabels, Loss, Objective, SoftTargets
from emdistill.states import EncoderShape
from emdistill.training.stage import Stage


def soft_targets(
    student: EncoderShape,
    teacher: EncoderShape,
    *,
    regression: bool = False,
    alpha: float = 1.0,
    temperature: float = 1.0,
) -> list[Stage]:
    """One stage on the teacher's predictions.

    Args:
        student: the student's shape (any).
        teacher: the teacher's shape (any).
        regression: whether the task is a score rather than classes.
        alpha: share of soft targets, the rest is hard labels.
        temperature: temperature of the soft targets.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"--objective.alpha is a share between 0 and 1, not {alpha}")
    losses: list[Loss] = []
    if alpha > 0:
        losses.append(SoftTargets(temperature=temperature, regression=regression))
    if alpha < 1:
        losses.append(HardLabels(regression=regression))
    weights = {"soft_targets": alpha, "hard_labels": 1 - alpha}
    return [Stage("prediction", Objective(losses, {name: weight for name, weight in weights.items() if weight > 0}))]
