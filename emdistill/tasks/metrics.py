"""What a model's outputs are worth: GLUE's metrics, every one "greater is better"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from emdistill.errors import ConfigError, DataError, ModelError
from emdistill.tasks.task import Task

Metric = Callable[[NDArray[Any], NDArray[Any]], float]
"""(predictions [n], labels [n]) -> value; class indices for classification, scores for regression."""


def _accuracy(predictions: NDArray[Any], labels: NDArray[Any]) -> float:
    return float(accuracy_score(labels, predictions))


def _f1(predictions: NDArray[Any], labels: NDArray[Any]) -> float:
    """F1 of the class with index 1."""
    return float(f1_score(labels == 1, predictions == 1, zero_division=0.0))


def _macro_f1(predictions: NDArray[Any], labels: NDArray[Any]) -> float:
    return float(f1_score(labels, predictions, average="macro", zero_division=0.0))


def _matthews(predictions: NDArray[Any], labels: NDArray[Any]) -> float:
    return _correlation(matthews_corrcoef, predictions, labels)


def _pearson(predictions: NDArray[Any], labels: NDArray[Any]) -> float:
    return _correlation(lambda x, y: pearsonr(x, y)[0], predictions, labels)


def _spearman(predictions: NDArray[Any], labels: NDArray[Any]) -> float:
    return _correlation(lambda x, y: spearmanr(x, y)[0], predictions, labels)


def _correlation(measure: Callable[..., Any], predictions: NDArray[Any], labels: NDArray[Any]) -> float:
    """0.0 where one side is constant: the correlation is undefined there, and a constant guess knows nothing."""
    for values in (predictions, labels):
        # relative, because numbers that differ by rounding only are constant too
        if np.ptp(values) <= 1e-12 * np.abs(values).max():
            return 0.0
    return float(measure(predictions, labels))


METRICS: dict[str, Metric] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews_corrcoef": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}


def score(task: Task, logits: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
    """The task's metrics, in the order in which the task names them.

    logits  [n, classes] (classification: the largest is the prediction), or [n, 1] or [n] (regression)
    labels  [n], class indices or scores
    Raises ModelError for NaN or infinite logits or a wrong width, DataError for no examples,
    ConfigError for an unknown metric.
    """
    predictions = _predictions(task, np.asarray(logits), len(labels))
    labels = _labels(task, labels)
    return {name: _metric(task, name)(predictions, labels) for name in task.metrics}


def chance(task: Task, labels: NDArray[Any]) -> float:
    """What a constant guess reaches in the task's first metric.

    The guess is the most frequent class, or the mean score.
    """
    labels = _labels(task, labels)
    guess = np.bincount(labels).argmax() if task.kind == "classification" else labels.mean()
    return _metric(task, task.metrics[0])(np.full_like(labels, guess), labels)


def _metric(task: Task, name: str) -> Metric:
    if name not in METRICS:
        raise ConfigError(f"task {task.name!r} asks for the metric {name!r}; there are: {', '.join(METRICS)}")
    return METRICS[name]


def _labels(task: Task, labels: NDArray[Any]) -> NDArray[Any]:
    if len(labels) == 0:
        raise DataError(f"task {task.name!r} has no examples to score")
    return np.asarray(labels, dtype=np.int64 if task.kind == "classification" else np.float64)


def _predictions(task: Task, logits: NDArray[Any], examples: int) -> NDArray[Any]:
    if logits.ndim == 1 and task.kind == "regression":
        logits = logits[:, None]
    if logits.shape != (examples, task.outputs):
        raise ModelError(
            f"the model's outputs have the shape {list(logits.shape)}, but task {task.name!r} "
            f"with {examples} examples needs {[examples, task.outputs]}"
        )
    spoiled = int((~np.isfinite(logits)).any(axis=1).sum())
    if spoiled:
        raise ModelError(
            f"the model's outputs are NaN or infinite for {spoiled} of {examples} examples; "
            "its weights are damaged, or the precision is too low: score it in float32"
        )
    return logits.argmax(axis=1) if task.kind == "classification" else logits[:, 0].astype(np.float64)
