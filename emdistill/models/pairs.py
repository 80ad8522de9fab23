"""Two texts in one row, encoded apart: which token belongs to which, what is read of their vectors, and the head."""

from typing import Any

import torch
from torch import Tensor, nn


def of_texts(ids: Tensor, mask: Tensor, separator: int | None) -> Tensor:
    """[B, 2, L]: 1 where a piece belongs to the first text, up to its separator, and where to the second."""
    separators = (ids == (-1 if separator is None else separator)).long()
    second = (separators.cumsum(dim=-1) > separators).long()
    return mask[:, None] * torch.stack([1 - second, second], dim=1)


def compared(vectors: Tensor) -> Tensor:
    """[B, 2, d] of the first and the second text -> [u; v; |u − v|; u ∘ v], [B, 4d].

    Source: Mou et al., ACL 2016; Conneau et al., EMNLP 2017 (InferSent).
    """
    first, second = vectors.unbind(dim=1)
    return torch.cat([first, second, (first - second).abs(), first * second], dim=-1)


class ReluHead(nn.Module):
    """[..., features] -> logits [..., C]: one layer of relu, `hidden` wide, between; C is the config's."""

    def __init__(self, config: Any, features: int, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(features, hidden)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.out_proj = nn.Linear(hidden, config.num_labels or 1)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.out_proj(self.dropout(self.dense(self.dropout(features)).relu()))
        return logits
