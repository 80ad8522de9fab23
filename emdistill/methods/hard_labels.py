"""Hard labels only: no teacher, the baseline that every distillation has to beat at equal budget.

L = cross-entropy with the gold class, or (z - score)²; on raw text, with the words behind the masks
"""

from emdistill.errors import ConfigError
from emdistill.losses import HardLabels, Objective
from emdistill.states import CLASSES, EncoderShape, Predictions
from emdistill.training.stage import Stage


def hard_labels(student: EncoderShape, teacher: EncoderShape, *, predictions: Predictions = CLASSES) -> list[Stage]:
    """The data's labels only, without a teacher: the baseline at equal budget."""
    if predictions.link is None:
        raise ConfigError(
            "hard-labels on raw text learns the words behind masks, but an encoder without a masked-LM head cannot "
            "say them; take one with such a head"
        )
    return [Stage("labels", Objective([HardLabels(link=predictions.link)], {"hard_labels": 1.0}))]
