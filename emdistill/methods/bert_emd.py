"""BERT-EMD: many-to-many layer mapping with Earth Mover's Distance (Li et al., EMNLP 2020, arXiv 2010.06133).

    L = β · (θ · (L_attention_scores + L_hidden_states) + L_embeddings) + L_prediction
    L_k = Σ_ij F^k[i, j] · D^k[i, j],   F^k = argmin over flows with the layer weights as marginals (exact)
    L_prediction = α · soft targets + (1 - α) · hard labels

Cost attention moves the layer weights after every flow: layers that are cheap to match weigh more.
"""

from __future__ import annotations

from typing import Literal

from emdistill.errors import ConfigError
from emdistill.losses import (
    AttentionScoreCosts,
    EmbeddingLoss,
    HardLabels,
    HiddenStateCosts,
    LayerLoss,
    Loss,
    Objective,
    Projection,
    SoftTargets,
)
from emdistill.losses.layers import LayerCosts
from emdistill.losses.projection import ProjectionKind
from emdistill.mapping import EmdMapping
from emdistill.states import EncoderShape
from emdistill.training.stage import Stage


def bert_emd(
    student: EncoderShape,
    teacher: EncoderShape,
    *,
    regression: bool = False,
    beta: float = 1.0,
    theta: float = 1.0,
    attention_scores: float = 1.0,
    hidden_states: float = 1.0,
    embeddings: float = 1.0,
    prediction: float = 1.0,
    alpha: float = 1.0,
    temperature: float = 1.0,
    projection: ProjectionKind = "shared",
    heads: Literal["equal", "mean", "match"] = "equal",
    cost_attention: Literal["inverse", "softmax", "off"] = "inverse",
    cost_attention_temperature: float = 10.0,
    coupled: bool = True,
    weight_floor: float = 1e-3,
    cost_floor: float = 1e-2,
    smoothing: float = 0.0,
    schedule: Literal["joint", "two-phase"] = "joint",
    intermediate_epochs: float = 5.0,
    intermediate_learning_rate: float = 5e-5,
) -> list[Stage]:
    """BERT-EMD as one joint stage, or as an intermediate stage followed by a prediction stage.

    Args:
        student: the student's layers, width and heads.
        teacher: the teacher's layers, width and heads.
        regression: whether the task is a score rather than classes.
        beta: weight of all intermediate terms (β).
        theta: weight of the two layer terms within them (θ).
        attention_scores: further factor on the attention-score term; 0 switches it off.
        hidden_states: further factor on the hidden-state term; 0 switches it off.
        embeddings: further factor on the embedding term; 0 switches it off.
        prediction: factor on the prediction loss; 0 switches it off.
        alpha: share of soft targets in the prediction loss, the rest is hard labels.
        temperature: temperature of the soft targets.
        projection: one projection shared by all layers and the embeddings, one per_layer, or none.
        heads: unequal head counts: an error (equal), averaged (mean) or matched by a small transport (match).
        cost_attention: how the layer weights follow the unit costs: inverse, softmax, or off.
        cost_attention_temperature: τ of softmax cost attention.
        coupled: attention scores and hidden states share one set of layer weights.
        weight_floor: smallest layer weight.
        cost_floor: smallest unit cost, relative to the mean.
        smoothing: share of the old layer weights kept at each update, 0 to 1.
        schedule: joint, or two-phase (intermediate terms first, then the prediction loss alone).
        intermediate_epochs: epochs of the intermediate phase of two-phase.
        intermediate_learning_rate: learning rate of the intermediate phase of two-phase.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"--objective.alpha is a share between 0 and 1, not {alpha}")

    def mapping() -> EmdMapping:
        return EmdMapping(
            student.layers,
            teacher.layers,
            cost_attention=cost_attention,
            temperature=cost_attention_temperature,
            weight_floor=weight_floor,
            cost_floor=cost_floor,
            smoothing=smoothing,
        )

    weights = {
        "attention_scores": beta * theta * attention_scores,
        "hidden_states": beta * theta * hidden_states,
        "embeddings": beta * embeddings,
        "soft_targets": prediction * alpha,
        "hard_labels": prediction * (1 - alpha),
    }
    negative = [name for name, weight in weights.items() if weight < 0]
    if negative:
        raise ConfigError(f"the weight of {', '.join(negative)} is negative; weights are 0 (off) or above")
    active = {name: weight for name, weight in weights.items() if weight > 0}

    kinds: list[LayerCosts] = []
    if "attention_scores" in active:
        if heads == "equal" and student.heads != teacher.heads:
            raise ConfigError(
                f"the student has {student.heads} attention heads and the teacher {teacher.heads}: choose "
                f"--objective.heads mean or match, or switch the term off with --objective.attention_scores 0"
            )
        kinds.append(AttentionScoreCosts(heads))
    if "hidden_states" in active:
        kinds.append(HiddenStateCosts())
    groups = [kinds] if coupled else [[kind] for kind in kinds]
    intermediate: list[Loss] = [LayerLoss(group, mapping()) for group in groups if group]
    if "embeddings" in active:
        intermediate.append(EmbeddingLoss())
    projected = {"hidden_states", "embeddings"} & active.keys()
    project = Projection(student, teacher, projection) if projected else None

    final: list[Loss] = []
    if "soft_targets" in active:
        final.append(SoftTargets(temperature=temperature, regression=regression))
    if "hard_labels" in active:
        final.append(HardLabels(regression=regression))

    if schedule == "joint":
        return [Stage("joint", Objective([*intermediate, *final], active, project))]
    ends = {"soft_targets", "hard_labels"}
    first = Objective(intermediate, {name: w for name, w in active.items() if name not in ends}, project)
    second = Objective(final, {name: w for name, w in active.items() if name in ends})
    setting = {"num_train_epochs": intermediate_epochs, "learning_rate": intermediate_learning_rate}
    return [Stage("intermediate", first, setting), Stage("prediction", second)]
