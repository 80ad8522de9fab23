"""What a user could have without any encoder: TF-IDF and logistic regression on the demo's task.

    python benchmarks/tfidf_baseline.py --output tfidf.json

The rows are those of `emdistill demo`; the baseline is that of `emdistill distill --baselines tfidf`.
"""

import time
from pathlib import Path

from jsonargparse import auto_cli
from measure import save

from emdistill.baselines import tfidf
from emdistill.data.docstrings import read_docstrings


def main(*, output: Path | None = None, train_size: int = 9100) -> None:
    """Fit and score the baseline.

    Args:
        output: JSON file of the figures.
        train_size: sentences to learn from.
    """
    data = read_docstrings(train_size=train_size)
    dev = data.evaluation["dev"]
    started = time.perf_counter()
    fitted = tfidf(data.train, data.task)
    seconds = time.perf_counter() - started
    accuracy = data.task.score(fitted.logits(dev["text"][:], None), dev["label"][:])["accuracy"]
    print(f"{fitted.note}; {len(dev):,} rows of dev: accuracy {accuracy:.4f}, {seconds:.0f} s")
    save(output, {"accuracy": accuracy, "train": len(data.train), "dev": len(dev), "seconds": seconds})


if __name__ == "__main__":
    auto_cli(main)
