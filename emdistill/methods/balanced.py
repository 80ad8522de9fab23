"""Balanced: layers and answers together, in balance by measured gradients instead of by weights tuned per task.

    L = s(p) · r · Σ_k w_k · L_k + α · soft targets + (1 - α) · hard labels + σ · standardised logits
    L_k = Σ_ij F[i, j] · D^k[i, j] / Var^k[j],   k = attention scores, hidden states;   embeddings likewise
    r = layer_ratio · ‖∇ predictions‖ / ‖∇ Σ_k w_k L_k‖ over the student's weights,   Σ_k w_k = layer_ratio

With annealing α = 1 − p, p being the share of the training done (Clark et al., BAM!, ACL 2019, arXiv 1907.04829).
A layer's cost is the share of the teacher's variance that the student leaves unexplained; its weight follows from how
hard the predictions pull. Of no paper: parts of several (docs/methods/balanced.md).
"""

from typing import Any, Literal

from emdistill.losses import GradientBalance, Objective
from emdistill.losses.projection import ProjectionKind
from emdistill.mapping.costs import Heads, Scale
from emdistill.mapping.emd import CostAttention
from emdistill.methods import _parts as parts
from emdistill.states import CLASSES, EncoderShape, Predictions
from emdistill.training.stage import Stage
from emdistill.values import with_choices


@with_choices
def balanced(
    student: EncoderShape,
    teacher: EncoderShape,
    *,
    predictions: Predictions = CLASSES,
    mapping: str = "uniform",
    costs: Scale = "relative",
    weighting: Literal["gradient-norms", "each-norm", "fixed"] = "gradient-norms",
    layer_ratio: float = 1.0,
    norm_steps: int = 10,
    norm_smoothing: float = 0.8,
    schedule: Literal["joint", "two-phase", "fade"] = "joint",
    intermediate_share: float = 0.6,
    intermediate_learning_rate: float | None = None,
    attention_scores: float | None = None,
    hidden_states: float = 1.0,
    embeddings: float = 1.0,
    alpha: float = 1.0,
    temperature: float = 1.0,
    standardised_logits: float = 0.0,
    annealing: bool = False,
    projection: ProjectionKind = "shared",
    heads: Heads | None = None,
    cost_memory: float = 0.0,
    cost_attention: CostAttention = "off",
    smoothing: float = 0.0,
    penalty: float = 1.0,
) -> list[Stage]:
    """Layers and answers in balance by their gradients, nothing tuned per task.

    One joint stage, or an intermediate stage followed by a prediction stage.

    Args:
        mapping: which layer learns from which: a mapping's name, or a file of pairs.
        costs: layer costs as the share of the teacher's variance left unexplained (relative), or squared differences.
        weighting: layer terms weighted by the measured norm of their gradient together (gradient-norms), of each one's
            gradient (each-norm), or fixed.
        layer_ratio: how hard the layer terms pull, as a multiple of the predictions' pull, or their weight (fixed); 0
            switches them off.
        norm_steps: gradient norms are measured until there are ten measurements, then at every so many steps.
        norm_smoothing: share of the old gradient norms kept at each measurement, 0 to 1.
        schedule: joint; two-phase (layers first, then the predictions alone); or fade (the layers' weight falls to 0).
        intermediate_share: share of the epochs that the first phase of two-phase gets.
        intermediate_learning_rate: learning rate of the first phase of two-phase; by default the training's.
        attention_scores: share of the attention-score term among the layer terms; 0 switches it off. By default 1, and
            0 where a bias by position is part of one side's scores alone (MPNet teaches BERT).
        hidden_states: share of the hidden-state term among the layer terms; 0 switches it off.
        embeddings: share of the embedding term among the layer terms; 0 switches it off.
        alpha: share of soft targets in the prediction loss, the rest is hard labels.
        temperature: temperature of the soft targets.
        standardised_logits: weight of the squared difference of standardised logits; 0 switches it off.
        annealing: begin with the teacher's answers alone, and end with the labels alone; layers are not annealed.
        projection: one projection shared by all layers and the embeddings, one per_layer, or none.
        heads: attention scores head by head (equal), averaged over heads (mean) or matched by a small transport
            (match); by default equal where the head counts are, else mean.
        cost_memory: share of the old costs kept at each batch in the costs that a flow comes from, 0 to 1.
        cost_attention: how the mapping emd's layer weights follow the unit costs: inverse, softmax, reverse, or off.
        smoothing: share of the mapping emd's old layer weights kept at each update, 0 to 1.
        penalty: price of leaving a teacher layer untaught under the mapping unbalanced, as a share of the mean cost: 0
            gives each student layer its nearest teacher layer.
    """
    if attention_scores is None:
        attention_scores = float(student.biased == teacher.biased)
    factors = {"attention_scores": attention_scores, "hidden_states": hidden_states, "embeddings": embeddings}
    parts.check_factors({**factors, "layer_ratio": layer_ratio, "standardised_logits": standardised_logits})
    by_emd, phases = (mapping == "emd", "--mapping emd"), (schedule == "two-phase", "--objective.schedule two-phase")
    by_norms = (weighting != "fixed", "--objective.weighting gradient-norms or each-norm")
    parts.check_read(
        balanced,
        {
            "norm_steps": (norm_steps, *by_norms),
            "norm_smoothing": (norm_smoothing, *by_norms),
            "cost_attention": (cost_attention, *by_emd),
            "smoothing": (smoothing, *by_emd),
            "penalty": (penalty, mapping == "unbalanced", "--mapping unbalanced"),
            "intermediate_share": (intermediate_share, *phases),
            "intermediate_learning_rate": (intermediate_learning_rate, *phases),
        },
    )
    together = sum(factors.values())
    layer_weights = {name: layer_ratio * factor / together for name, factor in factors.items() if layer_ratio * factor}
    prediction_weights = parts.prediction_weights(
        alpha, predictions=predictions, standardised_logits=standardised_logits, annealing=annealing
    )
    settings: dict[str, dict[str, Any]] = {
        "emd": {"cost_attention": cost_attention, "smoothing": smoothing},
        "unbalanced": {"penalty": penalty},
    }
    intermediate = parts.layer_losses(
        layer_weights,
        student,
        teacher,
        heads or ("equal" if student.heads == teacher.heads else "mean"),
        mapping,
        settings=settings.get(mapping, {}),
        averaged=True,
        scale=costs,
        cost_memory=cost_memory,
    )
    project = parts.needed_projection(layer_weights, student, teacher, projection)
    final = parts.prediction_losses(prediction_weights, temperature=temperature, predictions=predictions)
    weights = layer_weights | prediction_weights
    annealed = parts.ANNEALING if annealing and final else {}
    two_phases = schedule == "two-phase" and bool(final)
    balance = None
    if layer_weights and (weighting == "each-norm" or (weighting == "gradient-norms" and final and not two_phases)):
        balance = GradientBalance(
            layer_weights, each=weighting == "each-norm", norm_steps=norm_steps, norm_smoothing=norm_smoothing
        )
    if two_phases:
        return parts.two_phases(
            intermediate,
            final,
            weights,
            project,
            share=intermediate_share,
            learning_rate=intermediate_learning_rate,
            balance=balance,
            schedules=annealed,
        )
    schedules = annealed | (dict.fromkeys(layer_weights, "fade") if schedule == "fade" and final else {})
    return [Stage("joint", Objective([*intermediate, *final], weights, project, balance=balance, schedules=schedules))]
