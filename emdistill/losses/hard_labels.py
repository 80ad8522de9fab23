"""Hard labels: the student learns the data's own labels."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from emdistill.losses.loss import Loss, logits_of
from emdistill.states import NOT_MASKED, EncoderStates, Link, labels_of_answers, over_answers


class HardLabels(Loss):
    """The student's answers follow the labels, averaged over the answers [A, C].

    softmax   cross-entropy with the class; of masked words, labels are [B, L] with -100 at all other positions
    sigmoid   mean over labels of the binary cross-entropy, labels [B, C]
    identity  (z - score)²
    positions   cross-entropy of each column with the place of the label among the row's answers, labels [B, C]
    A row, or a word, without a label (TaskKind.absent) adds nothing, and counts: with few labels the term weighs less.
    """

    taught = False
    predicts = True

    def __init__(self, *, link: Link = "softmax") -> None:
        super().__init__()
        self.link = link

    def forward(self, student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits, labels = logits_of(student), labels_of_answers(batch)
        if self.link == "positions":
            logits = over_answers(logits, batch)
        if self.link == "identity":
            scores, answers = labels.float(), logits.squeeze(-1)
            scores = torch.where(scores.isnan(), answers.detach(), scores)  # without a difference
            return {"hard_labels": functional.mse_loss(answers, scores)}
        if self.link == "sigmoid":
            chances, there = labels.float().nan_to_num(), (~labels.isnan()).float()
            return {"hard_labels": functional.binary_cross_entropy_with_logits(logits, chances, weight=there)}
        classes = labels[labels != NOT_MASKED] if labels.ndim == 2 else labels
        return {"hard_labels": functional.cross_entropy(logits, classes, reduction="sum") / len(classes)}
