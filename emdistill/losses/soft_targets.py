"""Soft targets: the student imitates the teacher's predictions."""

import math
from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from emdistill.errors import ConfigError
from emdistill.losses.loss import Loss, logits_of
from emdistill.states import EncoderStates, Link, over_answers


class SoftTargets(Loss):
    """The student's answers follow the teacher's, averaged over the answers [A, C].

    softmax   -T² · Σ_c softmax(z^teacher / T)_c · log_softmax(z^student / T)_c
    sigmoid   T² · mean over labels of the binary cross-entropy with sigmoid(z^teacher / T) at z^student / T
    identity  (z^student - z^teacher)², without temperature
    positions   as softmax, c running over the answers of a row, for each column of the logits
    temperature  T > 0; T² keeps the gradient's scale independent of T
    Source: Hinton et al., 2015, section 2; the released BERT-EMD code averages over classes too.
    """

    predicts = True

    def __init__(self, *, temperature: float = 1.0, link: Link = "softmax") -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ConfigError(f"the temperature must be above 0 and finite, not {temperature}")
        self.temperature = temperature
        self.link = link

    def forward(self, student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        student_logits, teacher_logits = logits_of(student), logits_of(teacher).detach()
        if self.link == "identity":
            return {"soft_targets": functional.mse_loss(student_logits, teacher_logits)}
        if self.link == "sigmoid":
            chances = (teacher_logits / self.temperature).sigmoid()
            entropy = functional.binary_cross_entropy_with_logits(student_logits / self.temperature, chances)
            return {"soft_targets": self.temperature**2 * entropy}
        if self.link == "positions":
            student_logits, teacher_logits = over_answers(student_logits, batch), over_answers(teacher_logits, batch)
        targets = (teacher_logits / self.temperature).softmax(dim=-1)
        log_predictions = (student_logits / self.temperature).log_softmax(dim=-1)
        cross_entropy = -(targets * log_predictions).sum(dim=-1).mean()
        return {"soft_targets": self.temperature**2 * cross_entropy}

    def extra_repr(self) -> str:
        return "identity" if self.link == "identity" else f"{self.link}, temperature={self.temperature}"
