"""What a user could have without any encoder: TF-IDF and logistic regression on the demo's task.

    python benchmarks/tfidf_baseline.py --output tfidf.json

The rows are those of `emdistill demo`. Features are words, pairs of words and pieces of words of 2 to 5 characters.
"""

import time
from pathlib import Path

from jsonargparse import auto_cli
from measure import save
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union

from emdistill.data.docstrings import read_docstrings


def main(*, output: Path | None = None, train_size: int = 9100) -> None:
    """Fit and score the baseline.

    Args:
        output: JSON file of the figures.
        train_size: sentences to learn from.
    """
    data = read_docstrings(train_size=train_size)
    dev = data.evaluation["dev"]
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    baseline = make_pipeline(make_union(words, characters), LogisticRegression(C=10, max_iter=300))
    started = time.perf_counter()
    baseline.fit(data.train["text"][:], data.train["label"][:])
    accuracy = baseline.score(dev["text"][:], dev["label"][:])
    seconds = time.perf_counter() - started
    print(f"{len(data.train):,} rows to learn from, {len(dev):,} of dev: accuracy {accuracy:.4f}, {seconds:.0f} s")
    save(output, {"accuracy": accuracy, "train": len(data.train), "dev": len(dev), "seconds": seconds})


if __name__ == "__main__":
    auto_cli(main)
