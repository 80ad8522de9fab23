"""Cross-view training of a BiLSTM (Clark et al., EMNLP 2018, arXiv 1809.08370).

L = cross-entropy with the labels + views · Σ_v CE(who teaches, view_v) on rows without labels
    + soft_targets · CE(teacher, student), where a teacher teaches
"""

from typing import Literal

from emdistill.errors import ConfigError
from emdistill.losses import CrossView, HardLabels, Loss, Objective, SoftTargets
from emdistill.losses.cross_view import VIEWS
from emdistill.methods._parts import check_factors
from emdistill.states import CLASSES, NOBODY, EncoderShape, Predictions
from emdistill.training.stage import Stage
from emdistill.values import with_choices

TaughtBy = Literal["teacher", "primary"]


@with_choices
def cross_view(
    student: EncoderShape,
    teacher: EncoderShape,
    *,
    predictions: Predictions = CLASSES,
    taught_by: TaughtBy | None = None,
    views: str = ",".join(VIEWS),
    view_weight: float = 1.0,
    views_on: Literal["unlabelled", "all"] = "unlabelled",
    soft_targets: float = 1.0,
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
) -> list[Stage]:
    """Views that see half of a text learn the answers to all of it; for BiLSTM students (Clark et al., 2018).

    Args:
        taught_by: who gives the answers that the views learn: the teacher, or the primary, which is the student itself
            as it answers without dropout; the teacher where there is one.
        views: which of full, forwards, backwards, future and past there are, separated by commas.
        view_weight: weight of the views.
        views_on: the rows that the views learn from: those without labels, or all.
        soft_targets: weight of the teacher's answers to all rows, which the student itself learns; no part where the
            primary teaches.
        temperature: temperature of these soft targets.
        label_smoothing: share of a label that is spread over all classes.
    """
    by_primary = taught_by == "primary" or (taught_by is None and teacher == NOBODY)
    if teacher == NOBODY and not by_primary:
        raise ConfigError(f"--objective.taught_by {taught_by}: the views learn from primary, or from a --teacher")
    if predictions.link != "softmax" or not predictions.of_task:
        raise ConfigError("cross-view trains views on answers that are classes or tags; take --method soft-targets")
    check_factors({"view_weight": view_weight, "soft_targets": soft_targets})
    weights = {"hard_labels": 1.0, "views": view_weight, "soft_targets": 0.0 if by_primary else soft_targets}
    names = [name.strip() for name in views.split(",")]
    losses: list[Loss] = [HardLabels(label_smoothing=label_smoothing)]
    if view_weight > 0:
        losses.append(CrossView(student, predictions.outputs, views=names, labelled=views_on == "all"))
    if weights["soft_targets"] > 0:
        losses.append(SoftTargets(temperature=temperature))
    objective = Objective(losses, {name: weight for name, weight in weights.items() if weight > 0})
    return [Stage("views", objective, self_taught=by_primary)]
