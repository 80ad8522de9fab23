"""TinyBERT: a fixed layer mapping, intermediate layers first, predictions last (Jiao et al., 2020, arXiv 1909.10351).

    L_intermediate = L_embeddings + Σ_m (L_hidden_states(m, g(m)) + L_attention_scores(m, g(m)))
    L_prediction   = T² · CE(softmax(z^teacher / T), softmax(z^student / T))

g maps student layer m to a teacher layer, every k-th by default; each L is a mean squared difference, the student's
states projected to the teacher's width; attention scores are those before the softmax. On raw text (general
distillation) there is the first phase alone.
"""

from emdistill.losses import Objective
from emdistill.losses.projection import ProjectionKind
from emdistill.mapping.costs import Heads
from emdistill.methods import _parts as parts
from emdistill.states import CLASSES, EncoderShape, Predictions
from emdistill.training.stage import Stage
from emdistill.values import with_choices


@with_choices
def tinybert(
    student: EncoderShape,
    teacher: EncoderShape,
    *,
    predictions: Predictions = CLASSES,
    mapping: str = "uniform",
    attention_scores: float = 1.0,
    hidden_states: float = 1.0,
    embeddings: float = 1.0,
    alpha: float = 1.0,
    temperature: float = 1.0,
    projection: ProjectionKind = "shared",
    heads: Heads = "equal",
    intermediate_share: float = 0.6,
    intermediate_learning_rate: float = 1e-4,
) -> list[Stage]:
    """Every k-th teacher layer, intermediate layers first, predictions last (TinyBERT, Jiao et al., 2020).

    Args:
        mapping: which layer learns from which: a mapping's name, or a file of pairs.
        attention_scores: factor on the attention-score term; 0 switches it off.
        hidden_states: factor on the hidden-state term; 0 switches it off.
        embeddings: factor on the embedding term; 0 switches it off.
        alpha: share of soft targets in the prediction loss, the rest is hard labels.
        temperature: temperature of the soft targets.
        projection: one projection shared by all layers and the embeddings, one per_layer, or none.
        heads: unequal head counts: an error (equal), averaged (mean) or matched by a small transport (match).
        intermediate_share: share of the epochs that the intermediate phase gets.
        intermediate_learning_rate: learning rate of the intermediate phase.
    """
    factors = {"attention_scores": attention_scores, "hidden_states": hidden_states, "embeddings": embeddings}
    parts.check_factors(factors)
    weights = {name: factor for name, factor in factors.items() if factor > 0}
    intermediate = parts.layer_losses(weights, student, teacher, heads, mapping)
    project = parts.needed_projection(weights, student, teacher, projection)

    if not predictions.of_task:
        return [Stage("general", Objective(intermediate, weights, project))]
    weights |= parts.prediction_weights(alpha)
    final = parts.prediction_losses(weights, temperature=temperature, predictions=predictions)
    return parts.two_phases(
        intermediate, final, weights, project, share=intermediate_share, learning_rate=intermediate_learning_rate
    )
