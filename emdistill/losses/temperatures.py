"""A temperature per answer, around the one that is given: which answers are learned sharply, and which softly."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from emdistill.errors import ConfigError
from emdistill.losses.loss import impossible
from emdistill.values import with_choices

LEAST_SHARE = 0.1  # of T: what τ is at least, for T + β (mean w − w_a) may fall below 0


def distances(student: Tensor, teacher: Tensor, gamma: float) -> Tensor:
    """w_a = (1 − cos(z_a^student, z_a^teacher))^γ of logits [A, C]: large where the student is far from the teacher.

    Source: FLSW, "focal loss style weights", in Wen, Lai and Qian, arXiv 1911.07471, as TextBrewer has them.
    """
    own, other = (logits.masked_fill(impossible(teacher), 0) for logits in (student, teacher))
    return (1 - functional.cosine_similarity(own, other, dim=-1)).clamp(min=0) ** gamma


def doubts(student: Tensor, teacher: Tensor, gamma: float) -> Tensor:
    """w_a = 1 / max_c softmax(z_a^student)_c of logits [A, C]: large where the student is in doubt; 1 to C.

    Source: CWSM, "confidence weighted by student max", in Wen, Lai and Qian, arXiv 1911.07471.
    """
    least = torch.finfo(student.dtype).min
    return 1 / student.masked_fill(impossible(teacher), least).softmax(dim=-1).amax(dim=-1)


Spread = Literal["flsw", "cwsm"]
WEIGHTS: dict[Spread, Callable[[Tensor, Tensor, float], Tensor]] = {"flsw": distances, "cwsm": doubts}


@with_choices
@dataclass(frozen=True)
class TemperatureSpread:
    """How the answers' temperatures spread: by the weights w of a schedule (flsw, cwsm), β, and γ of flsw.

    Raises ConfigError for β below 0, γ not above 0, and what is not finite.
    """

    schedule: Spread
    beta: float = 1.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.beta < math.inf and 0 < self.gamma < math.inf):
            raise ConfigError(
                f"--objective.temperature_beta {self.beta:g}, --objective.temperature_gamma {self.gamma:g}: both are "
                "finite, and β is 0 or above, γ above 0"
            )

    def __str__(self) -> str:
        return f"{self.schedule} β={self.beta:g}" + (f" γ={self.gamma:g}" if self.schedule == "flsw" else "")


@torch.no_grad()
def temperatures(student: Tensor, teacher: Tensor, temperature: float, spread: TemperatureSpread) -> Tensor:
    """τ_a = max(T + β (mean over the answers of w − w_a), T / 10) of logits [A, C], [A].

    Answers of great weight, far from the teacher's (flsw) or in doubt (cwsm), are learned at a lower temperature: there
    the teacher's first choice counts, and its small probabilities less. Constants for the gradient.
    Source: dynamic temperature distillation, Wen, Lai and Qian, arXiv 1911.07471. The floor is ours.
    """
    weights = WEIGHTS[spread.schedule](student, teacher, spread.gamma)
    return (temperature + spread.beta * (weights.mean() - weights)).clamp(min=LEAST_SHARE * temperature)
