"""A linear head over the features of texts: logistic regression, one per label for several labels, ridge for scores.

Its strength C (ridge: 1/α) is chosen by cross-validation on train alone, by the metric that counts.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from emdistill.data.read import hold_out
from emdistill.errors import DataError
from emdistill.tasks.kind import check_one_answer
from emdistill.tasks.task import Task

Features = Any
"""[rows, F], a NumPy array or a SciPy sparse matrix."""
Featurise = Callable[[Sequence[str], Sequence[str] | None], Features]
"""(texts, second texts of pairs) -> features."""

SEED = 42
FOLDS = 3
MOST_ROWS = 20_000  # that a baseline learns from
ROWS_TO_CHOOSE_BY = 5_000
NEVER = -20.0  # the logit of a class that no training row has


@dataclass(frozen=True)
class LinearHead:
    """logits = features · weights + bias; weights [F, C], bias [C]."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def __call__(self, features: Features) -> NDArray[np.float32]:
        """Logits [rows, C]."""
        return np.asarray(features @ self.weights + self.bias, dtype=np.float32)

    @property
    def bytes(self) -> int:
        """Of weights and bias."""
        return self.weights.nbytes + self.bias.nbytes


@dataclass(frozen=True)
class Fitted:
    """A baseline that has learned: logits of texts, the bytes it takes, and how it was made, in a few words."""

    featurise: Featurise
    head: LinearHead
    bytes: int
    note: str

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None) -> NDArray[np.float32]:
        """Logits [rows, C] of texts, or of pairs."""
        return self.head(self.featurise(texts, pairs))


def columns(examples: Dataset) -> tuple[list[str], list[str] | None]:
    """The texts, and the second texts of pairs."""
    pairs = list(examples["text_pair"]) if "text_pair" in examples.column_names else None
    return list(examples["text"]), pairs


def capped(train: Dataset, task: Task) -> tuple[Dataset, str]:
    """At most MOST_ROWS rows, drawn with the classes' shares, and a note on how many are learned from.

    Raises ConfigError where a row has several answers.
    """
    check_one_answer(task.kind, "a linear head over features of a text")
    if len(train) <= MOST_ROWS:
        return train, f"{len(train):,} rows"
    _, drawn = hold_out(train, task, MOST_ROWS / len(train), SEED, MOST_ROWS)
    return drawn, f"{len(drawn):,} of {len(train):,} rows"


def choose_and_fit(
    features: Features, labels: NDArray[Any], task: Task, strengths: Sequence[float]
) -> tuple[LinearHead, float]:
    """The head of the strength that scores best in FOLDS-fold cross-validation, and that strength.

    Equal scores give the smaller strength. Raises DataError where there is nothing to learn from.
    """
    if not len(labels):
        raise DataError("there is no row to learn from")
    chosen = np.random.default_rng(SEED).permutation(len(labels))[:ROWS_TO_CHOOSE_BY]
    rows, gold = features[chosen], labels[chosen]
    folds = _folds(task.kind.strata(gold), len(gold))
    scores = [_score(rows, gold, folds, task, strength) for strength in strengths]
    best = strengths[int(np.argmax(scores))]
    return fit_head(features, labels, task, best), best


def head_note(task: Task, strength: float) -> str:
    """What the head is, in the terms of scikit-learn: 'logistic regression, C 16 (by cross-validation)'."""
    ridge = task.kind.link == "identity"
    name, value = ("ridge regression, α", 1 / strength) if ridge else ("logistic regression, C", strength)
    return f"{name} {value:g} (by cross-validation)"


def _score(features: Features, labels: NDArray[Any], folds: NDArray[np.int64], task: Task, strength: float) -> float:
    """The first metric of all rows, each answered by the head that has not seen its fold."""
    logits = np.zeros((len(labels), task.outputs), dtype=np.float32)
    for fold in range(FOLDS):
        held_out = folds == fold
        if held_out.any() and not held_out.all():
            logits[held_out] = fit_head(features[~held_out], labels[~held_out], task, strength)(features[held_out])
    return task.score(logits, labels)[task.metrics[0]]


def _folds(strata: NDArray[np.int64] | None, rows: int) -> NDArray[np.int64]:
    """The fold of each row; each stratum is dealt out evenly."""
    shuffled = np.random.default_rng(SEED).permutation(rows)
    order = shuffled if strata is None else shuffled[np.argsort(strata[shuffled], kind="stable")]
    folds = np.empty(rows, dtype=np.int64)
    folds[order] = np.arange(rows) % FOLDS
    return folds


def fit_head(features: Features, labels: NDArray[Any], task: Task, strength: float) -> LinearHead:
    """A head for the task's logits; dense features are standardised, and the scales folded into the weights."""
    if issparse(features):
        weights, bias = _weights(features, labels, task, strength)
    else:
        centre, scale = features.mean(axis=0), features.std(axis=0)
        scale[scale < 1e-6 * np.abs(features).max(initial=1e-30)] = np.inf  # a constant says nothing
        weights, bias = _weights((features - centre) / scale, labels, task, strength)
        weights = weights / scale[:, None]
        bias = bias - centre @ weights
    return LinearHead(weights.astype(np.float32), np.asarray(bias, dtype=np.float32))


def _weights(features: Features, labels: NDArray[Any], task: Task, strength: float) -> tuple[Any, Any]:
    """Weights [F, C] and bias [C] by the task's link: softmax, a sigmoid per label, or identity."""
    if task.kind.link == "identity":
        scores = labels.reshape(len(labels), -1).T
        answers = [_one_score(features, column, strength) for column in scores]
        return np.stack([weights for weights, _ in answers], axis=1), np.array([bias for _, bias in answers])
    if task.kind.link == "softmax":
        return _classes(features, labels, task.outputs, strength)
    answers = [_one_label(features, column > 0.5, strength) for column in labels.T]
    return np.stack([weights for weights, _ in answers], axis=1), np.array([bias for _, bias in answers])


def _one_score(features: Features, scores: NDArray[Any], strength: float) -> tuple[Any, float]:
    """Weights [F] and bias of one score, from the rows that have it; 0 where none has."""
    there = ~np.isnan(scores)
    if not there.any():
        return np.zeros(features.shape[1]), 0.0
    ridge = Ridge(alpha=1 / strength).fit(features[there], scores[there])
    return ridge.coef_, float(ridge.intercept_)


def _classes(features: Features, labels: NDArray[Any], outputs: int, strength: float) -> tuple[Any, Any]:
    """Multinomial weights [F, C] and bias [C]; of two classes in train the first one's logit is 0."""
    weights, bias = np.zeros((features.shape[1], outputs)), np.full(outputs, NEVER)
    present = np.unique(labels)
    bias[present] = 0.0
    if len(present) > 1:
        learned = _logistic(features, labels, strength)
        places = present[1:] if len(present) == 2 else present
        weights[:, places], bias[places] = learned.coef_.T, learned.intercept_
    return weights, bias


def _one_label(features: Features, has_it: NDArray[np.bool_], strength: float) -> tuple[Any, float]:
    """Weights [F] and bias of one label against the rest; constant where all rows agree."""
    if has_it.all() or not has_it.any():
        return np.zeros(features.shape[1]), -NEVER if has_it.all() else NEVER
    learned = _logistic(features, has_it, strength)
    return learned.coef_[0], float(learned.intercept_[0])


def _logistic(features: Features, labels: NDArray[Any], strength: float) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # further steps change no answer
        return LogisticRegression(C=strength, max_iter=200).fit(features, labels)
