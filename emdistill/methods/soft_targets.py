"""Soft targets only: the student imitates the teacher's predictions (Hinton et al., 2015, arXiv 1503.02531).

    L = α · T² · CE(softmax(z^teacher / T), softmax(z^student / T)) + (1 - α) · hard labels

With annealing α = 1 − p, p being the share of the training done (Clark et al., BAM!, ACL 2019, arXiv 1907.04829).
"""

from emdistill.errors import ConfigError
from emdistill.losses import Objective
from emdistill.methods._parts import ANNEALING, prediction_losses, prediction_weights
from emdistill.states import CLASSES, EncoderShape, Predictions
from emdistill.training.stage import Stage


def soft_targets(
    student: EncoderShape,
    teacher: EncoderShape,
    *,
    predictions: Predictions = CLASSES,
    alpha: float = 1.0,
    temperature: float = 1.0,
    annealing: bool = False,
) -> list[Stage]:
    """The teacher's predictions only (Hinton et al., 2015).

    Args:
        alpha: share of soft targets, the rest is hard labels.
        temperature: temperature of the soft targets.
        annealing: begin with the teacher's answers alone, and end with the labels alone.
    """
    if predictions.link is None:
        raise ConfigError(
            "soft-targets learns from predictions, but teacher or student has no masked-LM head to make them with; "
            "take a method that learns from layers (tinybert, minilm, bert-emd), or models with such a head"
        )
    weights = prediction_weights(alpha, annealing=annealing)
    losses = prediction_losses(weights, temperature=temperature, predictions=predictions)
    return [Stage("prediction", Objective(losses, weights, schedules=ANNEALING if annealing else None))]
