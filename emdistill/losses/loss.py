"""The one base of all losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from emdistill.states import EncoderStates


class Loss(nn.Module, ABC):
    """One or more named terms computed from states, never from models; the teacher's are constants.

    needs           which states must be captured: a subset of {"embeddings", "hidden", "attention"}
    student_layers  the layers whose states are read; None: all
    teacher_layers  likewise
    taught          whether the teacher's states are read at all
    """

    needs: frozenset[str] = frozenset()
    student_layers: frozenset[int] | None = None
    teacher_layers: frozenset[int] | None = None
    taught: bool = True

    @abstractmethod
    def forward(self, student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Term name -> scalar, each averaged so that padding and batch size do not change its scale."""
