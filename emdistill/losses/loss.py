"""The one base of all losses."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from emdistill.errors import CaptureError
from emdistill.states import EncoderStates


class Loss(nn.Module, ABC):
    """One or more named terms computed from states, never from models; the teacher's are constants.

    needs           which states must be captured, by the names that `capture` knows
    own_needs       which of the student alone, as they are: neither projected nor met with another tokenizer's
    student_layers  the layers whose states are read; None: all
    teacher_layers  likewise
    taught          whether the teacher's states are read at all
    predicts        whether logits are read
    """

    needs: frozenset[str] = frozenset()
    own_needs: frozenset[str] = frozenset()
    student_layers: frozenset[int] | None = None
    teacher_layers: frozenset[int] | None = None
    taught: bool = True
    predicts: bool = False

    @abstractmethod
    def forward(self, student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Term name -> scalar, each averaged so that padding and batch size do not change its scale."""


def logits_of(states: EncoderStates) -> Tensor:
    """The logits, in float32 at least; raises CaptureError for those of an encoder without a head."""
    if states.logits.shape[-1] == 0:
        raise CaptureError(
            "this encoder has no head, so it gives no logits to learn from; load it with "
            "AutoModelForSequenceClassification, or leave out the losses that read predictions"
        )
    return states.logits if states.logits.dtype == torch.float64 else states.logits.float()
