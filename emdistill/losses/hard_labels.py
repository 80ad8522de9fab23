"""Hard labels: the student learns the data's own labels."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from emdistill.losses.loss import Loss, logits_of
from emdistill.states import NOT_MASKED, EncoderStates


class HardLabels(Loss):
    """Classification: cross-entropy with the gold class; regression: (z - score)²; averaged over the batch.

    Masked words: cross-entropy with the word, averaged over the masked positions; logits [P, V], labels [B, L] with
    -100 at all others.
    """

    taught = False
    predicts = True

    def __init__(self, *, regression: bool = False) -> None:
        super().__init__()
        self.regression = regression

    def forward(self, student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits = logits_of(student)
        if self.regression:
            return {"hard_labels": functional.mse_loss(logits.squeeze(-1), batch["labels"].float())}
        labels = batch["labels"]
        asked_for = labels[labels != NOT_MASKED] if labels.ndim == 2 else labels
        return {"hard_labels": functional.cross_entropy(logits, asked_for)}
