"""Several tasks in one training: their rows, batches, teachers and scores side by side."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from torch import Tensor

from emdistill.models.teacher import TeacherSource
from emdistill.states import TASK, EncoderShape, EncoderStates
from emdistill.tasks.mixture import joint_scores
from emdistill.tasks.task import Task
from emdistill.training.evaluate import Score
from emdistill.training.lesson import Collator

LABELS = "labels"
NUMBER = "number"


def of_task(examples: Dataset, number: int) -> Dataset:
    """Tokenised examples as one task's part of a mixture: with the task's number, each row's, and labels apart.

    Tasks have labels of different types, so that each has a column of its own; other tasks' rows have None there.
    """
    count = len(examples)
    examples = examples.rename_column(LABELS, f"{LABELS} {number}")
    return examples.add_column(TASK, [number] * count).add_column("row", [*range(count)])


def to_choose_on(examples: Sequence[Dataset]) -> Dataset:
    """Tokenised examples of all tasks to score on, each row with its number, by which MixtureScore finds it."""
    parts = []
    for number, part in enumerate(examples):
        count, start = len(part), sum(map(len, examples[:number]))
        part = part.remove_columns(LABELS).add_column(TASK, [number] * count)
        parts.append(part.add_column(NUMBER, [*range(start, start + count)]))
    return concatenate_datasets(parts)


@dataclass(frozen=True)
class MixtureCollator:
    """Makes a batch of rows of one task, by the task's own collator; of rows to score on, labels are their numbers."""

    collators: Sequence[Collator]

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        task = rows[0][TASK]
        own = {f"{LABELS} {task}": LABELS}
        rows = [{own.get(name, name): value for name, value in row.items() if value is not None} for row in rows]
        numbers = [row.pop(NUMBER) for row in rows if NUMBER in row]
        batch = self.collators[task](rows)
        return {**batch, LABELS: torch.tensor(numbers)} if numbers else batch


@dataclass(frozen=True)
class MixtureTeacher:
    """The teachers of all tasks; each batch is taught by its task's. None: the task learns from labels alone."""

    teachers: Sequence[TeacherSource | None]
    reads_rows = False  # the examples of a mixture are numbered already, task by task

    @property
    def shape(self) -> EncoderShape:
        """Of the largest."""
        shapes = [teacher.shape for teacher in self.teachers if teacher is not None]
        return max(shapes, key=lambda shape: shape.layers * shape.width)

    def __call__(
        self, inputs: Mapping[str, Tensor], needs: Collection[str] = (), layers: Collection[int] | None = None
    ) -> EncoderStates:
        teacher = self.teachers[int(inputs[TASK][0])]
        assert teacher is not None, "asked only where the objective of the task is taught"
        return teacher(inputs, needs, layers)

    def to(self, device: Any) -> "MixtureTeacher":
        """Move the models among them to a device."""
        for teacher in self.teachers:
            if teacher is not None and hasattr(teacher, "to"):
                teacher.to(device)
        return self


@dataclass(frozen=True)
class MixtureScore:
    """Scores of rows of all tasks, as `to_choose_on` numbers them.

    tasks     name -> task
    scores    of each task's logits on its rows, in order
    examples  of each task
    """

    tasks: Mapping[str, Task]
    scores: Sequence[Score]
    examples: Sequence[Dataset]

    def __call__(self, logits: np.ndarray, rows: np.ndarray) -> dict[str, float]:
        """logits [n, widest], each row's answers one after the other, rows [n] -> the mean, and each task's scores."""
        logits = logits[np.argsort(rows)]
        ends = np.cumsum([len(part) for part in self.examples])
        scores = {}
        parts = zip(np.split(logits, ends[:-1]), self.tasks.items(), self.scores, self.examples, strict=True)
        for own, (name, task), score, examples in parts:
            answers = 1 if task.kind.one_answer else own.shape[1] // task.outputs
            own = own[:, : answers * task.outputs].reshape(len(own), answers, task.outputs)
            gold = np.asarray(examples[LABELS][:]) if task.kind.one_answer else rows
            scores[name] = score(own[:, 0] if task.kind.one_answer else own, gold)
        return joint_scores(scores, {name: task.metrics[0] for name, task in self.tasks.items()})
