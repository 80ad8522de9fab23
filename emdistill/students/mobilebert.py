"""A MobileBERT student, or an inverted-bottleneck teacher: fresh layers over the table of tokens of an encoder.

    --student mobilebert[-teacher][:LAYERSxINTERxINTRA[xNETWORKS]][-layer_norm|-no_norm][-relu|-gelu]

INTER is the width of the states, INTRA that within a layer, NETWORKS the feed-forward networks of a layer, each of
4 · INTRA neurons. A student's layers are narrower within (128 of 512), a teacher's wider (1024 of 512).

Source: Sun et al., MobileBERT, ACL 2020 (arXiv 2004.02984), table 1 and section 3. There a teacher's queries, keys and
values are made of the states between layers, which transformers' class cannot do; here of those within.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import MobileBertConfig, PreTrainedModel

from emdistill.errors import ConfigError
from emdistill.models.encoder import encoder_shape
from emdistill.models.families import family_of
from emdistill.models.inputs import first_position, longest_text, token_types
from emdistill.models.stored_config import class_with_head
from emdistill.states import CLASSES, Predictions
from emdistill.students.bilstm import embedding_table, main_directions
from emdistill.students.shape import drawn

# Its groups are named as transformers' configuration has them.
FORM = re.compile(
    r"(?P<kind>mobilebert(?:-teacher)?)(?::(?P<num_hidden_layers>\d+)x(?P<hidden_size>\d+)x(?P<intra_bottleneck_size>\d+)"
    r"(?:x(?P<num_feedforward_networks>\d+))?)?"
    r"(?:-(?P<normalization_type>layer_norm|no_norm))?(?:-(?P<hidden_act>relu|gelu))?"
)
EMBEDDING_SIZE = 128
HEADS = 4
# transformers' configuration is by default the published one; what a teacher has otherwise.
OF_A_TEACHER: dict[str, Any] = {
    "intra_bottleneck_size": 1024,
    "num_feedforward_networks": 1,
    "normalization_type": "layer_norm",
    "hidden_act": "gelu",
    "use_bottleneck_attention": True,
    "key_query_shared_bottleneck": False,
    "hidden_dropout_prob": 0.1,
}


def read_form(spec: str) -> MobileBertConfig:
    """'mobilebert:6x384x96x2-gelu' -> a configuration, published but for what is named; ConfigError for a size of 0."""
    matched = FORM.fullmatch(spec)
    assert matched is not None  # the pattern of this way to write --student
    words = {name: word for name, word in matched.groupdict().items() if name != "kind" and word is not None}
    given = {name: int(word) if word.isdecimal() else word for name, word in words.items()}
    if 0 in given.values():
        raise ConfigError(f"--student {spec}: every size is at least 1, as in mobilebert:6x384x96x2")
    return MobileBertConfig(**(OF_A_TEACHER if matched["kind"] == "mobilebert-teacher" else {}) | given)


def mobilebert_student(
    encoder: PreTrainedModel,
    spec: str,
    *,
    labels: Sequence[str] = (),
    predictions: Predictions = CLASSES,
    fresh: bool = False,
    seed: int = 0,
) -> PreTrainedModel:
    """Fresh layers, with a head for the predictions, that read the encoder's tokens and begin with its embeddings.

    spec    the form, as read_form takes it
    fresh   whether the embeddings are drawn too
    The same seed gives the same weights; torch's random state stays. Raises ConfigError for impossible sizes.
    """
    config = _config(encoder, spec)
    head = predictions.head if predictions.of_task else "MaskedLM"
    kind = transformers.MobileBertModel if predictions.link is None else class_with_head(config, head)
    student = drawn(kind, config, labels, predictions, seed)
    if not fresh:
        with torch.no_grad():
            _take_embeddings(student, encoder)
    family_of(student).put_right(student)
    return student


def _config(encoder: PreTrainedModel, spec: str) -> MobileBertConfig:
    """The form with the encoder's tokens, and its heads where they divide the width within layers, else 4."""
    config, theirs = read_form(spec), encoder_shape(encoder).heads
    rows, width = embedding_table(encoder).shape
    within = config.intra_bottleneck_size
    heads = theirs if theirs and within % theirs == 0 else HEADS
    if within % heads:
        raise ConfigError(
            f"--student {spec}: the width within layers is a multiple of the {heads} attention heads; take "
            f"{-(-within // heads) * heads} instead of {within}"
        )
    config.intermediate_size = 4 * within
    config.classifier_activation = False  # the head reads the first token's state as it is
    config.num_attention_heads = heads
    config.vocab_size = rows
    config.embedding_size = min(EMBEDDING_SIZE, config.hidden_size, width)
    config.max_position_embeddings = longest_text(encoder)
    config.type_vocab_size = max(1, token_types(encoder.config))
    config.pad_token_id = encoder.config.pad_token_id
    return config


def _take_embeddings(student: PreTrainedModel, encoder: PreTrainedModel) -> None:
    """A MobileBERT's embeddings in the same sizes; of others the tables that fit, and the tokens' main directions.

    Between equal widths the trigrams begin as the matrix that leads back from these directions, so that the embeddings
    are the encoder's, but for its norm and what the other directions hold.
    """
    own, theirs = (dict(_embeddings(model)) for model in (student, encoder))
    if "position_embeddings.weight" in theirs:  # RoBERTa's are counted behind its padding
        theirs["position_embeddings.weight"] = theirs["position_embeddings.weight"][first_position(encoder) :]
    for name, parameter in own.items():
        same = "LayerNorm" not in name or _norm(student) == _norm(encoder)
        if same and name in theirs and theirs[name].shape == parameter.shape:
            parameter.copy_(theirs[name])
    table, matrix = own["word_embeddings.weight"], own["embedding_transformation.weight"]
    rows, width = embedding_table(encoder), table.shape[1]
    if matrix.shape == getattr(theirs.get("embedding_transformation.weight"), "shape", None):
        return
    directions = main_directions(rows, width)
    # A masked-LM head makes its logits of the same table, which then keeps its scale.
    tied = student.get_output_embeddings() is not None  # type: ignore[no-untyped-call]
    table.copy_(directions if tied else directions / directions.std())
    if len(matrix) == rows.shape[1]:
        mean = rows.mean(dim=0)
        matrix.zero_()
        matrix[:, width : 2 * width] = torch.linalg.lstsq(table.double(), rows - mean).solution.T  # the middle token's
        own["embedding_transformation.bias"].copy_(mean)


def _embeddings(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """The parameters of `embeddings`, where the family has such a module."""
    for name, parameter in model.base_model.named_parameters():
        if name.startswith("embeddings."):
            yield name.removeprefix("embeddings."), parameter


def _norm(encoder: PreTrainedModel) -> str:
    return str(getattr(encoder.config, "normalization_type", "layer_norm"))
