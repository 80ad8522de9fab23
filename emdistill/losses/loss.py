"""The one base of all losses."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from emdistill.errors import CaptureError
from emdistill.states import EncoderStates, precise

# A logit of the teacher at or below this stands for an answer that cannot be given, as at padding.
IMPOSSIBLE = -1e4


class Loss(nn.Module, ABC):
    """One or more named terms computed from states, never from models; the teacher's are constants.

    needs           which states must be captured, by the names that `capture` knows
    own_needs       which of the student alone, as they are: neither projected nor met with another tokenizer's
    student_layers  the layers whose states are read; None: all
    teacher_layers  likewise
    taught          whether the teacher's states are read at all
    predicts        whether logits are read
    unmasked_share  of the tokens that are not masked, on raw text, the share whose logits are read too
    """

    needs: frozenset[str] = frozenset()
    own_needs: frozenset[str] = frozenset()
    student_layers: frozenset[int] | None = None
    teacher_layers: frozenset[int] | None = None
    taught: bool = True
    predicts: bool = False
    unmasked_share: float = 0.0

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
    return precise(states.logits)


def impossible(teacher: Tensor) -> Tensor:
    """Which classes cannot be the answer, by the teacher's logits, bool [A, C]."""
    return teacher <= IMPOSSIBLE
