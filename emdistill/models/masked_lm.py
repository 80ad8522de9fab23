"""The masked-LM head of an encoder, at the masked positions alone: [B, L, V] for all of them would be gigabytes."""

from typing import Any

from torch import Tensor
from transformers import MODEL_FOR_MASKED_LM_MAPPING, PreTrainedModel

from emdistill.errors import ModelError
from emdistill.models.families import FAMILIES, family_of


def has_masked_lm_head(model: PreTrainedModel) -> bool:
    """Whether the model is of a known family and has a masked-LM head."""
    names = family_of(model).masked_lm
    kind: Any = MODEL_FOR_MASKED_LM_MAPPING.get(type(model.config), ())
    return bool(names) and isinstance(model, kind) and all(hasattr(model, name) for name in names)


def word_logits(model: PreTrainedModel, hidden: Tensor, places: Tensor) -> Tensor:
    """The model's own logits, [P, V], at P places, text by text.

    hidden  [B, L, d], the states after the last layer
    places  bool [B, L]
    Raises ModelError for a model without a masked-LM head.
    """
    if not has_masked_lm_head(model):
        raise ModelError(
            f"a {type(model).__name__} predicts no masked words; the masked-LM models of these families do: "
            f"{', '.join(name for name, family in FAMILIES.items() if family.masked_lm)}"
        )
    logits = hidden[places]
    for name in family_of(model).masked_lm:
        logits = model.get_submodule(name)(logits)
    return logits
