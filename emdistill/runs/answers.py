"""What teacher and student answer to every row they are scored on: predictions.jsonl of a run folder.

One line per row, the sets in their order, 'dev' first:
    {"set": "dev", "row": 0, "text": "…", "text_pair": "…" or null, "label": 1, 3.2, [0, 1] or [3.2, null],
     "teacher": [logits], "student": [logits]}
Where a row has several answers, "words" are their places, characters [start, end) of the text, "label" has a number and
"teacher" and "student" have logits for each. Where an answer is a span, the words are those of "text_pair", "label" has
the [start, end) of each gold answer, and before the words' logits are those of no answer.
"teacher" is null throughout where the teacher, a file of answers, has not answered every row. Logits are written so
that they are read back as the same float32 numbers. "crc32" comes last: the checksum of the line without it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, FiniteFloat, InstanceOf, Strict, StrictInt

from emdistill.errors import DataError
from emdistill.files import sealed, unsealed, written_whole
from emdistill.states import NO_CLASS
from emdistill.tasks.answers import ragged
from emdistill.tasks.kind import shortest
from emdistill.values import parse_json, typed

PREDICTIONS = "predictions.jsonl"

Logits = NDArray[np.float32]
Number = Annotated[FiniteFloat, Strict()]
Numbers = Annotated[list[Number], Field(min_length=1)]
Answers = Annotated[list[Numbers], Field(min_length=1)]
"""Of a row with several."""


@dataclass(frozen=True)
class _Line:
    """What every line has. Texts are taken as they are: they may hold half of a surrogate pair."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    set: InstanceOf[str]
    row: StrictInt
    text: InstanceOf[str]
    text_pair: InstanceOf[str] | None


@dataclass(frozen=True)
class _Row(_Line):
    """A row with one answer."""

    label: Number | list[Number | None]
    teacher: Numbers | None
    student: Numbers


@dataclass(frozen=True)
class _RowOfWords(_Line):
    """A row with several answers: of words classes, of spans their characters."""

    label: list[Number] | list[tuple[StrictInt, StrictInt]]
    teacher: Answers | None
    student: Answers
    words: list[tuple[StrictInt, StrictInt]]


_Rows = Sequence[_Row | _RowOfWords]
COLUMNS = tuple(field.name for field in fields(_RowOfWords))


@dataclass(frozen=True)
class Predictions:
    """The answers to one evaluation set.

    texts, pairs      one per row; pairs are None for single sentences
    labels            [rows], class indices or scores; [rows, C] of 0 and 1 where a row has several labels, of
                      numbers where it has several scores (NaN: none); of spans the characters [answers, 2] of each
                      row's gold answers
    teacher, student  logits [rows, C], C = 1 for a score; the teacher's may be absent
    words             of rows with several answers their places; labels and logits are then ragged (tasks/answers.py)
    """

    texts: Sequence[str]
    pairs: Sequence[str | None]
    labels: NDArray[np.float64]
    teacher: Logits | None
    student: Logits
    words: Sequence[Sequence[tuple[int, int]]] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def models(self) -> dict[str, Logits]:
        """The logits by model; the student's alone where the teacher's are absent."""
        return ({} if self.teacher is None else {"teacher": self.teacher}) | {"student": self.student}


def write_predictions(
    path: Path,
    evaluation: Mapping[str, Dataset],
    teacher: Mapping[str, Logits] | None,
    student: Mapping[str, Logits],
) -> None:
    """Write the logits of every evaluation set beside its texts and labels, whole or not at all.

    evaluation        columns `text`, `label`, `text_pair` for pairs and `words` for several answers, by the set's name
    teacher, student  logits [rows, C], or ragged, by the set's name
    """
    with written_whole(path) as part, part.open("wb") as file:
        for name, examples in evaluation.items():
            texts, labels = examples["text"], map(_without_nan, examples["label"])
            pairs = examples["text_pair"] if "text_pair" in examples.column_names else [None] * len(examples)
            taught = [None] * len(examples) if teacher is None else map(nested, teacher[name])
            columns = [texts, pairs, labels, taught, map(nested, student[name])]
            columns += [examples["words"]] if "words" in examples.column_names else []
            for row, cells in enumerate(zip(*columns, strict=True)):
                values = (name, row, *cells)
                # In ASCII, so that every text that Python holds can be written, half of a surrogate pair as well.
                line = json.dumps(dict(zip(COLUMNS, values, strict=False)), allow_nan=False)
                file.write(sealed(line.encode()) + b"\n")


def _without_nan(label: Any) -> Any:
    """A label as JSON writes it: null for a missing one of several scores."""
    return [None if each != each else each for each in label] if isinstance(label, list) else label


def read_predictions(path: Path) -> dict[str, Predictions]:
    """The answers by set; raises DataError with file and line for a line that is no record of this format."""
    sets: dict[str, list[_Row | _RowOfWords]] = {}
    outputs: int | None = None
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                cells = parse_json(unsealed(line))
                of_words = isinstance(cells, dict) and "words" in cells
                row: _Row | _RowOfWords = typed(cells, _RowOfWords) if of_words else typed(cells, _Row)
            except ValueError as error:
                raise DataError(f"this line is no row of answers: {error}", file=path, line=number) from None
            rows = sets.setdefault(row.set, [])
            outputs = outputs or len(row.student[0] if isinstance(row, _RowOfWords) else row.student)
            if problem := _problem(row, rows, outputs):
                raise DataError(problem, file=path, line=number)
            rows.append(row)
    if not sets:
        raise DataError("no row was written; make it again: emdistill distill … --overwrite", file=path)
    return {name: _predictions(rows) for name, rows in sets.items()}


def teacher_logits(path: Path) -> dict[str, Logits] | None:
    """The teacher's logits by set; None where there are none, as by earlier versions. Raises DataError."""
    sets = read_predictions(path) if path.exists() else {}
    logits = {name: answers.teacher for name, answers in sets.items() if answers.teacher is not None}
    return logits or None


def _predictions(rows: _Rows) -> Predictions:
    words = [row.words for row in rows if isinstance(row, _RowOfWords)] or None

    def joined(values: Sequence[Any], dtype: Any) -> NDArray[Any]:
        return np.array(values, dtype) if words is None else ragged([np.array(value, dtype) for value in values])

    return Predictions(
        texts=[row.text for row in rows],
        pairs=[row.text_pair for row in rows],
        labels=joined([row.label for row in rows], np.float64),
        teacher=None if rows[0].teacher is None else joined([row.teacher for row in rows], np.float32),
        student=joined([row.student for row in rows], np.float32),
        words=words,
    )


def nested(logits: Logits) -> list[Any]:
    """The shortest decimal numbers that are these float32 numbers, nested as they are."""
    return [nested(value) if np.ndim(value) else shortest(float(np.float32(value))) for value in logits]


def _problem(row: _Row | _RowOfWords, before: _Rows, outputs: int) -> str | None:
    """What keeps it from being its set's row after those before, or None."""
    if row.row != len(before):
        return f"the next row of '{row.set}' is {len(before)}, not {row.row}"
    if before and (row.teacher is None) != (before[0].teacher is None):
        return "'teacher' is there in some rows and absent in others"
    if before and type(row) is not type(before[0]):
        return "'words' is there in some rows and absent in others"
    return _problem_of_words(row, outputs) if isinstance(row, _RowOfWords) else _problem_of_label(row, outputs)


def _problem_of_label(row: _Row, outputs: int) -> str | None:
    label, counts = row.label, (outputs if row.teacher is None else len(row.teacher), len(row.student))
    if isinstance(label, list) and len(label) != outputs:
        return f"'label' is {label!r}, but there are {outputs} logits"
    if not isinstance(label, list) and outputs > 1 and label not in range(outputs):
        return f"'label' is {label!r}, but there are the classes 0 to {outputs - 1}"
    if counts != (outputs, outputs):
        return f"teacher and student give {counts[0]} and {counts[1]} logits, where the rows before have {outputs}"
    return None


def _problem_of_words(row: _RowOfWords, outputs: int) -> str | None:
    words, is_span = len(row.words), row.label == [] or isinstance(row.label[0], tuple)
    if not is_span and (len(row.label) != words or not set(row.label) <= {NO_CLASS, *range(outputs)}):
        return f"'label' is {row.label!r}, but each of {words} words has one of the classes 0 to {outputs - 1}"
    answers = words + is_span  # before the words of a span stands the logit of no answer
    for name, logits in (("teacher", row.teacher), ("student", row.student)):
        if logits is not None and [len(answer) for answer in logits] != [outputs] * answers:
            return f"'{name}' has other logits than {outputs} for each of {answers} places"
    return None
