from __future__ import annotations

import math

import numpy as np
import pytest

from emdistill.errors import ConfigError, DataError, ModelError
from emdistill.tasks.metrics import METRICS, chance, score
from emdistill.tasks.task import Task

PAIR = Task("pair", "classification", ("no", "yes"), ("accuracy", "f1", "matthews_corrcoef"))
STARS = Task("stars", "classification", ("1", "2", "3"), ("accuracy", "macro_f1"))
SIMILARITY = Task("similarity", "regression", (), ("pearson", "spearman"))


def one_hot(predictions: list[int], classes: int) -> np.ndarray:
    return np.eye(classes)[predictions]


def counts(predictions: np.ndarray, labels: np.ndarray, positive: int) -> tuple[int, int, int, int]:
    p, t = predictions == positive, labels == positive
    return int((p & t).sum()), int((p & ~t).sum()), int((~p & t).sum()), int((~p & ~t).sum())


def f1_by_hand(predictions: np.ndarray, labels: np.ndarray, positive: int) -> float:
    tp, fp, fn, _ = counts(predictions, labels, positive)
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0


def pearson_by_hand(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum()))


def test_binary_metrics_equal_their_formulas_on_random_confusions() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        labels, logits = rng.integers(0, 2, 40), rng.normal(size=(40, 2))
        predictions = logits.argmax(1)
        tp, fp, fn, tn = counts(predictions, labels, 1)
        product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        expected = {
            "accuracy": (tp + tn) / 40,
            "f1": f1_by_hand(predictions, labels, 1),
            "matthews_corrcoef": (tp * tn - fp * fn) / math.sqrt(product) if product else 0.0,
        }
        found = score(PAIR, logits, labels)
        assert list(found) == list(PAIR.metrics)
        assert found == pytest.approx(expected)


def test_macro_f1_is_the_mean_over_classes() -> None:
    rng = np.random.default_rng(1)
    labels, logits = rng.integers(0, 3, 60), rng.normal(size=(60, 3))
    by_hand = np.mean([f1_by_hand(logits.argmax(1), labels, index) for index in range(3)])
    assert score(STARS, logits, labels)["macro_f1"] == pytest.approx(by_hand)


def test_correlations_equal_their_formulas_and_take_both_shapes_of_logits() -> None:
    rng = np.random.default_rng(2)
    labels = rng.normal(size=30)
    logits = (labels + rng.normal(size=30)).astype(np.float32)
    ranks = [np.argsort(np.argsort(values)).astype(float) for values in (logits, labels)]
    found = score(SIMILARITY, logits[:, None], labels)
    assert found == pytest.approx({"pearson": pearson_by_hand(logits, labels), "spearman": pearson_by_hand(*ranks)})
    assert score(SIMILARITY, logits, labels) == found


@pytest.mark.parametrize("constant", [0.0, 2.5, -1e-9, 1e9])
def test_constant_outputs_have_correlation_zero_without_a_warning(constant: float) -> None:
    labels = np.array([1.0, 2.0, 3.0])
    outputs = np.array([constant, constant * (1 + 1e-15), constant])
    assert score(SIMILARITY, outputs, labels) == {"pearson": 0.0, "spearman": 0.0}
    assert score(PAIR, one_hot([1, 1, 1], 2), np.array([0, 1, 1]))["matthews_corrcoef"] == 0.0
    assert score(PAIR, one_hot([0, 0, 0], 2), np.array([0, 0, 0])) == {
        "accuracy": 1.0,
        "f1": 0.0,
        "matthews_corrcoef": 0.0,
    }


def test_every_metric_is_greatest_for_perfect_predictions() -> None:
    labels = np.array([0, 1, 1, 0, 1])
    for metric in METRICS.values():
        assert metric(labels, labels) == pytest.approx(1.0)
        assert metric(1 - labels, labels) < 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_outputs_that_are_no_numbers_are_refused(bad: float) -> None:
    logits = np.zeros((4, 2))
    logits[2, 1] = bad
    with pytest.raises(ModelError, match=r"NaN or infinite for 1 of 4 examples"):
        score(PAIR, logits, np.array([0, 1, 0, 1]))


def test_outputs_of_the_wrong_width_unknown_metrics_and_no_examples_are_refused() -> None:
    with pytest.raises(ModelError, match=r"shape \[4, 3\].*'pair'.*\[4, 2\]"):
        score(PAIR, np.zeros((4, 3)), np.zeros(4, dtype=int))
    with pytest.raises(ConfigError, match=r"'bleu'; there are: accuracy, f1"):
        score(Task("x", "classification", ("a", "b"), ("bleu",)), np.zeros((1, 2)), np.zeros(1, dtype=int))
    with pytest.raises(DataError, match="no examples"):
        score(PAIR, np.zeros((0, 2)), np.zeros(0, dtype=int))


def test_chance_is_what_a_constant_guess_reaches() -> None:
    labels = np.array([2, 2, 2, 0, 1, 2])
    assert chance(STARS, labels) == pytest.approx(4 / 6)
    assert chance(SIMILARITY, np.array([0.5, 3.0, 4.0])) == 0.0
    grammar = Task("grammar", "classification", ("bad", "good"), ("matthews_corrcoef",))
    assert chance(grammar, np.array([1, 1, 0])) == 0.0
    f1_first = Task("f1", "classification", ("no", "yes"), ("f1",))
    assert chance(f1_first, np.array([1, 1, 1, 0])) == pytest.approx(2 * 3 / (2 * 3 + 1))
