"""Matched layers: any kinds of layer losses side by side, as one composes them in TextBrewer's intermediate matches.

    L = Σ_k w_k · Σ_ij F[i, j] · D^k[i, j] + w_embeddings · L_embeddings + α · soft targets + (1 - α) · hard labels

F is a layer mapping, every k-th layer by default, and each taught layer counts fully, so that layers add up. Of no
paper: a frame for the losses of several.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

from emdistill.losses import (
    AttentionDistributionCosts,
    AttentionScoreCosts,
    CosineCosts,
    EmbeddingLoss,
    FirstTokenCosts,
    HiddenStateCosts,
    LayerLoss,
    Loss,
    NeuronSelectivityCosts,
    Objective,
    Projection,
    SolutionFlowCosts,
)
from emdistill.losses.attention_distributions import check_heads
from emdistill.losses.layers import LayerCosts
from emdistill.losses.projection import ProjectionKind
from emdistill.methods._parts import check_factors, grouped, mapping_of, prediction_losses, prediction_weights
from emdistill.states import CLASSES, EncoderShape, Predictions
from emdistill.training.stage import Stage
from emdistill.values import with_choices

PROJECTED = {"hidden_states", "cosine", "first_token", "fsp", "embeddings"}  # they compare states of one width
BY_HEAD = {"attention_scores", "attention_ce", "attention_kl"}


@with_choices
def matched_layers(
    student: EncoderShape,
    teacher: EncoderShape,
    *,
    predictions: Predictions = CLASSES,
    mapping: str = "uniform",
    hidden_states: float = 1.0,
    cosine: float = 0.0,
    first_token: float = 0.0,
    nst: float = 0.0,
    fsp: float = 0.0,
    attention_scores: float = 0.0,
    attention_ce: float = 0.0,
    attention_kl: float = 0.0,
    embeddings: float = 0.0,
    alpha: float = 1.0,
    temperature: float = 1.0,
    projection: ProjectionKind = "shared",
    heads: Literal["equal", "mean"] = "equal",
) -> list[Stage]:
    """Any kinds of layer losses side by side, each with a weight, over one layer mapping.

    Args:
        mapping: which layer learns from which: a mapping's name, or a file of pairs.
        hidden_states: weight of the squared difference of hidden states; 0 switches it off.
        cosine: weight of 1 - cosine of hidden states.
        first_token: weight of the squared difference of the first token's states, at length 1 (Patient KD).
        nst: weight of neuron selectivity transfer, the tokens at which units are active.
        fsp: weight of the flow of the solution procedure, from the embeddings to each layer.
        attention_scores: weight of the squared difference of attention scores before the softmax.
        attention_ce: weight of the cross-entropy of attention distributions.
        attention_kl: weight of the KL divergence of attention distributions.
        embeddings: weight of the squared difference of embeddings.
        alpha: share of soft targets in the prediction loss, the rest is hard labels.
        temperature: temperature of the soft targets.
        projection: one projection shared by all layers and the embeddings, one per_layer, or none.
        heads: unequal head counts in the attention terms are an error (equal), or scores are averaged first (mean).
    """
    kinds: dict[str, Callable[[], LayerCosts]] = {
        "hidden_states": HiddenStateCosts,
        "cosine": CosineCosts,
        "first_token": FirstTokenCosts,
        "nst": NeuronSelectivityCosts,
        "fsp": SolutionFlowCosts,
        "attention_scores": partial(AttentionScoreCosts, heads),
        "attention_ce": partial(AttentionDistributionCosts, "cross-entropy", heads),
        "attention_kl": partial(AttentionDistributionCosts, "kl", heads),
    }
    given = {
        "hidden_states": hidden_states, "cosine": cosine, "first_token": first_token, "nst": nst, "fsp": fsp,
        "attention_scores": attention_scores, "attention_ce": attention_ce, "attention_kl": attention_kl,
        "embeddings": embeddings,
    }  # fmt: skip
    check_factors(given)
    weights = {name: factor for name, factor in given.items() if factor > 0}
    if heads == "equal" and (by_head := sorted(BY_HEAD & weights.keys())):
        check_heads(student.heads, teacher.heads, f"take --objective.heads mean, or leave out {', '.join(by_head)}")
    losses: list[Loss] = []
    if chosen := [kinds[name]() for name in weights if name in kinds]:
        losses += [
            LayerLoss(group, mapping_of(group, mapping, student, teacher), layer_mass=1)
            for group in grouped(chosen, student, teacher)
        ]
    if "embeddings" in weights:
        losses.append(EmbeddingLoss())
    project = Projection(student, teacher, projection) if PROJECTED & weights.keys() else None
    weights |= prediction_weights(alpha, predictions=predictions)
    losses += prediction_losses(weights, temperature=temperature, predictions=predictions)
    return [Stage("joint", Objective(losses, weights, project))]
