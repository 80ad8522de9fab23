"""How two models' answers compare with the labels and with each other: calibration, confusion, disagreement."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
BINS = 10


def log_probabilities(logits: NDArray[np.floating]) -> Matrix:
    """Log-softmax over the classes: logits [rows, C] -> [rows, C]."""
    shifted = np.asarray(logits, dtype=np.float64) - np.max(logits, axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def reliability_bins(
    probabilities: Matrix, labels: NDArray[np.int64], bins: int = BINS
) -> list[tuple[float, float, int]]:
    """(mean confidence, accuracy, rows) of each bin; the first two are 0 where it holds no row.

    Confidence is the probability of the answer, in bins of equal width from 0 to 1, each with its upper edge
    (Guo et al., 2017, On Calibration of Modern Neural Networks, section 2).
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    rows = np.bincount(place, minlength=bins)
    means = [np.bincount(place, values, minlength=bins) / np.maximum(rows, 1) for values in (confidence, right)]
    return [(float(mean), float(share), int(count)) for mean, share, count in zip(*means, rows, strict=True)]


def calibration_error(bins: list[tuple[float, float, int]]) -> float:
    """Expected calibration error: Σ rows/all · |accuracy - confidence| over the bins (Guo et al., 2017, equation 3)."""
    rows = sum(count for _, _, count in bins)
    return sum(count / rows * abs(accuracy - confidence) for confidence, accuracy, count in bins)


def confusion(labels: NDArray[np.int64], answers: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Rows by gold label (axis 0) and given answer (axis 1), [classes, classes]."""
    pairs = labels * classes + answers
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def symmetric_divergence(teacher: Matrix, student: Matrix) -> Matrix:
    """KL(teacher ‖ student) + KL(student ‖ teacher) a row, in nats, from log-probabilities [rows, C]."""
    return np.asarray(((np.exp(teacher) - np.exp(student)) * (teacher - student)).sum(axis=1))


def largest(values: Matrix, count: int) -> list[int]:
    """The places of the largest values, the largest first; of equal ones the earlier first."""
    return [int(place) for place in np.argsort(-values, kind="stable")[:count]]
