"""Calibration, confusion and disagreement, against loops over the rows and scikit-learn and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr
from sklearn.metrics import confusion_matrix

from emdistill.show.answer_statistics import (
    calibration_error,
    confusion,
    largest,
    log_probabilities,
    reliability_bins,
    symmetric_divergence,
)

RANDOM = np.random.default_rng(3)
LOGITS = RANDOM.normal(scale=2.0, size=(500, 4)).astype(np.float32)
OTHER = RANDOM.normal(scale=2.0, size=(500, 4)).astype(np.float32)
LABELS = RANDOM.integers(4, size=500)


def test_log_probabilities_are_a_log_softmax_even_of_large_logits() -> None:
    np.testing.assert_allclose(log_probabilities(LOGITS), log_softmax(LOGITS.astype(np.float64), axis=1))
    assert log_probabilities(np.array([[1e4, 0.0]])).tolist() == [[0.0, -1e4]]


def test_bins_and_calibration_error_are_those_of_a_loop() -> None:
    probabilities = np.exp(log_probabilities(LOGITS))
    bins = reliability_bins(probabilities, LABELS)
    error = 0.0
    for place, (confidence, accuracy, rows) in enumerate(bins):
        inside = [
            (row.max(), row.argmax() == label)
            for row, label in zip(probabilities, LABELS, strict=True)
            if place / 10 < row.max() <= (place + 1) / 10
        ]
        assert rows == len(inside)
        if inside:
            assert confidence == pytest.approx(np.mean([sure for sure, _ in inside]))
            assert accuracy == pytest.approx(np.mean([right for _, right in inside]))
            error += len(inside) / 500 * abs(accuracy - confidence)
    assert sum(rows for _, _, rows in bins) == 500
    assert calibration_error(bins) == pytest.approx(error)


def test_a_model_that_is_sure_and_right_is_calibrated() -> None:
    bins = reliability_bins(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1]))
    assert bins[-1] == (1.0, 1.0, 2)
    assert calibration_error(bins) == 0.0
    assert calibration_error(reliability_bins(np.array([[1.0, 0.0]]), np.array([1]))) == 1.0


def test_confusion_is_scikit_learns() -> None:
    answers = LOGITS.argmax(axis=1)
    np.testing.assert_array_equal(confusion(LABELS, answers, 5), confusion_matrix(LABELS, answers, labels=range(5)))


def test_disagreement_is_the_sum_of_both_divergences() -> None:
    first, second = (np.exp(log_probabilities(logits)) for logits in (LOGITS, OTHER))
    expected = (rel_entr(first, second) + rel_entr(second, first)).sum(axis=1)
    found = symmetric_divergence(log_probabilities(LOGITS), log_probabilities(OTHER))
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert symmetric_divergence(log_probabilities(LOGITS), log_probabilities(LOGITS)).max() == 0.0


def test_the_largest_come_first_and_equal_ones_in_order() -> None:
    assert largest(np.array([1.0, 3.0, 2.0, 3.0]), 3) == [1, 3, 2]
