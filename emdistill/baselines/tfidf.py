"""TF-IDF of words and of pieces of words with a linear head: what takes seconds, and no encoder."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer

from emdistill.baselines.linear import Features, Fitted, capped, choose_and_fit, columns, head_note
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

    def save(self, folder: Path) -> None:
        """Write what open_tfidf reads."""
        arrays: dict[str, Any] = {}
        for name in ("words", "characters"):
            vectorizer = getattr(self, name)
            terms = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.get)  # no term has a line break
            arrays[name] = np.frombuffer("\n".join(terms).encode(), np.uint8)
            arrays[f"{name}_idf"] = vectorizer.idf_
        np.savez(folder / "tfidf.npz", **arrays)

    def __call__(self, texts: Sequence[str], pairs: Sequence[str] | None) -> Features:
        a = [self.words.transform(texts), self.characters.transform(texts)]
        if pairs is None:
            return hstack(a, format="csr", dtype=np.float32)
        b = [self.words.transform(pairs), self.characters.transform(pairs)]
        overlaps = np.stack([*map(cosine, a, b), shared_words(a[0], b[0])], axis=1)
        parts = [*a, *b, abs(a[0] - b[0]), a[0].multiply(b[0]), csr_matrix(overlaps)]
        return hstack(parts, format="csr", dtype=np.float32)


def vectorizers(words: dict[str, Any], characters: dict[str, Any]) -> TfidfFeatures:
    """Both of them, with further options of each."""
    shared: dict[str, Any] = {"sublinear_tf": True, "dtype": np.float32}
    return TfidfFeatures(
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", **shared, **words),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **shared, **characters),
    )


def open_tfidf(folder: Path) -> TfidfFeatures:
    """The features that were saved there."""
    saved = np.load(folder / "tfidf.npz")
    terms = {name: bytes(saved[name]).decode().split("\n") for name in ("words", "characters")}
    features = vectorizers({"vocabulary": terms["words"]}, {"vocabulary": terms["characters"]})
    features.words.idf_, features.characters.idf_ = saved["words_idf"], saved["characters_idf"]
    return features


def tfidf(train: Dataset, task: Task) -> Fitted:
    """Learn TF-IDF features and their head; raises DataError for texts without a word."""
    train, rows = capped(train, task)
    texts, pairs = columns(train)
    featurise = vectorizers({"max_features": MOST_FEATURES}, {"max_features": MOST_FEATURES})
    try:
        for part in (featurise.words, featurise.characters):
            part.fit([*texts, *(pairs or ())])
    except ValueError as error:  # scikit-learn's, for an empty vocabulary
        raise DataError(f"the training texts hold no words ({error})") from None
    labels = np.asarray(train["label"][:])
    head, strength = choose_and_fit(featurise(texts, pairs), labels, task, STRENGTHS)
    size = len(pickle.dumps(featurise)) + head.bytes
    return Fitted(featurise, head, size, f"{rows}, {head_note(task, strength)}")


def cosine(a: Any, b: Any) -> Any:
    """Of rows of length 1."""
    return np.asarray(a.multiply(b).sum(axis=1)).ravel()


def shared_words(a: Any, b: Any) -> Any:
    """Jaccard's index of the terms of both rows."""
    shared = np.asarray((a > 0).multiply(b > 0).sum(axis=1)).ravel()
    either = np.diff(a.indptr) + np.diff(b.indptr) - shared
    return shared / np.maximum(either, 1)
