"""A student that is a released small encoder: its own weights, a head for the task, its own tokens."""

from collections.abc import Sequence
from typing import cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.errors import ModelError
from emdistill.models.encoder import load_classifier, load_encoder, load_tokenizer
from emdistill.models.masked_lm import has_masked_lm_head
from emdistill.models.stored_config import Source
from emdistill.states import CLASSES, Predictions


def pretrained_student(
    source: Source,
    *,
    labels: Sequence[str] = (),
    predictions: Predictions = CLASSES,
    seed: int = 0,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The encoder in `source`, with a head for `labels` or a score: its own if it fits, else fresh from `seed`.

    For masked words it must have a masked-LM head; for no predictions it loses such a head. torch's random state stays.
    Raises ModelError where it cannot be loaded or lacks that head.
    """
    if predictions.of_task:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = load_classifier(source, labels=labels, problem_type=predictions.problem_type, head=predictions.head)
        return model, load_tokenizer(source)
    model = load_encoder(source)
    if predictions.link is None:
        return cast(PreTrainedModel, model.base_model), load_tokenizer(source)
    if not has_masked_lm_head(model):
        raise ModelError(
            f"{source} has no masked-LM head, and the teacher has one; take an encoder that was saved with it "
            "(AutoModelForMaskedLM), or keep the teacher's layers: --student 3"
        )
    return model, load_tokenizer(source)
