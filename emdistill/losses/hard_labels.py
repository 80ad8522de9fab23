"""Hard labels: the student learns the data's own labels."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from emdistill.errors import ConfigError
from emdistill.losses.loss import Loss, logits_of
from emdistill.processes import shared_count
from emdistill.states import ASKED, NOT_MASKED, EncoderStates, Link, labels_of_answers, over_answers
from emdistill.values import with_choices


@with_choices
class HardLabels(Loss):
    """The student's answers follow the labels, averaged over the answers [A, C].

    softmax   cross-entropy with the class; of masked words, labels are [B, L] with -100 at all other positions
    sigmoid   mean over labels of the binary cross-entropy, labels [B, C]
    identity  mean over scores of (z - score)², labels [B] or [B, C]
    positions   cross-entropy of each column with the place of the label among the row's answers, labels [B, C]
    label_smoothing  share of a class's label that is spread evenly over all of them; of softmax alone
    A row, or a word, without a label (TaskKind.absent) adds nothing, and counts: with few labels the term weighs less.
    """

    taught = False
    predicts = True

    def __init__(self, *, link: Link = "softmax", label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"--objective.label_smoothing is a share from 0 to below 1, not {label_smoothing}")
        self.link = link
        self.label_smoothing = label_smoothing

    def forward(self, student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits, labels = logits_of(student), labels_of_answers(batch)
        if self.link == "positions":
            logits = over_answers(logits, batch)
        if self.link == "identity":
            scores = labels.float().view_as(logits)
            scores = torch.where(scores.isnan(), logits.detach(), scores)  # without a difference
            return {"hard_labels": functional.mse_loss(logits, scores)}
        if self.link == "sigmoid":
            chances, there = labels.float().nan_to_num(), (~labels.isnan()).float()
            return {"hard_labels": functional.binary_cross_entropy_with_logits(logits, chances, weight=there)}
        if ASKED in batch:  # more tokens than the masked ones have logits
            labels = labels[batch[ASKED]]
            logits, labels = logits[labels != NOT_MASKED], labels[labels != NOT_MASKED]
        classes = labels[labels != NOT_MASKED] if labels.ndim == 2 else labels
        entropy = functional.cross_entropy(logits, classes, reduction="sum", label_smoothing=self.label_smoothing)
        return {"hard_labels": entropy / shared_count(classes.new_tensor(len(classes)))}
