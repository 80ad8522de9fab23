"""Hidden-state costs: D[i, j] = MSE(H_i^student W, H_j^teacher) over unpadded tokens."""

from typing import Unpack

from torch import Tensor

from emdistill.losses.layers import CostOptions
from emdistill.mapping import layer_costs
from emdistill.states import EncoderStates, constants


class HiddenStateCosts:
    """D[i, j] = mean over tokens and width of (student layer i - teacher layer j)², [M, N].

    The student's states arrive projected to the teacher's width (losses/projection.py).
    Source: BERT-EMD (Li et al., EMNLP 2020).
    """

    name = "hidden_states"
    needs = frozenset({"hidden"})

    def __call__(self, student: EncoderStates, teacher: EncoderStates, **options: Unpack[CostOptions]) -> Tensor:
        return layer_costs(student.hidden, constants(teacher.hidden), student.mask, **options)
