"""Attention-score costs: D[i, j] = MSE(A_i^student, A_j^teacher) over pairs of unpadded tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from emdistill.mapping import Pair, layer_costs
from emdistill.states import EncoderStates, constants


class AttentionScoreCosts:
    """D[i, j] = mean over heads and valid (query, key) of (student scores i - teacher scores j)², [M, N].

    The scores are those before the softmax, scaled by 1/sqrt(head size), without mask values.
    heads   "equal": the head counts must agree; "mean": both sides averaged over heads;
            "match": heads matched by a second small transport
    Source: BERT-EMD (Li et al., EMNLP 2020).
    """

    name = "attention_scores"
    needs = frozenset({"attention"})

    def __init__(self, heads: Literal["equal", "mean", "match"] = "equal") -> None:
        self.heads = heads

    def __call__(
        self,
        student: EncoderStates,
        teacher: EncoderStates,
        pairs: Sequence[Pair] | None = None,
        compiled: bool = False,
    ) -> Tensor:
        return layer_costs(
            student.attention_scores,
            constants(teacher.attention_scores),
            student.mask,
            heads=self.heads,
            pairs=pairs,
            compiled=compiled,
        )
