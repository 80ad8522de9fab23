"""Patient knowledge distillation (Sun et al., EMNLP 2019, arXiv 1908.09355).

    L = α · T² · CE(softmax(z^teacher / T), softmax(z^student / T)) + (1 - α) · hard labels + β · L_patience
    L_patience = Σ_i ‖ h_i / ‖h_i‖ - t_g(i) / ‖t_g(i)‖ ‖²

h_i and t_j are hidden states of the first token, averaged over the batch. g skips: student layer i learns from every
k-th teacher layer (PKD-Skip), or with `--mapping pkd-last` from the last ones before the teacher's last (PKD-Last). The
student's last layer has the predictions to learn from.
"""

from emdistill.losses import FirstTokenCosts, LayerLoss, Loss, Objective, Projection
from emdistill.losses.projection import ProjectionKind
from emdistill.mapping import make_mapping
from emdistill.methods._parts import check_factors, prediction_losses, prediction_weights
from emdistill.states import CLASSES, EncoderShape, Predictions
from emdistill.training.stage import Stage
from emdistill.values import with_choices


@with_choices
def patient_kd(
    student: EncoderShape,
    teacher: EncoderShape,
    *,
    predictions: Predictions = CLASSES,
    mapping: str = "skip",
    beta: float = 1.0,
    alpha: float = 0.5,
    temperature: float = 1.0,
    projection: ProjectionKind = "shared",
) -> list[Stage]:
    """First-token states of every k-th teacher layer, soft targets and labels (Patient KD, Sun et al., 2019).

    Args:
        mapping: which layer learns from which: a mapping's name, or a file of pairs.
        beta: weight of the patience term; 0 switches it off.
        alpha: share of soft targets in the prediction loss, the rest is hard labels.
        temperature: temperature of the soft targets.
        projection: one projection shared by all layers, one per_layer, or none.
    """
    check_factors({"beta": beta})
    weights = {"first_token": beta} if beta > 0 else {}
    layers: list[Loss] = []
    if weights:
        patience = make_mapping(mapping, student.layers, teacher.layers)
        layers.append(LayerLoss([FirstTokenCosts()], patience, layer_mass=1))
    project = Projection(student, teacher, projection) if layers else None
    weights |= prediction_weights(alpha, predictions=predictions)
    final = prediction_losses(weights, temperature=temperature, predictions=predictions)
    return [Stage("joint", Objective([*layers, *final], weights, project))]
