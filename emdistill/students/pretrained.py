"""A student born from a released small encoder: its own weights, a head for the task, the teacher's tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.models.encoder import Source, load_classifier, load_tokenizer, same_tokens


def pretrained_student(
    source: Source,
    teacher_tokenizer: PreTrainedTokenizerBase,
    *,
    labels: Sequence[str] = (),
    regression: bool = False,
    seed: int = 0,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the encoder in `source`, with a head for `labels` or a score: its own if it fits, else fresh from `seed`.

    torch's random state is left as it was.
    Raises ModelError where it cannot be loaded, TokenizerError where its tokens are not the teacher's.
    """
    tokenizer = load_tokenizer(source)
    same_tokens(teacher_tokenizer, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = load_classifier(source, labels=labels, regression=regression)
    return model, tokenizer
