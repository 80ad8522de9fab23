"""TF-IDF of words and of pieces of words with a linear head: what takes seconds, and no encoder."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer

from emdistill.baselines.linear import Features, Fitted, capped, choose_and_fit, columns
from emdistill.errors import DataError
from emdistill.tasks.task import Task

STRENGTHS = (0.25, 1.0, 4.0, 16.0)
MOST_FEATURES = 300_000  # of each kind, the most frequent ones


@dataclass(frozen=True)
class TfidfFeatures:
    """Rows [words(a), characters(a)]; of pairs also those of b, of words |a − b| and a ∘ b, and what both share.

    words        words and pairs of words
    characters   pieces of words of 2 to 5 characters
    """

    words: TfidfVectorizer
    characters: TfidfVectorizer

    def __call__(self, texts: Sequence[str], pairs: Sequence[str] | None) -> Features:
        a = [self.words.transform(texts), self.characters.transform(texts)]
        if pairs is None:
            return hstack(a, format="csr", dtype=np.float32)
        b = [self.words.transform(pairs), self.characters.transform(pairs)]
        overlaps = np.stack([*map(_cosine, a, b), _shared_words(a[0], b[0])], axis=1)
        parts = [*a, *b, abs(a[0] - b[0]), a[0].multiply(b[0]), csr_matrix(overlaps)]
        return hstack(parts, format="csr", dtype=np.float32)


def tfidf(train: Dataset, task: Task) -> Fitted:
    """Learn TF-IDF features and their head; raises DataError for texts without a word."""
    train, rows = capped(train, task)
    texts, pairs = columns(train)
    shared: dict[str, Any] = {"sublinear_tf": True, "max_features": MOST_FEATURES, "dtype": np.float32}
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", **shared)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **shared)
    featurise = TfidfFeatures(words, characters)
    try:
        for part in (words, characters):
            part.fit([*texts, *(pairs or ())])
    except ValueError as error:  # scikit-learn's, for an empty vocabulary
        raise DataError(f"the training texts hold no words ({error})") from None
    labels = np.asarray(train["label"][:])
    head, strength = choose_and_fit(featurise(texts, pairs), labels, task, STRENGTHS)
    size = len(pickle.dumps(featurise)) + head.bytes
    return Fitted(featurise, head, size, f"{rows}, C {strength:g}")


def _cosine(a: Any, b: Any) -> Any:
    """Of rows of length 1."""
    return np.asarray(a.multiply(b).sum(axis=1)).ravel()


def _shared_words(a: Any, b: Any) -> Any:
    """Jaccard's index of the terms of both rows."""
    shared = np.asarray((a > 0).multiply(b > 0).sum(axis=1)).ravel()
    either = np.diff(a.indptr) + np.diff(b.indptr) - shared
    return shared / np.maximum(either, 1)
