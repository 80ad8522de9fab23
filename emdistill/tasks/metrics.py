"""What the kinds' metrics share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def correlation(measure: Callable[..., Any], answers: NDArray[Any], labels: NDArray[Any]) -> float:
    """measure(answers, labels); 0.0 where one side is constant: it is undefined there, and a constant knows nothing."""
    for values in (answers, labels):
        # relative, because numbers that differ by rounding only are constant too
        if np.ptp(values) <= 1e-12 * np.abs(values).max():
            return 0.0
    return float(measure(answers, labels))
