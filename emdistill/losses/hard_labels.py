"""Hard labels: the student learns the data's own labels."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from emdistill.losses.loss import Loss
from emdistill.states import EncoderStates


class HardLabels(Loss):
    """Classification: cross-entropy with the gold class; regression: (z - score)²; averaged over the batch."""

    taught = False

    def __init__(self, *, regression: bool = False) -> None:
        super().__init__()
        self.regression = regression

    def forward(self, student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits = student.logits.float()
        if self.regression:
            return {"hard_labels": functional.mse_loss(logits.squeeze(-1), batch["labels"].float())}
        return {"hard_labels": functional.cross_entropy(logits, batch["labels"])}
