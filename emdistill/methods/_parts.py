"""What several methods are composed of: layer and prediction losses, the two phases, checks of weights."""

import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

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
from emdistill.losses.attention_distributions import check_heads
from emdistill.losses.layers import LayerCosts
from emdistill.losses.projection import Projection, ProjectionKind
from emdistill.mapping import MAPPINGS, FixedMapping, LayerMapping, MappingAmong, make_mapping
from emdistill.mapping.costs import Heads, Scale
from emdistill.states import CLASSES, EncoderShape, Predictions
from emdistill.training.stage import Stage

OF_ATTENTION = frozenset({"attention", "queries", "keys", "values"})
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
    mapping: str,
    *,
    settings: Mapping[str, Any] = MappingProxyType({}),
    averaged: bool = False,
    coupled: bool = True,
    scale: Scale = "squared",
    cost_memory: float = 0.0,
) -> list[Loss]:
    """The intermediate losses whose terms have a weight: attention scores and hidden states, then the embeddings.

    mapping   a mapping's name, or a file of pairs; the two kinds of layer state share it where they are coupled and all
              layers have attention
    settings  of the mapping
    averaged  over the student's layers that are compared; else these are added up
    Raises ConfigError where attention scores of unequal head counts are to be compared head by head, or one has none.
    """
    kinds: list[LayerCosts] = []
    if "attention_scores" in weights:
        if heads == "equal":
            instead = "take --objective.heads mean or match, or leave them out: --objective.attention_scores 0"
            check_heads(student.heads, teacher.heads, instead)
        kinds.append(AttentionScoreCosts(heads, scale))
    if "hidden_states" in weights:
        kinds.append(HiddenStateCosts(scale))
    groups = grouped(kinds, student, teacher) if coupled else [[kind] for kind in kinds]
    losses: list[Loss] = []
    for group in groups:
        of_group = mapping_of(group, mapping, student, teacher, settings)
        compared = len(of_group.rows) if isinstance(of_group, MappingAmong) else student.layers
        mass = 1 / compared if averaged else 1
        losses.append(LayerLoss(group, of_group, layer_mass=mass, cost_memory=cost_memory))
    return [*losses, EmbeddingLoss(scale)] if "embeddings" in weights else losses


def grouped(kinds: Sequence[LayerCosts], student: EncoderShape, teacher: EncoderShape) -> list[list[LayerCosts]]:
    """The kinds of layer state that share a mapping: all; but those of attention apart where some layers have none."""
    if student.attends_everywhere and teacher.attends_everywhere:
        return [[*kinds]] if kinds else []
    of_attention = [kind for kind in kinds if kind.needs & OF_ATTENTION]
    others = [kind for kind in kinds if not kind.needs & OF_ATTENTION]
    return [group for group in (of_attention, others) if group]


def mapping_of(
    kinds: Sequence[LayerCosts],
    mapping: str,
    student: EncoderShape,
    teacher: EncoderShape,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> LayerMapping:
    """The mapping for these kinds of layer state, of attention among the layers that attend, counted on their own.

    Of a file, whose pairs count all layers, those pairs stay whose layers both attend. Arguments as of `layer_losses`.
    Raises ConfigError where attention is compared and one side has none.
    """

    def make(student_layers: int, teacher_layers: int) -> LayerMapping:
        return make_mapping(mapping, student_layers, teacher_layers, **settings)

    attention = any(kind.needs & OF_ATTENTION for kind in kinds)
    if not attention or (student.attends_everywhere and teacher.attends_everywhere):
        return make(student.layers, teacher.layers)
    rows, columns = student.attending_layers, teacher.attending_layers
    if not (rows and columns):
        raise ConfigError(
            f"the {'teacher' if rows else 'student'} has no layer with attention; switch its terms off, such as "
            "--objective.attention_scores 0, or take a method without them: --method soft-targets"
        )
    if mapping in MAPPINGS:
        among = make(len(rows), len(columns))
    else:
        among = FixedMapping(make(student.layers, teacher.layers).get_buffer("fixed_flow")[[*rows]][:, [*columns]])
    return MappingAmong(among, rows, columns, student.layers, teacher.layers)


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


def check_read(method: Callable[..., object], settings: Mapping[str, tuple[object, bool, str]]) -> None:
    """Raise ConfigError, naming them, for settings that are not the method's defaults where nothing reads them.

    settings   name -> value, whether it is read, the options that would have it read
    """
    parameters = inspect.signature(method).parameters
    for name, (value, read, options) in settings.items():
        if not read and value != parameters[name].default:
            raise ConfigError(f"--objective.{name} {value} is read with {options} alone; add that, or leave it out")


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
