"""Attention-score costs: D[i, j] = MSE(A_i^student, A_j^teacher) over pairs of unpadded tokens."""

from typing import Literal, Unpack

from torch import Tensor

from emdistill.losses.layers import CostOptions
from emdistill.mapping import layer_costs
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

    def __call__(self, student: EncoderStates, teacher: EncoderStates, **options: Unpack[CostOptions]) -> Tensor:
        teacher_scores = constants(teacher.attention_scores)
        return layer_costs(student.attention_scores, teacher_scores, student.mask, heads=self.heads, **options)
