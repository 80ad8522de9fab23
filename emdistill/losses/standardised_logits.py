"""Standardised logits: the student's logits correlate with the teacher's over the rows of a batch, class by class."""

from collections.abc import Mapping

import torch
from torch import Tensor

from emdistill.losses.loss import Loss, logits_of
from emdistill.states import EncoderStates

# A column that spreads by less, as a share of its largest entry, is one number and its rounding.
LEAST_SPREAD = 1e-5


class StandardisedLogits(Loss):
    """L = mean over classes c of mean over rows of (ẑ_c^student − ẑ_c^teacher)² = mean over c of 2 (1 − corr_c).

    ẑ_c = (z_c − mean(z_c)) / std(z_c), each side by its own mean and (population) deviation over the A rows of the
    logits [A, C]: so the order and the relative distances of the rows are learned, not scale or offset, whatever the
    link. A class that is constant on either side adds 0, and so does a batch of one row; of two rows the correlation
    is ±1, without gradient.
    Over the classes of one row it would be degenerate: two classes standardise to ±1 whatever the logits.
    """

    predicts = True

    def forward(self, student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        own, other = standardised(logits_of(student)), standardised(logits_of(teacher).detach())
        differ = (own != 0).any(dim=0) & (other != 0).any(dim=0)
        return {"standardised_logits": torch.where(differ, own - other, 0).square().mean()}


def standardised(logits: Tensor) -> Tensor:
    """Each column with mean 0 and mean square 1 over the rows; 0 where it is constant."""
    centred = logits - logits.mean(dim=0)
    # Not >, so that NaN shows.
    varies = ~(centred.detach().abs().amax(dim=0) <= LEAST_SPREAD * logits.detach().abs().amax(dim=0))
    deviation = torch.where(varies, centred, 1).square().mean(dim=0).sqrt()  # 1, for the gradient of √0 is infinite
    return torch.where(varies, centred / deviation, 0)
