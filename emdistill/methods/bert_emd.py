"""BERT-EMD: many-to-many layer mapping with Earth Mover's Distance (Li et al., EMNLP 2020, arXiv 2010.06133).

    L = β · (θ · (L_attention_scores + L_hidden_states) + L_embeddings) + L_prediction
    L_k = Σ_ij F^k[i, j] · D^k[i, j],   F^k = argmin over flows with the layer weights as marginals (exact)
    L_prediction = α · soft targets + (1 - α) · hard labels

Cost attention moves the layer weights after every flow: layers that are cheap to match weigh more.
"""

from typing import Literal

from emdistill.losses import Objective
from emdistill.losses.projection import ProjectionKind
from emdistill.mapping.costs import Heads
from emdistill.methods import _parts as parts
from emdistill.states import CLASSES, EncoderShape, Predictions
from emdistill.training.stage import Stage
from emdistill.values import with_choices


@with_choices
def bert_emd(
    student: EncoderShape,
    teacher: EncoderShape,
    *,
    predictions: Predictions = CLASSES,
    mapping: str = "emd",
    beta: float = 1.0,
    theta: float = 1.0,
    attention_scores: float = 1.0,
    hidden_states: float = 1.0,
    embeddings: float = 1.0,
    prediction: float = 1.0,
    alpha: float = 1.0,
    temperature: float = 1.0,
    projection: ProjectionKind = "shared",
    heads: Heads = "equal",
    cost_attention: Literal["inverse", "softmax", "off"] = "inverse",
    cost_attention_temperature: float = 10.0,
    coupled: bool = True,
    weight_floor: float = 1e-3,
    cost_floor: float = 1e-2,
    smoothing: float = 0.0,
    schedule: Literal["joint", "two-phase"] = "joint",
    intermediate_share: float = 0.6,
    intermediate_learning_rate: float = 5e-5,
) -> list[Stage]:
    """Many-to-many layer mapping with Earth Mover's Distance and cost attention (BERT-EMD, Li et al., 2020).

    One joint stage, or an intermediate stage followed by a prediction stage.

    Args:
        mapping: which layer learns from which: a mapping's name, or a file of pairs.
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
        intermediate_share: share of the epochs that the intermediate phase of two-phase gets.
        intermediate_learning_rate: learning rate of the intermediate phase of two-phase.
    """
    factors = {"attention_scores": attention_scores, "hidden_states": hidden_states, "embeddings": embeddings}
    parts.check_factors({"beta": beta, "theta": theta, **factors, "prediction": prediction})
    by_emd, phases = (mapping == "emd", "--mapping emd"), (schedule == "two-phase", "--objective.schedule two-phase")
    parts.check_read(
        bert_emd,
        {
            "cost_attention": (cost_attention, mapping == "emd" or cost_attention == "off", by_emd[1]),
            "weight_floor": (weight_floor, *by_emd),
            "cost_floor": (cost_floor, *by_emd),
            "smoothing": (smoothing, *by_emd),
            "cost_attention_temperature": (
                cost_attention_temperature, cost_attention == "softmax", "--objective.cost_attention softmax",
            ),
            "intermediate_share": (intermediate_share, *phases),
            "intermediate_learning_rate": (intermediate_learning_rate, *phases),
        },
    )  # fmt: skip
    weights = {
        "attention_scores": beta * theta * attention_scores,
        "hidden_states": beta * theta * hidden_states,
        "embeddings": beta * embeddings,
    }
    weights = {name: weight for name, weight in weights.items() if weight > 0}
    weights |= parts.prediction_weights(alpha, prediction, predictions)
    settings = {
        "cost_attention": cost_attention,
        "temperature": cost_attention_temperature,
        "weight_floor": weight_floor,
        "cost_floor": cost_floor,
        "smoothing": smoothing,
    }
    # However a mapping counts, its flows sum to 1 where every student layer is taught, as a transport plan's do.
    intermediate = parts.layer_losses(
        weights, student, teacher, heads, mapping,
        settings=settings if mapping == "emd" else {}, averaged=True, coupled=coupled,
    )  # fmt: skip
    project = parts.needed_projection(weights, student, teacher, projection)
    final = parts.prediction_losses(weights, temperature=temperature, predictions=predictions)

    if schedule == "joint" or predictions.link is None:
        return [Stage("joint", Objective([*intermediate, *final], weights, project))]
    return parts.two_phases(
        intermediate, final, weights, project, share=intermediate_share, learning_rate=intermediate_learning_rate
    )
