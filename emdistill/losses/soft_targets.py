"""Soft targets: the student imitates the teacher's predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from emdistill.errors import ConfigError
from emdistill.losses.loss import Loss, logits_of
from emdistill.states import EncoderStates


class SoftTargets(Loss):
    """Classification: -T² · mean over the batch of Σ_c softmax(z^teacher / T)_c · log_softmax(z^student / T)_c.

    Masked words: the mean is over the masked positions, logits [P, V].
    Regression: mean over the batch of (z^student - z^teacher)², without temperature.
    temperature  T > 0; T² keeps the gradient's scale independent of T
    Source: Hinton et al., 2015, section 2; the released BERT-EMD code averages over classes too.
    """

    predicts = True

    def __init__(self, *, temperature: float = 1.0, regression: bool = False) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ConfigError(f"the temperature must be above 0 and finite, not {temperature}")
        self.temperature = temperature
        self.regression = regression

    def forward(self, student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        student_logits, teacher_logits = logits_of(student), logits_of(teacher).detach()
        if self.regression:
            return {"soft_targets": functional.mse_loss(student_logits, teacher_logits)}
        targets = (teacher_logits / self.temperature).softmax(dim=-1)
        log_predictions = (student_logits / self.temperature).log_softmax(dim=-1)
        cross_entropy = -(targets * log_predictions).sum(dim=-1).mean()
        return {"soft_targets": self.temperature**2 * cross_entropy}

    def extra_repr(self) -> str:
        return "regression" if self.regression else f"temperature={self.temperature}"
