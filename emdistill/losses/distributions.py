"""Distributions over the tokens of a text, one per head and token, and how two of them differ."""

from typing import Literal

import torch
from torch import Tensor

from emdistill.losses.pairs import share_of_texts
from emdistill.values import with_choices

Divergence = Literal["kl", "cross-entropy"]


def log_distributions(scores: Tensor, tokens: Tensor) -> Tensor:
    """log softmax of scores [B, h, L, L] over unpadded keys; padded keys get 0, what padded queries get is finite.

    tokens  bool [B, L]; padded pairs have no gradient, whatever they hold
    """
    keys = tokens[:, None, None, :]
    pairs = keys & tokens[:, None, :, None]
    # The smallest number and not -inf, so that a text of padding alone gives no NaN.
    return scores.masked_fill(~pairs, torch.finfo(scores.dtype).min).log_softmax(dim=-1).masked_fill(~keys, 0)


def targets(logs: Tensor) -> tuple[Tensor, Tensor]:
    """Log distributions of the teacher, and the distributions: once, because backward of every pair keeps them."""
    return logs, logs.exp()


@with_choices
def divergence(student: Tensor, teacher: tuple[Tensor, Tensor], tokens: Tensor, kind: Divergence = "kl") -> Tensor:
    """Mean over texts of 1/(h |x|) Σ_heads Σ_queries of KL(teacher ‖ student), or of -Σ_keys teacher · log student.

    student  log distributions [B, h, L, L]
    teacher  their `targets`
    """
    logs, probabilities = teacher
    difference = logs - student if kind == "kl" else -student
    lengths = tokens.sum(dim=1, keepdim=True).clamp(min=1)
    weights = tokens * (share_of_texts(tokens)[:, None] / (lengths * student.shape[1]))
    return (weights.to(student.dtype)[:, None] * (probabilities * difference).sum(dim=-1)).sum()
