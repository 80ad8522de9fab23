"""A baseline as a folder: its example answers as the baseline does."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from emdistill.baselines import Fitted, over_vectors, static_vectors, tfidf
from emdistill.ship.baseline_folder import weight_bytes, write_baseline
from emdistill.tasks import KINDS
from emdistill.tasks.task import Task

ROWS = {"text": [f"the movie was {('bad', 'good')[row % 2]}, row {row}" for row in range(40)]}
LABELS = {"label": [row % 2 for row in range(40)]}
ONE = Task("one", KINDS["classification"], ("bad", "good"), ("accuracy",))
PAIR = Task("pair", KINDS["classification"], ("bad", "good"), ("accuracy",), text_pair="text_pair")


def answers(folder: Path, *texts: str) -> np.ndarray:
    """What example.py prints, in a process that does not find emdistill."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-P", str(folder / "example.py"), *texts]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=folder)
    cells = [line.split("\t")[:2] for line in done.stdout.splitlines()]
    assert [cell.partition("=")[0] for cell in cells[0]] == ["bad", "good"]
    return np.array([[float(cell.partition("=")[2]) for cell in row] for row in cells])


def check(folder: Path, fitted: Fitted, task: Task) -> None:
    folder.mkdir()
    write_baseline(folder, fitted, task)
    assert 0 < weight_bytes(folder) <= fitted.bytes + 2000  # of the archives
    texts = ["the movie was good", "It was – bad!"]
    if task.text_pair is None:
        found, expected = answers(folder, *texts), fitted.logits(texts, None)
    else:
        found, expected = answers(folder, *texts), fitted.logits(texts[:1], texts[1:])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_tfidf_answers_texts(tmp_path: Path) -> None:
    check(tmp_path / "model", tfidf(Dataset.from_dict(ROWS | LABELS), ONE), ONE)


def test_tfidf_answers_pairs(tmp_path: Path) -> None:
    rows = ROWS | {"text_pair": ROWS["text"][::-1]} | LABELS
    check(tmp_path / "model", tfidf(Dataset.from_dict(rows), PAIR), PAIR)


def test_static_vectors_answer_texts(tmp_path: Path, tiny_encoder, tiny_tokenizer) -> None:
    pytest.importorskip("skeletoken")
    pytest.importorskip("model2vec")
    embedding = static_vectors(tiny_encoder(layers=1).base_model, tiny_tokenizer, note="an encoder")
    check(tmp_path / "model", over_vectors(Dataset.from_dict(ROWS | LABELS), ONE, embedding), ONE)
