"""Weights that nobody tunes: each term's gradient is as long as is asked for, against that of the other terms."""

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from emdistill.errors import ConfigError

FIRST = 10  # measurements: at each step until there are so many, for norms change fast there
LARGEST_FACTOR = 1e4  # of a term that hardly pulls; one that does not pull at all would get an infinite one
LEAST_NORM = 1e-12
REFERENCE = "reference"

Norms = Callable[[Mapping[str, Tensor]], Mapping[str, float]]


class GradientBalance(nn.Module):
    """Factors r on terms, so that together or each they pull at the student as hard as their weights w ask for.

    r = R · Σ w / ‖∇ Σ w_t L_t‖, one factor for all terms, so that Σ w_t r L_t pulls Σ w times as hard as R; with
    `each`, r_t = R / ‖∇ L_t‖, so that w_t r_t L_t pulls w_t times as hard.

    terms           the terms that get a factor
    each            one factor per term; it blows up a term whose gradient is small because it is nearly learned
    R               ‖∇ of the weighted sum of all other terms‖; where there are none, the geometric mean of the norms
                    that r is divided by (so that one factor for all is 1)
    norm_steps      norms are measured until there are ten measurements, then at every so many optimizer steps
    norm_smoothing  ν of the running geometric mean of the norms: log G ← ν log G + (1 − ν) log G_new, the plain mean
                    of the logs as long as there are fewer than 1 / (1 − ν) measurements
    ∇ is over the student's weights. Factors are constants for the gradient, 1 before the first measurement, at most
    10⁴. Where a norm is 0, as that of labels in a batch without any, or not finite, as in a batch that is left out,
    there is no measurement. Buffers log_norms [factors + 1], R's last, and measurements.
    Raises ConfigError for settings out of range.
    """

    log_norms: Tensor
    measurements: Tensor

    def __init__(
        self, terms: Iterable[str], *, each: bool = False, norm_steps: int = 10, norm_smoothing: float = 0.8
    ) -> None:
        super().__init__()
        if norm_steps < 1:
            raise ConfigError(f"norm_steps={norm_steps} must be 1 or more: gradient norms are measured every so often")
        if not 0 <= norm_smoothing < 1:
            raise ConfigError(f"norm_smoothing={norm_smoothing:g} must lie in [0, 1): a share of the old norms stays")
        self.terms = tuple(terms)
        self.each = each
        groups = [(term,) for term in self.terms] if each else [self.terms]
        self.groups = {" + ".join(group): group for group in groups}
        self.norm_steps = norm_steps
        self.norm_smoothing = norm_smoothing
        self._measured_at = -1
        self._first = True  # whether it still measures at each step, by what `measurements` was when last looked at
        self.register_buffer("log_norms", torch.zeros(len(self.groups) + 1))
        self.register_buffer("measurements", torch.zeros(()))

    def due(self, step: int) -> bool:
        """Whether norms are to be measured at this optimizer step; once, however many batches it accumulates."""
        if self._first:  # later an accelerator need not be asked, and waited for, at every step
            self._first = bool(self.measurements < FIRST)
        return step != self._measured_at and (self._first or step % self.norm_steps == 0)

    def parts(self, terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
        """What is to be measured: the weighted mean of each group's terms; the weighted sum of the others, if any."""
        weighted = {name: weights[name] * value for name, value in terms.items()}
        parts = {
            part: torch.stack([weighted[name] for name in group]).sum() / sum(weights[name] for name in group)
            for part, group in self.groups.items()
        }
        others = [value for name, value in weighted.items() if name not in self.terms]
        return parts | ({REFERENCE: torch.stack(others).sum()} if others else {})

    @torch.no_grad()
    def note(self, step: int, norms: Mapping[str, float]) -> None:
        """Take the norms of `parts` into the running means, unless one of them is no measure."""
        if not all(LEAST_NORM < norm < math.inf for norm in norms.values()):
            return
        logs = [math.log(norms[name]) for name in self.groups]
        logs.append(math.log(norms[REFERENCE]) if REFERENCE in norms else sum(logs) / len(logs))
        self.measurements += 1
        self.log_norms.lerp_(
            self.log_norms.new_tensor(logs), torch.clamp(1 / self.measurements, min=1 - self.norm_smoothing)
        )
        self._measured_at = step

    def factors(self) -> dict[str, Tensor]:
        """r of each balanced term."""
        factors = (self.log_norms[-1] - self.log_norms[:-1]).clamp(max=math.log(LARGEST_FACTOR)).exp()
        groups = zip(self.groups.values(), factors, strict=True)
        return {name: factor for group, factor in groups for name in group}

    def equation(self, weights: Mapping[str, float]) -> str:
        """What r is, for people."""
        own, others = (
            " + ".join(f"{weight:g}·{name}" for name, weight in weights.items() if (name in self.terms) is balanced)
            for balanced in (True, False)
        )
        reference = f"‖∇({others})‖" if others else "geometric mean of all ‖∇term‖"
        total = sum(weights[name] for name in self.terms)
        return f"r = {reference} / ‖∇term‖" if self.each else f"r = {total:g}·{reference} / ‖∇({own})‖"

    def extra_repr(self) -> str:
        how_often = f"norm_steps={self.norm_steps}, norm_smoothing={self.norm_smoothing:g}"
        return f"terms={list(self.terms)}, each={self.each}, {how_often}"
