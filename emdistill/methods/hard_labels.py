"""Hard labels only: no teacher, the baseline that every distillation has to beat at equal budget.

L = cross-entropy with the gold class, or (z - score)²
"""

from __future__ import annotations

from emdistill.losses import HardLabels, Objective
from emdistill.states import EncoderShape
from emdistill.training.stage import Stage


def hard_labels(student: EncoderShape, teacher: EncoderShape, *, regression: bool = False) -> list[Stage]:
    """The data's labels only, without a teacher: the baseline at equal budget.

    Args:
        student: the student's shape (any).
        teacher: the teacher's shape; not used.
        regression: whether the task is a score rather than classes.
    """
    return [Stage("labels", Objective([HardLabels(regression=regression)], {"hard_labels": 1.0}))]
