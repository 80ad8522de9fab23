"""A BiLSTM student: fresh layers over the table of tokens of an encoder, as narrow as they read it.

table = (E - mean of E) V      E [V, d] the encoder's rows, V their e leading principal directions
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from emdistill.errors import ConfigError
from emdistill.models.bilstm import HEADS, BiLstmConfig, BiLstmModel
from emdistill.models.inputs import longest_text
from emdistill.states import CLASSES, SEQUENCE, Predictions
from emdistill.students.shape import drawn

DEFAULT_UNITS = 256
Ends = tuple[int | None, int | None]


def bilstm_student(
    encoder: PreTrainedModel,
    units: int = DEFAULT_UNITS,
    *,
    ends: Ends = (None, None),
    labels: Sequence[str] = (),
    predictions: Predictions = CLASSES,
    fresh: bool = False,
    seed: int = 0,
) -> PreTrainedModel:
    """Two BiLSTM layers of so many units per direction, with a head for the task, that read the encoder's tokens.

    ends    ids of the tokens that begin and end a text: where answers are of texts, each text of a pair is encoded
            apart; so is every text of a student without a task, which has no head
    fresh   whether the table of tokens is drawn too, and not taken from the encoder
    The same seed gives the same weights; torch's random state stays.
    Raises ConfigError for no units, and for a head that a BiLSTM does not have.
    """
    if units < 1:
        raise ConfigError(f"--student bilstm:{units}: a BiLSTM has at least 1 unit per direction; try bilstm:256")
    if predictions.of_task and predictions.head not in HEADS:
        raise ConfigError(f"--student bilstm has no {predictions.head} head; keep the teacher's layers: --student 3")
    table = embedding_table(encoder)
    begins, separator = ends if predictions.head == SEQUENCE else (None, None)
    config = BiLstmConfig(
        vocab_size=len(table),
        embedding_size=min(units, table.shape[1]),
        hidden_size=2 * units,
        max_position_embeddings=longest_text(encoder),
        pad_token_id=encoder.config.pad_token_id,
        cls_token_id=begins,
        sep_token_id=separator,
    )
    kind = HEADS[predictions.head] if predictions.of_task else BiLstmModel
    student = drawn(kind, config, labels, predictions, seed)
    if not fresh:
        with torch.no_grad():
            student.base_model.get_parameter("word_embeddings.weight").copy_(
                main_directions(table, config.embedding_size)
            )
    return student


def embedding_table(encoder: PreTrainedModel) -> Tensor:
    """The rows of the encoder's tokens, [V, d], in float64."""
    table: Tensor = encoder.get_input_embeddings().weight  # type: ignore[assignment]
    return table.detach().double()


def main_directions(rows: Tensor, width: int) -> Tensor:
    """[V, d] -> [V, width]: the rows, centred, in the directions in which they differ most; all of them at width d."""
    centred = rows - rows.mean(dim=0)
    directions: Tensor = torch.linalg.eigh(centred.T @ centred).eigenvectors  # in order of rising variance
    return centred @ directions.flip(-1)[:, :width]
