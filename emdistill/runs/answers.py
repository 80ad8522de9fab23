"""What teacher and student answer to every row they are scored on: predictions.jsonl of a run folder.

One line a row, the sets in their order, 'dev' first:
    {"set": "dev", "row": 0, "text": "…", "text_pair": "…" or null, "label": 1, 3.2 or [0, 1], "teacher": [logits],
     "student": [logits]}
Logits are written so that they are read back as the same float32 numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Len
from datasets import Dataset
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from emdistill.errors import DataError
from emdistill.files import written_whole

PREDICTIONS = "predictions.jsonl"
FIELDS = ("set", "row", "text", "text_pair", "label", "teacher", "student")

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Predictions:
    """The answers to one evaluation set.

    texts, pairs      one per row; pairs are None for single sentences
    labels            [rows], class indices or scores; [rows, C] of 0 and 1 where a row has several labels
    teacher, student  logits [rows, C], C = 1 for scores
    """

    texts: Sequence[str]
    pairs: Sequence[str | None]
    labels: NDArray[np.float64]
    teacher: Logits
    student: Logits

    def __len__(self) -> int:
        return len(self.texts)


def write_predictions(
    path: Path, evaluation: Mapping[str, Dataset], teacher: Mapping[str, Logits], student: Mapping[str, Logits]
) -> None:
    """Write the logits of every evaluation set beside its texts and labels, whole or not at all.

    evaluation        columns `text`, `label`, and `text_pair` for pairs, by the set's name
    teacher, student  logits [rows, C] by the set's name
    """
    with written_whole(path) as part, part.open("w", encoding="utf-8") as file:
        for name, examples in evaluation.items():
            texts, labels = examples["text"], examples["label"]
            pairs = examples["text_pair"] if "text_pair" in examples.column_names else [None] * len(examples)
            rows = zip(texts, pairs, labels, teacher[name], student[name], strict=True)
            for row, (text, pair, label, *logits) in enumerate(rows):
                values = (name, row, text, pair, label, *map(_shortest, logits))
                # In ASCII, so that every text that Python holds can be written, half of a surrogate pair as well.
                file.write(json.dumps(dict(zip(FIELDS, values, strict=True)), allow_nan=False) + "\n")


class _Line(BaseModel):
    """A row as predictions.jsonl has it."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    set: str
    row: int
    text: str
    text_pair: str | None
    label: float | list[float]
    teacher: Annotated[list[float], Len(1)]
    student: Annotated[list[float], Len(1)]


def read_predictions(path: Path) -> dict[str, Predictions]:
    """The answers by set; raises DataError with file and line for a line that is no record of this format."""
    sets: dict[str, list[_Line]] = {}
    outputs: int | None = None
    with path.open("rb") as file:
        for number, content in enumerate(file, start=1):
            try:
                line = _Line.model_validate(json.loads(content.decode("utf-8")))
                outputs = outputs or len(line.teacher)
                rows = sets.setdefault(line.set, [])
                _check_next(line, len(rows), outputs)
            except ValidationError as error:
                first = error.errors()[0]
                place = ".".join(map(str, first["loc"]))
                raise DataError(f"{place}: {first['msg']}", file=path, line=number) from None
            except ValueError as error:  # broken UTF-8 and broken JSON alike, and a row out of place
                raise DataError(str(error), file=path, line=number) from None
            rows.append(line)
    if not sets:
        raise DataError("no row was written; make it again: emdistill distill … --overwrite", file=path)
    return {
        name: Predictions(
            texts=[row.text for row in rows],
            pairs=[row.text_pair for row in rows],
            labels=np.array([row.label for row in rows], dtype=np.float64),
            teacher=np.array([row.teacher for row in rows], dtype=np.float32),
            student=np.array([row.student for row in rows], dtype=np.float32),
        )
        for name, rows in sets.items()
    }


def teacher_logits(path: Path) -> dict[str, Logits] | None:
    """The teacher's logits by set; None where they were not kept, as by earlier versions. Raises DataError."""
    return {name: answers.teacher for name, answers in read_predictions(path).items()} if path.exists() else None


def _shortest(logits: Logits) -> list[float]:
    """The shortest decimal numbers that are these float32 numbers."""
    return [float(str(np.float32(value))) for value in logits]


def _check_next(line: _Line, row: int, outputs: int) -> None:
    """Raise ValueError where a line is not the set's next row, of as many logits as the others."""
    if line.row != row:
        raise ValueError(f"the next row of '{line.set}' is {row}, not {line.row}")
    if (len(line.teacher), len(line.student)) != (outputs, outputs):
        counts = f"{len(line.teacher)} and {len(line.student)}"
        raise ValueError(f"teacher and student give {counts} logits, where the rows before have {outputs}")
    several = isinstance(line.label, list)
    fits = len(line.label) == outputs and set(line.label) <= {0, 1} if isinstance(line.label, list) else True
    if not fits or (not several and outputs > 1 and line.label not in range(outputs)):
        raise ValueError(f"label {line.label!r} is neither a class from 0 to {outputs - 1} nor {outputs} of 0 and 1")
