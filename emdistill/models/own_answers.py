"""A student that teaches itself: what it answers in use, without dropout, is what its training parts learn."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from emdistill.models.capture import capture
from emdistill.models.encoder import encoder_shape
from emdistill.states import EncoderShape, EncoderStates


class OwnAnswers:
    """The states of the student as it is at this step, in eval mode, constant for the gradient."""

    reads_rows = False

    def __init__(self, student: PreTrainedModel) -> None:
        self.student = student

    @property
    def shape(self) -> EncoderShape:
        """Layers, width and heads."""
        return encoder_shape(self.student)

    def __call__(
        self, inputs: Mapping[str, Tensor], needs: Collection[str] = (), layers: Collection[int] | None = None
    ) -> EncoderStates:
        """The states of one batch, as `capture` gives them."""
        training = self.student.training
        self.student.train(False)
        try:
            with torch.no_grad():
                return capture(self.student, inputs, needs, layers)
        finally:
            self.student.train(training)
