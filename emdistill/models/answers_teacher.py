"""A teacher that is no model: its logits stand in the batch, read from a file of answers."""

from collections.abc import Collection, Mapping
from typing import Self

import torch
from torch import Tensor

from emdistill.errors import CaptureError
from emdistill.states import TEACHER_LOGITS, EncoderShape, EncoderStates


class AnswersTeacher:
    """Gives each batch the answers to its rows; it has no layers."""

    shape = EncoderShape(layers=0, width=0, heads=0)
    reads_rows = False

    def to(self, device: torch.device | str) -> Self:
        """Nothing of it stays on a device."""
        return self

    def __call__(
        self, inputs: Mapping[str, Tensor], needs: Collection[str] = (), layers: Collection[int] | None = None
    ) -> EncoderStates:
        """The logits of a batch; raises CaptureError for states of layers."""
        if needs:
            raise CaptureError(f"a file of answers has no {', '.join(sorted(needs))}; take a teacher that is a model")
        return EncoderStates(logits=inputs[TEACHER_LOGITS], mask=inputs["attention_mask"])
