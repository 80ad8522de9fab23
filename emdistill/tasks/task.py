"""What a model is asked to do: a Task, and the data it is learned and scored on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, Value
from numpy.typing import NDArray

from emdistill.errors import ConfigError, DataError, ModelError
from emdistill.states import Predictions
from emdistill.tasks.answers import check_finite, flat
from emdistill.tasks.kind import Logits, Metric, TaskKind

RAW_TEXT = "text"  # the name that stands for no task: learning from raw text, for any task to come

ANSWERED = "the teacher's answers"  # the evaluation set of text without labels: scores on it are agreement


@dataclass(frozen=True)
class Task:
    """A question asked of a sentence or a pair of sentences.

    labels    names of the logits in their order; empty for a score
    metrics   names among its kind's metrics; the first one chooses checkpoints
    positive  the class that F1 counts; None: the second one
    words     how plain text is cut into words, for a kind that answers words (tasks/tagging.py)
    text, text_pair, label   the columns' names in the user's files
    """

    name: str
    kind: TaskKind
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    description: str = ""
    positive: str | None = None
    words: str | None = None

    @property
    def outputs(self) -> int:
        """The width of the logits."""
        return len(self.labels) or 1

    @property
    def predictions(self) -> Predictions:
        """What a model of this task predicts."""
        return replace(self.kind.predictions, outputs=self.outputs)

    @property
    def positive_index(self) -> int:
        """The index of the class that F1 counts."""
        return 1 if self.positive is None else self.labels.index(self.positive)

    @property
    def asks(self) -> dict[str, Any]:
        """What a student is told of it at birth."""
        return {"labels": self.labels, "predictions": self.predictions}

    def score(self, logits: Logits, labels: NDArray[np.generic]) -> dict[str, float]:
        """The task's metrics, in their order.

        logits  [n, C], or [n] of a single score; ragged where a row has several answers, and so are the labels
        Raises ModelError for NaN or infinite logits or a wrong width, DataError for no examples, ConfigError for an
        unknown metric.
        """
        labels = self._labels(labels)
        logits = self._checked(np.asarray(logits), labels)
        return {name: self._metric(name)(logits, labels, self) for name in self.metrics}

    def chance(self, labels: NDArray[np.generic]) -> float:
        """What the best constant guess reaches in the task's first metric."""
        labels = self._labels(labels)
        metric = self._metric(self.metrics[0])
        return max(metric(guess, labels, self) for guess in self.kind.constant_answers(labels, self.outputs))

    def gold(self, examples: Dataset) -> NDArray[Any]:
        """The labels of rows, as `score` takes them."""
        return self.kind.gold(examples)

    def rows_of_text(self, columns: Mapping[str, list[str]], further: Mapping[str, list[Any]] | None = None) -> Dataset:
        """Plain texts as rows that a model of this task reads: columns `text`, perhaps `text_pair`.

        further   the kind's own columns, where they are known; else they are made from the texts
        """
        further = self.kind.further(columns, self.words) if further is None else further
        features = {name: Value("string") for name in columns} | {name: self.kind.columns[name] for name in further}
        schema = Features(features).arrow_schema  # by Arrow itself: Dataset.from_dict looks at each number of a list
        return Dataset(pa.Table.from_pydict({**columns, **further}, schema=schema))

    def _metric(self, name: str) -> Metric:
        if name not in self.kind.metrics:
            there = ", ".join(self.kind.metrics)
            raise ConfigError(f"task {self.name!r} asks for the metric {name!r}; {self.kind.name} has: {there}")
        return self.kind.metrics[name]

    def _labels(self, labels: NDArray[np.generic]) -> NDArray[np.generic]:
        if len(labels) == 0:
            raise DataError(f"task {self.name!r} has no examples to score")
        return np.asarray(labels)

    def _checked(self, logits: Logits, labels: NDArray[np.generic]) -> Logits:
        logits = logits[:, None] if logits.ndim == 1 and self.outputs == 1 else logits
        answers = flat(logits)
        examples = len(labels) if self.kind.one_answer else sum(map(len, labels))
        if answers.shape != (examples, self.outputs):
            raise ModelError(
                f"the model's outputs have the shape {list(answers.shape)}, but task {self.name!r} "
                f"with {examples} examples needs {[examples, self.outputs]}"
            )
        check_finite(logits)
        return logits


class DataFile(NamedTuple):
    """A file that was read: where, the number of its examples, and the hash of its bytes."""

    path: Path
    rows: int
    sha256: str


@dataclass(frozen=True)
class TaskData:
    """A task with its examples, checked row by row.

    train, and each dataset of `evaluation`, has the columns `text` (str), `text_pair` (str; only for pairs)
    and `label` (as the task's kind encodes it), whatever the user's columns are called, and the kind's own columns.
    evaluation   'dev' first; MNLI adds 'mismatched'
    held_out     how dev was cut out of train where no development set was given, else None
    notes        how the labels were understood, where that is not plain
    """

    task: Task
    train: Dataset
    evaluation: dict[str, Dataset]
    files: tuple[DataFile, ...] = ()
    held_out: str | None = None
    notes: tuple[str, ...] = ()
