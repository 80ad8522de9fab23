"""What several methods are composed of: layer and prediction losses, the two phases, checks of weights."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from emdistill.errors import ConfigError
from emdistill.losses import (
    AttentionScoreCosts,
    EmbeddingLoss,
    GradientBalance,
    HardLabels,
    HiddenStateCosts,
    LayerLoss,
    Loss,
    Objective,
    SoftTargets,
    StandardisedLogits,
)
from emdistill.losses.layers import LayerCosts
from emdistill.losses.projection import Projection, ProjectionKind
from emdistill.mapping import LayerMapping
from emdistill.mapping.costs import Heads, Scale
from emdistill.states import CLASSES, EncoderShape, Predictions
from emdistill.training.stage import Stage

PREDICTION_TERMS = ("soft_targets", "hard_labels", "standardised_logits")
# Teacher annealing, target = p · label + (1 − p) · the teacher's answer, p being the share of the training done: cross-
# entropies are linear in the target, and of scores the squared difference has the same gradient.
ANNEALING = {"soft_targets": "fade", "hard_labels": "grow"}


def prediction_weights(
    alpha: float,
    factor: float = 1.0,
    predictions: Predictions = CLASSES,
    standardised_logits: float = 0.0,
    *,
    annealing: bool = False,
) -> dict[str, float]:
    """Term name -> weight: α on soft targets, 1 - α on hard labels, times the factor; what weighs nothing is left out.

    Without predictions there are no terms. Annealing gives both the whole weight, for schedules (ANNEALING) to share.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"--objective.alpha is a share between 0 and 1, not {alpha}")
    if annealing and alpha != 1:
        raise ConfigError(
            f"--objective.annealing shares out soft targets and labels by itself: leave out alpha {alpha:g}"
        )
    shares = zip(PREDICTION_TERMS, (alpha, 1.0 if annealing else 1 - alpha, standardised_logits), strict=True)
    return {name: factor * share for name, share in shares if factor * share > 0 and predictions.link is not None}


def prediction_losses(weights: Collection[str], *, temperature: float, predictions: Predictions) -> list[Loss]:
    """The prediction losses whose terms have a weight."""
    link = predictions.link or "softmax"
    losses: list[Loss] = []
    if "soft_targets" in weights:
        losses.append(SoftTargets(temperature=temperature, link=link))
    if "hard_labels" in weights:
        losses.append(HardLabels(link=link))
    if "standardised_logits" in weights:
        losses.append(StandardisedLogits())
    return losses


def layer_losses(
    weights: Collection[str],
    student: EncoderShape,
    teacher: EncoderShape,
    heads: Heads,
    mapping: Callable[[], LayerMapping],
    *,
    layer_mass: float,
    coupled: bool = True,
    scale: Scale = "squared",
    cost_memory: float = 0.0,
) -> list[Loss]:
    """The intermediate losses whose terms have a weight: attention scores and hidden states, then the embeddings.

    mapping   makes one; the two kinds of layer state share it where they are coupled
    Raises ConfigError where attention scores of unequal head counts are to be compared head by head.
    """
    kinds: list[LayerCosts] = []
    if "attention_scores" in weights:
        if heads == "equal" and student.heads != teacher.heads:
            raise ConfigError(
                f"the student has {student.heads} attention heads and the teacher {teacher.heads}: choose "
                f"--objective.heads mean or match, or switch the term off with --objective.attention_scores 0"
            )
        kinds.append(AttentionScoreCosts(heads, scale))
    if "hidden_states" in weights:
        kinds.append(HiddenStateCosts(scale))
    groups = [kinds] if coupled else [[kind] for kind in kinds]
    losses: list[Loss] = [
        LayerLoss(group, mapping(), layer_mass=layer_mass, cost_memory=cost_memory) for group in groups if group
    ]
    return [*losses, EmbeddingLoss(scale)] if "embeddings" in weights else losses


def needed_projection(
    weights: Collection[str], student: EncoderShape, teacher: EncoderShape, kind: ProjectionKind
) -> Projection | None:
    """A projection to the teacher's width, where a term compares states of it."""
    return Projection(student, teacher, kind) if {"hidden_states", "embeddings"} & set(weights) else None


def check_factors(factors: Mapping[str, float]) -> None:
    """Raise ConfigError, naming every option, where a factor is negative or not finite."""
    wrong = [f"--objective.{name} {factor:g}" for name, factor in factors.items() if not 0 <= factor < math.inf]
    if wrong:
        raise ConfigError(f"{', '.join(wrong)}: a weight is 0 (off) or above, and finite")


def two_phases(
    intermediate: Sequence[Loss],
    prediction: Sequence[Loss],
    weights: Mapping[str, float],
    projection: Projection | None,
    *,
    share: float,
    learning_rate: float | None,
    balance: GradientBalance | None = None,
    schedules: Mapping[str, str] | None = None,
) -> list[Stage]:
    """First the intermediate terms, for `share` of the epochs, then the prediction loss alone, for the rest.

    learning_rate   of the first phase; None: the training's own
    balance         between the intermediate terms
    schedules       of the prediction terms
    Raises ConfigError where a phase has no loss, or no epochs.
    """
    if not 0 < share < 1:
        raise ConfigError(f"--objective.intermediate_share {share:g}: both phases need a part of the epochs, so 0 to 1")
    for phase, losses in {"intermediate": intermediate, "prediction": prediction}.items():
        if not losses:
            raise ConfigError(
                f"two phases, but no loss for the {phase} phase: every {phase} term is off; give one a weight above 0"
            )
    first = {name: weight for name, weight in weights.items() if name not in PREDICTION_TERMS}
    last = {name: weight for name, weight in weights.items() if name in PREDICTION_TERMS}
    setting = {
        **({} if learning_rate is None else {"learning_rate": learning_rate}),
        # The task's score says nothing yet: the prediction loss has not been trained.
        "load_best_model_at_end": False,
        "early_stopping_patience": None,
    }
    return [
        Stage("intermediate", Objective(intermediate, first, projection, balance=balance), setting, share),
        Stage("prediction", Objective(prediction, last, schedules=schedules), share=1 - share),
    ]
