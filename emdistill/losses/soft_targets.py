"""Soft targets: the student imitates the teacher's predictions."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from emdistill.config import SoftLoss
from emdistill.errors import ConfigError
from emdistill.losses.loss import Loss, impossible, logits_of
from emdistill.losses.temperatures import TemperatureSpread, temperatures
from emdistill.processes import mean_of_entries, shared_count
from emdistill.states import EncoderStates, Link, over_answers
from emdistill.values import with_choices


@with_choices
class SoftTargets(Loss):
    """The student's answers follow the teacher's, averaged over the answers [A, C].

    softmax   -τ² · Σ_c softmax(z^teacher / τ)_c · log_softmax(z^student / τ)_c
    sigmoid   T² · mean over labels of the binary cross-entropy with sigmoid(z^teacher / T) at z^student / T
    identity  (z^student - z^teacher)², without temperature
    positions   as softmax, c running over the answers of a row, for each column of the logits
    temperature  T > 0; T² keeps the gradient's scale independent of T
    loss         "squared": whatever the link, the mean over answers and classes of (z^student - z^teacher)², in which T
                 cancels: T² · (z^student / T - z^teacher / T)²
    spread       of softmax: a τ per answer around T; None: τ = T
    unmasked_share  on raw text, the share of the tokens that are not masked whose answers count too
    Classes whose logit is at most -10⁴ on the teacher's side, as padded positions of a span's ends, cannot be the
    answer: the student learns that they have no probability; squared differences leave them out. A score may be as low.
    Raises ConfigError for settings out of range, and for a spread of answers that are no choice of classes.
    Source: Hinton et al., 2015, section 2; the released BERT-EMD code averages over classes too. Squared: Ba and
    Caruana, NIPS 2014, equation 3, there halved.
    """

    predicts = True

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        link: Link = "softmax",
        loss: SoftLoss = "cross-entropy",
        spread: TemperatureSpread | None = None,
        unmasked_share: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ConfigError(f"the temperature must be above 0 and finite, not {temperature}")
        if not 0 <= unmasked_share <= 1:
            raise ConfigError(f"--objective.unmasked_share is a share between 0 and 1, not {unmasked_share:g}")
        if spread is not None and (loss == "squared" or link != "softmax"):
            raise ConfigError(
                f"--objective.temperature_schedule {spread.schedule} is for soft targets over classes by "
                f"cross-entropy, and these are {loss} over a {link}; leave it out"
            )
        self.temperature = temperature
        self.link = link
        self.loss = loss
        self.spread = spread
        self.unmasked_share = unmasked_share

    def forward(self, student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        own, other = logits_of(student), logits_of(teacher).detach()
        if self.link == "positions":
            own, other = over_answers(own, batch), over_answers(other, batch)
        if self.link == "identity":
            return {"soft_targets": functional.mse_loss(own, other)}
        if self.loss == "squared":
            return {"soft_targets": squared_difference(own, other)}
        if self.link == "sigmoid":
            chances = (other / self.temperature).sigmoid()
            entropy = functional.binary_cross_entropy_with_logits(own / self.temperature, chances)
            return {"soft_targets": self.temperature**2 * entropy}
        if self.spread is None:
            return {"soft_targets": self.temperature**2 * mean_of_entries(cross_entropy(own, other, self.temperature))}
        each = temperatures(own, other, self.temperature, self.spread)
        return {"soft_targets": mean_of_entries(each**2 * cross_entropy(own, other, each[:, None]))}

    def extra_repr(self) -> str:
        if self.link == "identity" or self.loss == "squared":
            return self.link if self.loss != "squared" else f"{self.link}, squared"
        spread = "" if self.spread is None else f", {self.spread}"
        return f"{self.link}, temperature={self.temperature}{spread}"


def cross_entropy(student: Tensor, teacher: Tensor, temperature: Tensor | float) -> Tensor:
    """-Σ_c softmax(teacher / τ)_c · log_softmax(student / τ)_c of logits [A, C], [A]; τ is one, or [A, 1]."""
    targets = (teacher / temperature).softmax(dim=-1)
    # 0 · -∞ would be NaN.
    log_predictions = (student / temperature).log_softmax(dim=-1).masked_fill(impossible(teacher), 0)
    return -(targets * log_predictions).sum(dim=-1)


def squared_difference(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of (student - teacher)² over the logits [A, C] of answers that can be given; 0 where none can."""
    possible = ~impossible(teacher)
    differences = torch.where(possible, student - teacher, 0)
    return differences.square().sum() / shared_count(possible.sum()).clamp(min=1)
