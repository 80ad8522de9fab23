"""The masked-LM head of an encoder, at the masked positions alone: [B, L, V] for all of them would be gigabytes."""

from __future__ import annotations

from torch import Tensor
from transformers import (
    AlbertForMaskedLM,
    BertForMaskedLM,
    DistilBertForMaskedLM,
    ElectraForMaskedLM,
    PreTrainedModel,
    RobertaForMaskedLM,
)

from emdistill.errors import ModelError
from emdistill.states import NOT_MASKED

# The modules between the last hidden states and the logits, in the order in which they are applied.
HEADS: dict[type[PreTrainedModel], tuple[str, ...]] = {
    BertForMaskedLM: ("cls",),
    RobertaForMaskedLM: ("lm_head",),
    DistilBertForMaskedLM: ("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
    ElectraForMaskedLM: ("generator_predictions", "generator_lm_head"),
    AlbertForMaskedLM: ("predictions",),
}


def has_masked_lm_head(model: PreTrainedModel) -> bool:
    """Whether the model is a BERT, RoBERTa, DistilBERT, ELECTRA or ALBERT with its head that predicts masked words."""
    return isinstance(model, tuple(HEADS))


def masked_word_logits(model: PreTrainedModel, hidden: Tensor, labels: Tensor) -> Tensor:
    """The logits of the whole vocabulary at the P positions whose label is not -100, text by text: [P, V].

    hidden  [B, L, d], the states after the last layer;  labels  [B, L]
    They are the model's own logits at these positions, and so are their gradients.
    Raises ModelError for a model without such a head.
    """
    for kind, names in HEADS.items():
        if isinstance(model, kind):
            logits = hidden[labels != NOT_MASKED]
            for name in names:
                logits = model.get_submodule(name)(logits)
            return logits
    known = ", ".join(kind.__name__ for kind in HEADS)
    raise ModelError(f"a {type(model).__name__} predicts no masked words; these models do: {known}")
