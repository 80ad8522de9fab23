"""Weights that nobody tunes: each term's gradient is as long as is asked for, against that of the other terms."""

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from emdistill.errors import ConfigError
from emdistill.processes import mean_over_processes

FIRST_STEPS = 10  # measured at each of them, for norms change fast there
LARGEST_FACTOR = 1e4  # of a term that hardly pulls; one that does not pull at all would get an infinite one
LEAST_NORM = 1e-12
REFERENCE = "reference"

Norms = Callable[[Mapping[str, Tensor]], Mapping[str, float]]


class GradientBalance(nn.Module):
    """Factors r_t = R / ‖∇ L_t‖ on terms, so that weight_t · r_t · L_t pulls weight_t times as hard as R.

    terms      the terms that get a factor
    R          ‖∇ of the weighted sum of all other terms‖; where there are none, the geometric mean of ‖∇ L_t‖
    every      norms are measured at the first ten optimizer steps, then at every so many
    smoothing  ν of the running geometric mean of the norms: log G ← ν log G + (1 − ν) log G_new, the plain mean of
               the logs as long as there are fewer than 1 / (1 − ν) measurements
    ∇ is over the student's weights. Factors are constants for the gradient, 1 before the first measurement, at most
    10⁴. Buffers log_norms [terms + 1], R's last, and measurements; means over the processes of torch.distributed.
    Raises ConfigError for settings out of range.
    """

    log_norms: Tensor
    measurements: Tensor

    def __init__(self, terms: Iterable[str], *, every: int = 50, smoothing: float = 0.9) -> None:
        super().__init__()
        if every < 1:
            raise ConfigError(f"gradient norms are measured every 1 or more steps, not {every}")
        if not 0 <= smoothing < 1:
            raise ConfigError(f"smoothing={smoothing:g} must lie in [0, 1): a share of the old norms stays")
        self.terms = tuple(terms)
        self.every = every
        self.smoothing = smoothing
        self._measured_at = -1
        self.register_buffer("log_norms", torch.zeros(len(self.terms) + 1))
        self.register_buffer("measurements", torch.zeros(()))

    def due(self, step: int) -> bool:
        """Whether norms are to be measured at this optimizer step; once, however many batches it accumulates."""
        return step != self._measured_at and (step < FIRST_STEPS or step % self.every == 0)

    def parts(self, terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
        """What is to be measured: each balanced term as it is, and the weighted sum of the others, if there are any."""
        others = [weights[name] * value for name, value in terms.items() if name not in self.terms]
        reference = {REFERENCE: torch.stack(others).sum()} if others else {}
        return {name: terms[name] for name in self.terms} | reference

    @torch.no_grad()
    def note(self, step: int, norms: Mapping[str, float]) -> None:
        """Take the norms of `parts` into the running means."""
        logs = [math.log(max(norms[name], LEAST_NORM)) for name in self.terms]
        reference = norms.get(REFERENCE)
        logs.append(sum(logs) / len(logs) if reference is None else math.log(max(reference, LEAST_NORM)))
        new = mean_over_processes(self.log_norms.new_tensor(logs))
        self.measurements += 1
        self.log_norms.lerp_(new, torch.clamp(1 / self.measurements, min=1 - self.smoothing))
        self._measured_at = step

    def factors(self) -> dict[str, Tensor]:
        """r of each balanced term."""
        differences = self.log_norms[-1] - self.log_norms[:-1]
        return dict(zip(self.terms, differences.clamp(max=math.log(LARGEST_FACTOR)).exp(), strict=True))

    def equation(self, weights: Mapping[str, float]) -> str:
        """What r is, for people."""
        others = " + ".join(f"{weight:g}·{name}" for name, weight in weights.items() if name not in self.terms)
        return f"r = ‖∇({others})‖ / ‖∇term‖" if others else "r = geometric mean of all ‖∇term‖ / ‖∇term‖"

    def extra_repr(self) -> str:
        return f"terms={list(self.terms)}, every={self.every}, smoothing={self.smoothing:g}"
