"""MiniLM: the self-attention relations of one teacher layer (MiniLMv2, Wang et al., 2021, arXiv 2012.15828).

    L = β · Σ over queries, keys, values of KL(R^teacher || R^student) + L_prediction
    R = softmax(x xᵀ / sqrt(d_r)) over the tokens, for each of A_r relation heads of width d_r

x are a layer's queries, keys or values, cut into relation heads whatever the models' own heads and widths are: no
projection is needed. The student's last layer learns from one teacher layer. On raw text, as in the paper, the
relations are all there is; on a task the prediction loss is added.
"""

import math

from emdistill.errors import ConfigError, LayerCountError
from emdistill.losses import LayerLoss, Loss, Objective, RelationCosts
from emdistill.mapping import FixedMapping, LayerMapping
from emdistill.methods._parts import check_factors, mapping_of, prediction_losses, prediction_weights
from emdistill.states import CLASSES, EncoderShape, Predictions
from emdistill.training.stage import Stage

USUAL_HEADS = 12


def minilm(
    student: EncoderShape,
    teacher: EncoderShape,
    *,
    predictions: Predictions = CLASSES,
    mapping: str = "final",
    beta: float = 1.0,
    relation_heads: int | None = None,
    teacher_layer: int | None = None,
    alpha: float = 1.0,
    temperature: float = 1.0,
) -> list[Stage]:
    """Query, key and value relations of one teacher layer, whatever the head counts (MiniLM, Wang et al., 2021).

    Args:
        mapping: which layer learns from which: a mapping's name, or a file of pairs.
        beta: weight of the relations; 0 switches them off.
        relation_heads: into how many heads queries, keys and values are cut, which divides both widths; by default 12
            where that does, else the greatest common divisor of the head counts.
        teacher_layer: the teacher layer that teaches the student's last one, counted from 0; by default the last.
        alpha: share of soft targets in the prediction loss, the rest is hard labels.
        temperature: temperature of the soft targets.
    """
    check_factors({"beta": beta})
    weights = {"relations": beta} if beta > 0 else {}
    losses: list[Loss] = []
    if weights:
        if relation_heads is None:
            widths = [shape.attention_width or shape.width for shape in (student, teacher)]
            usual = math.gcd(*widths) % USUAL_HEADS == 0
            relation_heads = USUAL_HEADS if usual else math.gcd(student.heads, teacher.heads)
        relations = RelationCosts(relation_heads)
        layers = _layers(relations, student, teacher, mapping, teacher_layer)
        losses.append(LayerLoss([relations], layers, layer_mass=1))
    if predictions.of_task:
        weights |= prediction_weights(alpha)
        losses += prediction_losses(weights, temperature=temperature, predictions=predictions)
    return [Stage("joint", Objective(losses, weights))]


def _layers(
    relations: RelationCosts, student: EncoderShape, teacher: EncoderShape, mapping: str, teacher_layer: int | None
) -> LayerMapping:
    if teacher_layer is None:
        return mapping_of([relations], mapping, student, teacher)
    if mapping != "final":
        raise ConfigError("--objective.teacher_layer and --mapping exclude each other: both say which layer teaches")
    if not 0 <= teacher_layer < teacher.layers:
        raise LayerCountError(
            f"--objective.teacher_layer {teacher_layer}: this teacher has {teacher.layers} (0..{teacher.layers - 1})"
        )
    last = max(student.attending_layers, default=student.layers - 1)
    return FixedMapping.of_pairs([(last, teacher_layer)], student.layers, teacher.layers)
