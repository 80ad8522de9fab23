"""MiniLM, first version: attention distributions and value relations of the last layers (Wang et al., NeurIPS 2020).

    L = β · (L_attention_kl + L_relations) + L_prediction
    L_attention_kl = 1/(h |x|) Σ_heads Σ_tokens KL(P^teacher ‖ P^student),   P = softmax(q kᵀ / sqrt(d_h))
    L_relations    = 1/(h |x|) Σ_heads Σ_tokens KL(R^teacher ‖ R^student),   R = softmax(v vᵀ / sqrt(d_h))

of the last layer of each, h heads of width d_h. Attention is compared head by head, so that both need as many heads;
widths are free. On raw text, as in the paper, the layers are all there is; on a task the prediction loss is added.
"""

import math

from emdistill.losses import AttentionDistributionCosts, LayerLoss, Loss, Objective, RelationCosts
from emdistill.losses.attention_distributions import check_heads
from emdistill.losses.layers import LayerCosts
from emdistill.methods._parts import check_factors, mapping_of, prediction_losses, prediction_weights
from emdistill.states import CLASSES, EncoderShape, Predictions
from emdistill.training.stage import Stage


def minilm_v1(
    student: EncoderShape,
    teacher: EncoderShape,
    *,
    predictions: Predictions = CLASSES,
    mapping: str = "final",
    beta: float = 1.0,
    attention: float = 1.0,
    values: float = 1.0,
    relation_heads: int | None = None,
    alpha: float = 1.0,
    temperature: float = 1.0,
) -> list[Stage]:
    """Attention and value relations of the last layer, for as many heads (MiniLM, first version, Wang et al., 2020).

    Args:
        mapping: which layer learns from which: a mapping's name, or a file of pairs.
        beta: weight of attention and value relations together; 0 switches both off.
        attention: factor on the attention distributions; 0 switches them off, which unequal head counts need.
        values: factor on the value relations; 0 switches them off.
        relation_heads: into how many heads values are cut, which divides both widths; by default the attention heads,
            or for unequal head counts their greatest common divisor.
        alpha: share of soft targets in the prediction loss, the rest is hard labels.
        temperature: temperature of the soft targets.
    """
    check_factors({"beta": beta, "attention": attention, "values": values})
    factors = {"attention_kl": beta * attention, "relations": beta * values}
    weights = {name: factor for name, factor in factors.items() if factor > 0}
    kinds: list[LayerCosts] = []
    if "attention_kl" in weights:
        instead = "take --method minilm, whose relations need no equal heads, or --objective.attention 0"
        check_heads(student.heads, teacher.heads, instead)
        kinds.append(AttentionDistributionCosts())
    if "relations" in weights:
        count = math.gcd(student.heads, teacher.heads) if relation_heads is None else relation_heads
        kinds.append(RelationCosts(count, ("values",)))
    losses: list[Loss] = []
    if kinds:
        losses.append(LayerLoss(kinds, mapping_of(kinds, mapping, student, teacher), layer_mass=1))
    if predictions.of_task:
        weights |= prediction_weights(alpha)
        losses += prediction_losses(weights, temperature=temperature, predictions=predictions)
    return [Stage("joint", Objective(losses, weights))]
