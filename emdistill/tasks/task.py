"""What a model is asked to do: a Task, and the data it is learned and scored on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datasets import Dataset

Kind = Literal["classification", "regression"]
# What a student predicts: classes, a score, the words behind masks, or nothing (an encoder without a head).
Predictions = Literal["classes", "score", "words", "none"]

RAW_TEXT = "text"  # the name of the task that is none: learning from raw text, for any task to come


@dataclass(frozen=True)
class Task:
    """A question asked of a sentence or a pair of sentences.

    labels   label names in index order; empty for regression
    metrics  names in tasks/metrics.py's METRICS; the first one chooses checkpoints
    text, text_pair, label   the columns' names in the user's files
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    description: str = ""

    @property
    def outputs(self) -> int:
        """The width of the logits: one a class, or one for a score."""
        return len(self.labels) if self.kind == "classification" else 1

    @property
    def predictions(self) -> Predictions:
        """What a model of this task predicts."""
        return "score" if self.kind == "regression" else "classes"


@dataclass(frozen=True)
class DataFile:
    """One file that was read: where, how many examples, and the hash of its bytes."""

    path: Path
    rows: int
    sha256: str


@dataclass(frozen=True)
class TaskData:
    """A task with its examples, checked row by row.

    train, and each dataset of `evaluation`, has the columns `text` (str), `text_pair` (str; only for pairs)
    and `label` (int index into task.labels, or float score), whatever the user's columns are called.
    evaluation   'dev' first; MNLI adds 'mismatched'
    held_out     how dev was cut out of train where no development set was given, else None
    """

    task: Task
    train: Dataset
    evaluation: dict[str, Dataset]
    files: tuple[DataFile, ...] = ()
    held_out: str | None = None
