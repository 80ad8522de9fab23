"""Hard labels: the student learns the data's own labels."""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from emdistill.losses.loss import Loss, logits_of
from emdistill.states import NOT_MASKED, EncoderStates, Link


class HardLabels(Loss):
    """The student's answers follow the labels, averaged over the answers [A, C].

    softmax   cross-entropy with the class; of masked words, labels are [B, L] with -100 at all other positions
    sigmoid   mean over labels of the binary cross-entropy, labels [B, C]
    identity  (z - score)²
    """

    taught = False
    predicts = True

    def __init__(self, *, link: Link = "softmax") -> None:
        super().__init__()
        self.link = link

    def forward(self, student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits, labels = logits_of(student), batch["labels"]
        if self.link == "identity":
            return {"hard_labels": functional.mse_loss(logits.squeeze(-1), labels.float())}
        if self.link == "sigmoid":
            return {"hard_labels": functional.binary_cross_entropy_with_logits(logits, labels.float())}
        classes = labels[labels != NOT_MASKED] if labels.ndim == 2 else labels
        return {"hard_labels": functional.cross_entropy(logits, classes)}
