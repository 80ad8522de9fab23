"""Attention-score costs: D[i, j] = MSE(A_i^student, A_j^teacher) over pairs of unpadded tokens."""

from typing import Unpack

from torch import Tensor

from emdistill.losses.layers import CostOptions
from emdistill.mapping import layer_costs
from emdistill.mapping.costs import Heads, Scale
from emdistill.states import EncoderStates, constants
from emdistill.values import with_choices


@with_choices
class AttentionScoreCosts:
    """D[i, j] = mean over heads and valid (query, key) of (student scores i - teacher scores j)², [M, N].

    The scores are those before the softmax, scaled by 1/sqrt(head size), without mask values.
    heads   "equal": the head counts must agree; "mean": both sides averaged over heads;
            "match": heads matched by a second small transport
    scale   "squared"; "relative": the share of each teacher layer's variance that is left (`layer_variances`)
    Source: BERT-EMD (Li et al., EMNLP 2020).
    """

    name = "attention_scores"
    needs = frozenset({"attention"})

    def __init__(self, heads: Heads = "equal", scale: Scale = "squared") -> None:
        self.heads = heads
        self.scale = scale

    def __call__(self, student: EncoderStates, teacher: EncoderStates, **options: Unpack[CostOptions]) -> Tensor:
        teacher_scores = constants(teacher.attention_scores)
        return layer_costs(
            student.attention_scores, teacher_scores, student.mask, heads=self.heads, scale=self.scale, **options
        )
