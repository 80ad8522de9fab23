"""Hidden-state costs: D[i, j] = MSE(H_i^student W, H_j^teacher) over unpadded tokens."""

from typing import Unpack

from torch import Tensor

from emdistill.losses.layers import CostOptions
from emdistill.mapping import layer_costs
from emdistill.mapping.costs import Scale
from emdistill.states import EncoderStates, constants
from emdistill.values import with_choices


@with_choices
class HiddenStateCosts:
    """D[i, j] = mean over tokens and width of (student layer i - teacher layer j)², [M, N].

    The student's states arrive projected to the teacher's width (losses/projection.py).
    scale   "squared"; "relative": the share of each teacher layer's variance that is left (`layer_variances`)
    Source: BERT-EMD (Li et al., EMNLP 2020).
    """

    name = "hidden_states"
    needs = frozenset({"hidden"})

    def __init__(self, scale: Scale = "squared") -> None:
        self.scale = scale

    def __call__(self, student: EncoderStates, teacher: EncoderStates, **options: Unpack[CostOptions]) -> Tensor:
        return layer_costs(student.hidden, constants(teacher.hidden), student.mask, scale=self.scale, **options)
