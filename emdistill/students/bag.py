"""A static student: an embedding bag over the tokens of an encoder, as a table and hashed n-grams.

table = (E - mean of E) V / σ      E [V, d] the encoder's rows, V their leading principal directions, σ one number:
                                   the standard deviation of all that is left
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from emdistill.errors import ConfigError
from emdistill.models.bag import HEADS, BagConfig
from emdistill.models.inputs import longest_text
from emdistill.states import CLASSES, Predictions
from emdistill.students.bilstm import embedding_table, main_directions
from emdistill.students.shape import drawn

DEFAULT_WIDTH = 128


def bag_student(
    encoder: PreTrainedModel,
    separator: int | None,
    width: int | None = None,
    *,
    labels: Sequence[str] = (),
    predictions: Predictions = CLASSES,
    fresh: bool = False,
    seed: int = 0,
) -> PreTrainedModel:
    """A bag of vectors of this width over the encoder's tokens, with a head for the task; n-grams begin at 0.

    separator   the id of the token that ends a text
    width       None: DEFAULT_WIDTH, or the encoder's where its table is narrower
    fresh       whether the table of tokens is drawn too, and not taken from the encoder
    The same seed gives the same weights; torch's random state stays.
    Raises ConfigError for no width, one above the encoder's, and for a head that a bag does not have: it answers texts.
    """
    table = embedding_table(encoder)
    usual = min(DEFAULT_WIDTH, table.shape[1])
    width = usual if width is None else width
    if not 1 <= width <= table.shape[1]:
        raise ConfigError(
            f"--student bag:{width}: a bag is at least 1 wide and at most as wide as the encoder's table, "
            f"{table.shape[1]}; try bag:{usual}"
        )
    if not predictions.of_task:
        raise ConfigError("--student bag learns a task; on raw text take one of the teacher's family: --student 3")
    if predictions.head not in HEADS:
        raise ConfigError(
            f"--student bag answers whole texts and has no {predictions.head} head; take --student bilstm, or keep the "
            "teacher's layers: --student 3"
        )
    config = BagConfig(
        vocab_size=len(table),
        hidden_size=width,
        max_position_embeddings=longest_text(encoder),
        pad_token_id=encoder.config.pad_token_id,
        sep_token_id=separator,
    )
    student = drawn(HEADS[predictions.head], config, labels, predictions, seed)
    if not fresh:
        rows = main_directions(table, width)
        with torch.no_grad():
            student.get_parameter("bag.word_embeddings.weight").copy_(rows / rows.std())
    return student
