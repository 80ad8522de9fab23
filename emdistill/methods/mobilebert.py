"""MobileBERT: feature maps and attention layer by layer, then answers (Sun et al., ACL 2020, arXiv 2004.02984).

    L_transfer(l) = L_feature_maps(l) + L_attention(l)
    L_feature_maps(l) = MSE(LN(H_l^student), LN(H_g(l)^teacher)),     LN without weights
    L_attention(l)    = mean over heads and tokens of KL(P_g(l)^teacher ‖ P_l^student)
    L_prediction      = α · soft targets + (1 − α) · hard labels

progressive   L_transfer(l) alone, layer after layer, those below l at a tenth of the learning rate; then L_prediction
joint         Σ_l L_transfer(l), then L_prediction
auxiliary     Σ_l L_transfer(l) + L_prediction

g(l) = l for equal depths. Widths that differ meet through projections, which the paper, whose teacher has the
student's width, does not need. Without predictions the transfer is all there is.
"""

from dataclasses import replace
from typing import Literal

import torch

from emdistill.errors import ConfigError
from emdistill.losses import AttentionDistributionCosts, FeatureMapCosts, LayerLoss, Objective, Projection
from emdistill.losses.attention_distributions import check_heads
from emdistill.losses.feature_maps import PARTS
from emdistill.losses.layers import LayerCosts
from emdistill.losses.projection import ProjectionKind
from emdistill.mapping import FixedMapping
from emdistill.methods import _parts as parts
from emdistill.states import CLASSES, EncoderShape, Predictions
from emdistill.training.stage import Stage
from emdistill.values import with_choices


@with_choices
def mobilebert(
    student: EncoderShape,
    teacher: EncoderShape,
    *,
    predictions: Predictions = CLASSES,
    mapping: str = "uniform",
    transfer: Literal["progressive", "joint", "auxiliary"] = "progressive",
    intermediate_share: float = 0.5,
    feature_maps: float = 1.0,
    feature_means: float = 0.0,
    feature_variances: float = 0.0,
    attention: float = 1.0,
    heads: Literal["equal", "mean"] | None = None,
    projection: ProjectionKind = "shared",
    alpha: float = 0.5,
    temperature: float = 1.0,
) -> list[Stage]:
    """Feature maps and attention layer by layer, then answers (MobileBERT, Sun et al., 2020).

    Args:
        mapping: which layer learns from which: a mapping's name, or a file of pairs; progressive takes a fixed one.
        transfer: one layer after another (progressive), all of them at once (joint), or together with the answers
            (auxiliary).
        intermediate_share: share of the epochs before the answers; auxiliary has none.
        feature_maps: weight of the squared difference of hidden states without mean and scale; 0 switches it off.
        feature_means: weight of the squared difference of their means over the width.
        feature_variances: weight of the absolute difference of their variances over the width.
        attention: weight of the KL divergence of attention distributions; 0 switches it off.
        heads: attention head by head (equal), or scores averaged over heads (mean); by default equal where the head
            counts are, else mean.
        projection: of feature maps of unequal widths, one shared by all layers, or one per_layer; progressive has one
            per layer in any case.
        alpha: share of soft targets in the prediction loss, the rest is hard labels.
        temperature: temperature of the soft targets.
    """
    features = {"maps": feature_maps, "means": feature_means, "variances": feature_variances}
    factors = {f"feature_{part}": features[part] for part in PARTS} | {"attention": attention}
    parts.check_factors(factors)
    kinds: list[LayerCosts] = [FeatureMapCosts(part) for part in PARTS if features[part] > 0]
    weights = {kind.name: factors[kind.name] for kind in kinds}
    project = Projection(student, teacher, projection) if kinds and student.width != teacher.width else None
    if attention > 0:
        heads = heads or ("equal" if student.heads == teacher.heads else "mean")
        if heads == "equal":
            check_heads(student.heads, teacher.heads, "take --objective.heads mean")
        kinds.append(AttentionDistributionCosts("kl", heads))
        weights["attention_kl"] = attention
    layers = [
        LayerLoss(group, parts.mapping_of(group, mapping, student, teacher), layer_mass=1)
        for group in parts.grouped(kinds, student, teacher)
    ]
    weights |= parts.prediction_weights(alpha, predictions=predictions)
    final = parts.prediction_losses(weights, temperature=temperature, predictions=predictions)
    if transfer == "auxiliary":
        return [Stage("joint", Objective([*layers, *final], weights, project))]
    if final:
        stages = parts.two_phases(layers, final, weights, project, share=intermediate_share, learning_rate=None)
    else:
        stages = [Stage("intermediate", Objective(layers, weights, project))]
    if transfer == "progressive":
        stages[:1] = _layer_by_layer(stages[0], student, teacher, mapping)
    return stages


def _layer_by_layer(every: Stage, student: EncoderShape, teacher: EncoderShape, mapping: str) -> list[Stage]:
    """The stage of all layers as one stage for each student layer that is taught; raises ConfigError for flows that
    costs decide."""
    objective = every.objective
    flows = {}
    for loss in objective.layer_losses():
        if not isinstance(getattr(loss.mapping, "mapping", loss.mapping), FixedMapping):
            raise ConfigError(
                f"--mapping {mapping} maps all layers at once, and --objective.transfer progressive teaches one after "
                "another; take a fixed mapping, such as uniform, or --objective.transfer joint"
            )
        flows[loss] = loss.mapping(torch.zeros(student.layers, teacher.layers))
    stages = []
    for layer in range(student.layers):
        losses = [
            LayerLoss(loss.costs, FixedMapping(flow * (torch.arange(len(flow)) == layer)[:, None]), layer_mass=1)
            for loss, flow in flows.items()
            if flow[layer].any()
        ]
        weights = {kind.name: objective.weights[kind.name] for loss in losses for kind in loss.costs}
        if losses:
            project = None if objective.projection is None else Projection(student, teacher, "shared")
            stages.append(
                replace(every, name=f"layer-{layer}", objective=Objective(losses, weights, project), slow_below=layer)
            )
    return [replace(stage, share=every.share / len(stages)) for stage in stages]
