"""What a student may cost, as a user says it: '5ms, 30MB'."""

import math
import re
from dataclasses import dataclass

import numpy as np

from emdistill.console import short
from emdistill.errors import ConfigError

PART = re.compile(r"([0-9.]+)\s*([A-Za-z]+)")
UNITS: dict[str, tuple[str, float]] = {
    "ms": ("ms", 1.0), "s": ("ms", 1000.0), "kb": ("mb", 1e-3), "mb": ("mb", 1.0), "gb": ("mb", 1000.0),
}  # fmt: skip
MARGIN = 0.95  # of the milliseconds that a prediction may use: it is a few percent off
FORM = "write milliseconds, megabytes or both: --budget '5ms, 30MB'"


@dataclass(frozen=True)
class Cost:
    """ms: 95th percentile of a text of 128 tokens, one at a time; mb: the model file, MB = 10⁶ bytes."""

    ms: float
    mb: float

    def __str__(self) -> str:
        return f"{short(self.ms)} ms, {short(self.mb)} MB"

    @property
    def to_be_sure(self) -> "Cost":
        """What a budget has to allow where this is a prediction."""
        return Cost(self.ms / MARGIN, self.mb)


@dataclass(frozen=True)
class Budget:
    """The most of a Cost; None is no limit."""

    ms: float | None = None
    mb: float | None = None

    def __str__(self) -> str:
        """As `read_budget` reads it again: never in powers of ten."""
        limits = ((self.ms, "ms"), (self.mb, "MB"))
        return ", ".join(f"{_plain(limit)} {unit}" for limit, unit in limits if limit is not None)

    def overshoot(self, cost: Cost) -> float:
        """How many times the limits a cost is, by the limit that it misses most: at most 1 where it keeps both."""
        ratios = [part / limit for part, limit in ((cost.ms, self.ms), (cost.mb, self.mb)) if limit is not None]
        return max(ratios)

    def keeps(self, cost: Cost) -> bool:
        """Whether a cost is within the limits."""
        return self.overshoot(cost) <= 1.0

    def reached_by(self, cost: Cost) -> "Budget":
        """The limits, those that the cost misses made as wide as it needs, rounded up to two digits."""
        return Budget(_widened(self.ms, cost.ms), _widened(self.mb, cost.mb))


def read_budget(text: str) -> Budget:
    """'5ms, 30MB' as a Budget; raises ConfigError for another form, a unit that is none, and a limit given twice."""
    limits: dict[str, float] = {}
    for part in text.split(","):
        match = PART.fullmatch(part.strip())
        if match is None or match[2].lower() not in UNITS:
            raise ConfigError(f"--budget {text!r}: {part.strip()!r} is no limit; {FORM}")
        name, scale = UNITS[match[2].lower()]
        try:
            value = float(match[1]) * scale
        except ValueError:
            raise ConfigError(f"--budget {text!r}: {match[1]!r} is no number; {FORM}") from None
        if name in limits:
            raise ConfigError(f"--budget {text!r} says {name} twice; say each limit once")
        if not 0 < value < math.inf:
            raise ConfigError(f"--budget {text!r}: a limit is above 0")
        limits[name] = value
    return Budget(**limits)


def _plain(limit: float) -> str:
    return np.format_float_positional(limit, precision=12, fractional=False, trim="-")


def _widened(limit: float | None, part: float) -> float | None:
    if limit is None or part <= limit:
        return limit
    digits = 10.0 ** (math.floor(math.log10(part)) - 1)
    return float(f"{math.ceil(part / digits) * digits:.3g}")
