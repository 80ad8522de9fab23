"""Calibration and disagreement, against loops over the rows and SciPy."""

import numpy as np
import pytest
from scipy.special import expit, log_softmax, rel_entr, softmax

from emdistill.show.answer_statistics import (
    calibration_error,
    class_divergence,
    label_divergence,
    largest,
    reliability_bins,
)

RANDOM = np.random.default_rng(3)
LOGITS = RANDOM.normal(scale=2.0, size=(500, 4)).astype(np.float32)
OTHER = RANDOM.normal(scale=2.0, size=(500, 4)).astype(np.float32)
LABELS = RANDOM.integers(4, size=500)
HELD = RANDOM.random((500, 4)) < 0.3


@pytest.mark.parametrize("several", [False, True])
def test_bins_and_calibration_error_are_those_of_a_loop(several: bool) -> None:
    """Over the rows' answers, or of several labels over all pairs of a row and a label."""
    classes = softmax(LOGITS.astype(np.float64), axis=1)
    probabilities, outcomes = classes.max(axis=1), classes.argmax(axis=1) == LABELS
    if several:
        probabilities, outcomes = expit(LOGITS.astype(np.float64)), HELD
    pairs = list(zip(probabilities.ravel().tolist(), outcomes.ravel().tolist(), strict=True))
    bins, error = reliability_bins(probabilities, outcomes), 0.0
    for place, (mean, share, count) in enumerate(bins):
        inside = [pair for pair in pairs if place / 10 < pair[0] <= (place + 1) / 10]
        assert count == len(inside)
        if inside:
            assert (mean, share) == pytest.approx(tuple(np.mean(inside, axis=0)))
            error += len(inside) / len(pairs) * abs(share - mean)
    assert sum(count for _, _, count in bins) == len(pairs)
    assert calibration_error(bins) == pytest.approx(error)


def test_a_model_that_is_sure_and_right_is_calibrated() -> None:
    bins = reliability_bins(np.array([1.0, 1.0]), np.array([True, True]))
    assert bins[-1] == (1.0, 1.0, 2)
    assert calibration_error(bins) == 0.0
    assert calibration_error(reliability_bins(np.array([1.0]), np.array([False]))) == 1.0
    assert reliability_bins(np.array([0.0]), np.array([False]))[0] == (0.0, 0.0, 1)


def test_disagreement_of_classes_is_the_sum_of_both_divergences() -> None:
    first, second = (np.exp(log_softmax(logits.astype(np.float64), axis=1)) for logits in (LOGITS, OTHER))
    expected = (rel_entr(first, second) + rel_entr(second, first)).sum(axis=1)
    np.testing.assert_allclose(class_divergence(LOGITS, OTHER), expected, rtol=1e-9)
    assert class_divergence(LOGITS, LOGITS).max() == 0.0
    assert class_divergence(np.array([[1e4, 0.0]]), np.array([[0.0, 1e4]])).tolist() == [2e4]


def test_disagreement_of_labels_is_that_sum_over_each_labels_two_outcomes() -> None:
    first, second = (expit(logits.astype(np.float64)) for logits in (LOGITS, OTHER))
    expected = sum(rel_entr(p, q) + rel_entr(q, p) for p, q in ((first, second), (1 - first, 1 - second))).sum(axis=1)
    np.testing.assert_allclose(label_divergence(LOGITS, OTHER), expected, rtol=1e-9)
    assert label_divergence(LOGITS, LOGITS).max() == 0.0
    assert np.isfinite(label_divergence(np.array([[1e4, 0.0]]), np.array([[-1e4, 0.0]]))).all()


def test_the_largest_come_first_and_equal_ones_in_order() -> None:
    assert largest(np.array([1.0, 3.0, 2.0, 3.0]), 3) == [1, 3, 2]
