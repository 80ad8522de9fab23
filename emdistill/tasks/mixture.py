"""Several tasks learned at once: how often each one is met, and what they score together."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from emdistill.errors import ConfigError

TEMPER = 0.75
MEAN = "mean"  # the metric of a mixture: the mean over its tasks of each one's first metric
MIXTURE = "mixture"  # what a record calls the kind of several tasks


def shares(sizes: Sequence[int], temper: float = TEMPER, weights: Sequence[float] | None = None) -> NDArray[np.float64]:
    """How often each task is met: p_t ∝ w_t · n_t^temper, summing to 1.

    sizes    n_t, the rows of each task
    temper   1 meets each row equally often, 0 each task
    weights  w_t, 1 if not given
    Raises ConfigError for a temper outside [0, 1], a weight that is not above 0, a task without rows.
    Source: Clark et al., BAM!, ACL 2019 (arXiv 1907.04829), section 4.1: temper 0.75.
    """
    if not 0 <= temper <= 1:
        raise ConfigError(f"temper {temper:g}: a power between 0 (each task as often) and 1 (each row as often)")
    factors = np.ones(len(sizes)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise ConfigError(f"the weights of tasks are above 0 and finite, not {', '.join(f'{w:g}' for w in factors)}")
    if not sizes or min(sizes) < 1:
        raise ConfigError("each task of a mixture needs at least one row to learn from")
    tempered = factors * np.asarray(sizes, dtype=np.float64) ** temper
    return np.asarray(tempered / tempered.sum())


def batch_counts(
    sizes: Sequence[int], batch_size: int, temper: float = TEMPER, weights: Sequence[float] | None = None
) -> list[int]:
    """Batches of each task in an epoch, by the largest remainder, at least one each.

    An epoch has as many rows as all tasks together, ⌈Σ n_t / batch size⌉ batches: those of small tasks come more than
    once. Raises ConfigError as `shares` does.
    """
    total = max(len(sizes), math.ceil(sum(sizes) / batch_size))
    exact = total * shares(sizes, temper, weights)
    counts = np.maximum(np.floor(exact).astype(np.int64), 1)
    while counts.sum() < total:
        counts[(exact - counts).argmax()] += 1
    while counts.sum() > total:
        counts[np.where(counts > 1, counts - exact, -np.inf).argmax()] -= 1
    return [int(count) for count in counts]


def joint_scores(scores: Mapping[str, Mapping[str, float]], metrics: Mapping[str, str]) -> dict[str, float]:
    """The mean of the tasks' metrics that count, and each task's own as `task/metric`.

    scores   task -> its scores by metric
    metrics  task -> the metric that counts
    """
    mean = float(np.mean([scores[task][metric] for task, metric in metrics.items()]))
    return {MEAN: mean} | {f"{task}/{name}": value for task, own in scores.items() for name, value in own.items()}
