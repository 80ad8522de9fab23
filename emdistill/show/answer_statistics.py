"""How two models' answers compare with the labels and with each other: calibration and disagreement."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax

Matrix = NDArray[np.float64]
Bins = list[tuple[float, float, int]]
BINS = 10


def reliability_bins(probabilities: Matrix, outcomes: NDArray[np.bool_]) -> Bins:
    """(mean probability, share that held, count) of each bin; the first two are 0 where the bin is empty.

    probabilities, outcomes   of any shape, the same: what a model gave to a statement, and whether it was so. For
                              classes the statement is its answer, for several labels each label of each row
    Bins are of equal width from 0 to 1, each with its upper edge (Guo et al., 2017, On Calibration of Modern Neural
    Networks, section 2).
    """
    flat = probabilities.ravel()
    place = np.clip(np.ceil(flat * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    means = [np.bincount(place, values, minlength=BINS) / np.maximum(counts, 1) for values in (flat, outcomes.ravel())]
    return [(float(mean), float(share), int(count)) for mean, share, count in zip(*means, counts, strict=True)]


def calibration_error(bins: Bins) -> float:
    """Expected calibration error: Σ count/all · |share - mean| over the bins (Guo et al., 2017, equation 3)."""
    means, shares, counts = np.array(bins).T
    return float(np.average(np.abs(shares - means), weights=counts))


def class_divergence(teacher: NDArray[np.floating], student: NDArray[np.floating]) -> Matrix:
    """KL(teacher ‖ student) + KL(student ‖ teacher) per row, in nats: Σ (p - q)·(log p - log q), logits [rows, C]."""
    p, q = (log_softmax(logits.astype(np.float64), axis=1) for logits in (teacher, student))
    return np.asarray(((np.exp(p) - np.exp(q)) * (p - q)).sum(axis=1))


def label_divergence(teacher: NDArray[np.floating], student: NDArray[np.floating]) -> Matrix:
    """The same summed over labels that hold or not, each by itself: Σ (σ(t) - σ(s))·(t - s), logits [rows, C]."""
    t, s = (logits.astype(np.float64) for logits in (teacher, student))
    return np.asarray(((expit(t) - expit(s)) * (t - s)).sum(axis=1))


def largest(values: Matrix, count: int) -> list[int]:
    """The places of the largest values, the largest first; of equal ones the earlier first."""
    return [int(place) for place in np.argsort(-values, kind="stable")[:count]]
