"""Sentence-representation approximation (Wu et al., AACL 2020, arXiv 2004.03097), on raw text.

L = vectors · ‖W s + b − z‖² / d + directions · (1 − cos(W s + b, z)),    z = (t − t̄) / σ

s and t are the vectors of a whole text, the student's and the teacher's; W and b stay with the loss.
"""

from emdistill.errors import ConfigError
from emdistill.losses import Objective, SentenceVectors
from emdistill.losses.sentence_vectors import Vector
from emdistill.methods._parts import check_factors
from emdistill.states import NOTHING, EncoderShape, Predictions
from emdistill.training.stage import Stage
from emdistill.values import with_choices


@with_choices
def sentence_vectors(
    student: EncoderShape,
    teacher: EncoderShape,
    *,
    predictions: Predictions = NOTHING,
    vector: Vector = "mean",
    vectors: float = 1.0,
    directions: float = 1.0,
) -> list[Stage]:
    """The teacher's vector of each whole text, on raw text; a BiLSTM becomes an encoder for any task (Wu et al., 2020).

    Args:
        vector: what the teacher makes of a text: the mean of its last states, or the first token's.
        vectors: weight of the squared distance, in units of the variance of the teacher's vectors.
        directions: weight of 1 − cosine, measured from their mean.
    """
    if predictions.of_task:
        raise ConfigError(
            "--method sentence-vectors teaches no task: it learns from raw text (--task text), and its student is then "
            "--student RUN/student of a run with --method soft-targets, or the --model of a finetune"
        )
    if vector not in ("mean", "first"):
        raise ConfigError(f"--objective.vector {vector}: a text's vector is the mean of its tokens, or the first")
    weights = {"vectors": vectors, "directions": directions}
    check_factors(weights)
    weights = {name: weight for name, weight in weights.items() if weight > 0}
    loss = SentenceVectors(student, teacher, vector=vector, terms=weights)
    return [Stage("vectors", Objective([loss] if weights else [], weights))]
