"""What teacher and student answer to every row they are scored on: predictions.jsonl of a run folder.

One line per row, the sets in their order, 'dev' first:
    {"set": "dev", "row": 0, "text": "…", "text_pair": "…" or null, "label": 1, 3.2 or [0, 1], "teacher": [logits],
     "student": [logits]}
Logits are written so that they are read back as the same float32 numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

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


def read_predictions(path: Path) -> dict[str, Predictions]:
    """The answers by set; raises DataError with file and line for a line that is no record of this format."""
    sets: dict[str, list[dict[str, Any]]] = {}
    outputs: int | None = None
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
            except ValueError as error:  # broken UTF-8 and broken JSON alike
                raise DataError(f"this line is no JSON: {error}", file=path, line=number) from error
            problem = _type_problem(record)
            if not problem:
                rows = sets.setdefault(record["set"], [])
                outputs = outputs or len(record["teacher"])
                problem = _problem(record, len(rows), outputs)
            if problem:
                raise DataError(problem, file=path, line=number)
            rows.append(record)
    if not sets:
        raise DataError("no row was written; make it again: emdistill distill … --overwrite", file=path)
    return {name: _predictions(rows) for name, rows in sets.items()}


def teacher_logits(path: Path) -> dict[str, Logits] | None:
    """The teacher's logits by set; None where they were not kept, as by earlier versions. Raises DataError."""
    return {name: answers.teacher for name, answers in read_predictions(path).items()} if path.exists() else None


def _predictions(rows: Sequence[Mapping[str, Any]]) -> Predictions:
    return Predictions(
        texts=[row["text"] for row in rows],
        pairs=[row["text_pair"] for row in rows],
        labels=np.array([row["label"] for row in rows], dtype=np.float64),
        teacher=np.array([row["teacher"] for row in rows], dtype=np.float32),
        student=np.array([row["student"] for row in rows], dtype=np.float32),
    )


def _shortest(logits: Logits) -> list[float]:
    """The shortest decimal numbers that are these float32 numbers."""
    return [float(str(np.float32(value))) for value in logits]


def _type_problem(record: Any) -> str | None:
    """What keeps a line from being a record, or None."""
    if not isinstance(record, dict) or set(record) != set(FIELDS):
        return f"a row is an object with the fields {', '.join(FIELDS)}"
    if not isinstance(record["set"], str):
        return f"'set' is a name, not {record['set']!r}"
    if not isinstance(record["text"], str) or not isinstance(record["text_pair"], str | None):
        return "'text' is a text, 'text_pair' a text or null"
    for name in ("teacher", "student"):
        logits = record[name]
        if not (isinstance(logits, list) and logits and all(map(_is_number, logits))):
            return f"'{name}' is a list of finite numbers, one per class"
    return None


def _problem(record: Mapping[str, Any], row: int, outputs: int) -> str | None:
    """What keeps a record from being the set's next row, or None."""
    if type(record["row"]) is not int or record["row"] != row:
        return f"the next row of '{record['set']}' is {row}, not {record['row']!r}"
    counts = len(record["teacher"]), len(record["student"])
    if counts != (outputs, outputs):
        return f"teacher and student give {counts[0]} and {counts[1]} logits, where the rows before have {outputs}"
    label = record["label"]
    if isinstance(label, list):
        labels_fit = len(label) == outputs and all(value in (0, 1) for value in label)
        return None if labels_fit else f"'label' is {label!r}, but {outputs} labels are each 0 or 1"
    if not _is_number(label):
        return f"'label' is a class's number, a score or a list of 0 and 1, not {label!r}"
    if outputs > 1 and label not in range(outputs):
        return f"'label' is {label!r}, but there are the classes 0 to {outputs - 1}"
    return None


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no finite number")
