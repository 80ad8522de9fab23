"""DistilBERT: soft targets, labels, and the direction of the last hidden states (Sanh et al., 2019, arXiv 1910.01108).

    L = w_soft · T² · CE(softmax(z^teacher / T), softmax(z^student / T)) + w_hard · hard labels + w_cos · L_cosine
    L_cosine = mean over tokens of 1 - cos(last hidden state of the student, of the teacher)

On raw text the labels are the words behind the masks. The student keeps every k-th teacher layer: `--student 3`.
"""

from emdistill.losses import CosineCosts, LayerLoss, Loss, Objective, Projection
from emdistill.losses.projection import ProjectionKind
from emdistill.mapping import make_mapping
from emdistill.methods._parts import check_factors, prediction_losses
from emdistill.states import CLASSES, EncoderShape, Predictions
from emdistill.training.stage import Stage
from emdistill.values import with_choices


@with_choices
def distilbert(
    student: EncoderShape,
    teacher: EncoderShape,
    *,
    predictions: Predictions = CLASSES,
    mapping: str = "final",
    soft_targets: float = 5.0,
    hard_labels: float = 2.0,
    cosine: float = 1.0,
    temperature: float = 2.0,
    projection: ProjectionKind = "shared",
) -> list[Stage]:
    """Soft targets, labels and the cosine of the last hidden states (DistilBERT, Sanh et al., 2019).

    Args:
        mapping: which layer learns from which: a mapping's name, or a file of pairs.
        soft_targets: weight of the soft targets; 0 switches them off.
        hard_labels: weight of the hard labels; 0 switches them off.
        cosine: weight of the cosine term; 0 switches it off.
        temperature: temperature of the soft targets.
        projection: one projection shared by all layers, one per_layer, or none.
    """
    factors = {"soft_targets": soft_targets, "hard_labels": hard_labels, "cosine": cosine}
    check_factors(factors)
    absent = ("soft_targets", "hard_labels") if predictions.link is None else ()
    weights = {name: factor for name, factor in factors.items() if factor > 0 and name not in absent}
    losses: list[Loss] = prediction_losses(weights, temperature=temperature, predictions=predictions)
    project = None
    if "cosine" in weights:
        losses.append(LayerLoss([CosineCosts()], make_mapping(mapping, student.layers, teacher.layers), layer_mass=1))
        project = Projection(student, teacher, projection)
    return [Stage("joint", Objective(losses, weights, project))]
