"""A user's files and hub datasets, checked row by row; and the rows of files to predict.

Labels stay as they are written until the task's kind is known, then become class indices or scores.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from datasets import ClassLabel, Dataset, Features, Value
from datasets.exceptions import DatasetsError

from emdistill.data.rows import BadRows, Row, read_rows, text_lines
from emdistill.errors import DataError, listing, nearest, shown
from emdistill.tasks.task import Kind, Task

HALF_PAIR = "holds half of a surrogate pair, which is no text"
MOST_DISTINCT_CLASSES = 20  # whole numbers with more distinct values than this are scores


class Columns(NamedTuple):
    """The columns' names in a source."""

    text: str = "text"
    text_pair: str | None = None
    label: str = "label"


@dataclass(frozen=True)
class Examples:
    """Checked rows of one source; labels still as they are written there."""

    source: str
    lines: list[int]
    text: list[str]
    text_pair: list[str] | None
    label: list[str]


# ------------------------------------------------------------------------------------- from rows to examples


def read_examples(source: str | Path, rows: Iterator[Row], columns: Columns, bad: BadRows) -> Examples:
    """Checks texts and that there is a label; what is wrong goes to `bad`.

    Raises DataError where a column is missing or there are no rows.
    """
    wanted = [name for name in columns if name is not None]
    examples = Examples(str(source), [], [], None if columns.text_pair is None else [], [])
    for row in require_columns(source, rows, wanted, bad):
        label = _written(row.cells.get(columns.label))
        problems = [text_problem(row, name) for name in wanted if name != columns.label]
        problems += [_label_problem(row, columns.label) if label else f"there is no label in column {columns.label!r}"]
        if any(problems):
            bad.add(row.line, "; ".join(filter(None, problems)))
            continue
        examples.lines.append(row.line)
        examples.text.append(row.cells[columns.text])
        if columns.text_pair is not None and examples.text_pair is not None:
            examples.text_pair.append(row.cells[columns.text_pair])
        examples.label.append(label)
    return examples


def require_columns(source: str | Path, rows: Iterator[Row], wanted: list[str], bad: BadRows) -> Iterator[Row]:
    """The same rows, after a look at the first: DataError where there is none or a column is missing."""
    first = next(rows, None)
    if first is None:
        bad.check()
        raise DataError("there are no rows", file=source)
    for name in wanted:
        if name not in first.cells:
            raise DataError(_missing_column(name, source, list(first.cells)), file=source)
    return itertools.chain([first], rows)


def _missing_column(name: str, source: str | Path, names: list[str]) -> str:
    hint = nearest(name, names) or " Name yours with --text, --text-pair and --label."
    if len(names) == 1 and any(mark in names[0] for mark in ";,\t"):
        hint = " Are the cells separated by something else than the file's extension says?"
    return f"column {name!r} is not in {Path(source).name}; its columns are: {listing(names)}.{hint}"


def text_problem(row: Row, column: str) -> str:
    """What is wrong with a text, or ''."""
    text = row.cells.get(column)
    if text is None or (isinstance(text, str) and not text.strip()):
        return f"column {column!r} is empty" if column in row.cells else f"column {column!r} is absent"
    if not isinstance(text, str):
        return f"column {column!r} holds {shown(text)}, which is no text"
    return f"column {column!r} {HALF_PAIR}" if has_half_pair(text) else ""


def has_half_pair(text: str) -> bool:
    """Whether it holds half of a surrogate pair, which is what is left of an emoji that was cut in two."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _label_problem(row: Row, column: str) -> str:
    label = row.cells[column]
    if isinstance(label, bytes):
        return f"column {column!r} holds the bytes {shown(label)}, which are no label; write it as text"
    return f"column {column!r} {HALF_PAIR}" if has_half_pair(str(label)) else ""


def _written(label: object) -> str:
    """A label as text; '' where there is none (NaN is how data frames write a missing cell)."""
    return "" if label is None or (isinstance(label, float) and math.isnan(label)) else str(label).strip()


def encode_labels(examples: Examples, kind: Kind, index: Mapping[str, int], bad: BadRows) -> list[int] | list[float]:
    """Class indices, or scores; labels that are unknown or no finite number go to `bad`."""
    if kind == "classification":
        places = [index.get(label, index.get(whole_number(label) or "")) for label in examples.label]
        known = listing(index)
        for line, label, place in zip(examples.lines, examples.label, places, strict=True):
            if place is None:
                bad.add(line, f"label {label!r} is unknown; the task's labels are: {known}.{nearest(label, index)}")
        return [place for place in places if place is not None]
    scores = [number(label) for label in examples.label]
    for line, label, value in zip(examples.lines, examples.label, scores, strict=True):
        if value is None or not math.isfinite(value):
            problem = f"label {label!r} is no number, but the labels are scores"
            bad.add(line, f"{problem} (if they are classes, say --kind classification)")
    return [value for value in scores if value is not None]


def number(label: str) -> float | None:
    """The number that a label is, or None; Python's '1_000' is none."""
    try:
        return None if "_" in label else float(label)
    except ValueError:
        return None


def whole_number(label: str) -> str | None:
    """'4' for '4', '4.0' and '04'; None for what is no whole number."""
    value = number(label)
    return None if value is None or not value.is_integer() else str(int(value))


def to_dataset(
    examples: Examples, task: Task, index: Mapping[str, int], bad: BadRows, *, varied: bool = True
) -> Dataset:
    """Encodes the labels and reports all bad rows.

    varied   refuse labels that are all the same, of which nothing can be learned
    """
    labels = encode_labels(examples, task.kind, index, bad)
    bad.check()
    if not labels:
        raise DataError("there are no rows that can be used", file=examples.source)
    if varied and len(set(labels)) < 2:
        what = "classes" if task.kind == "classification" else "different scores"
        problem = f"every label is {examples.label[0]!r}; at least two {what} are needed"
        raise DataError(problem, file=examples.source)
    columns: dict[str, Any] = {"text": examples.text, "text_pair": examples.text_pair, "label": labels}
    types = {"text": Value("string"), "text_pair": Value("string")}
    types["label"] = Value("int64" if task.kind == "classification" else "float64")
    if examples.text_pair is None:
        del columns["text_pair"], types["text_pair"]
    return Dataset.from_dict(columns, features=Features(types))


# ---------------------------------------------------------------------------------- hub datasets, and prediction


def load_hub(name: str, config: str | None = None) -> dict[str, Dataset]:
    """The splits of a hub dataset, by name; no remote code is run. Raises DataError where it cannot be had."""
    try:
        loaded = datasets.load_dataset(name) if config is None else datasets.load_dataset(name, config)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        problem = f"there is no such file or folder here, and the hub gives no such dataset ({error})"
        raise DataError(problem, file=name) from error
    return dict(loaded)


def hub_rows(dataset: Dataset, label: str) -> Iterator[Row]:
    """A split's rows, with class labels as words; the hub's -1 means that the label is hidden."""
    feature = dataset.features.get(label)
    for line, cells in enumerate(dataset, start=1):
        if isinstance(feature, ClassLabel):
            index = cells[label]
            cells = {**cells, label: None if index is None or index < 0 else feature.names[index]}
        yield Row(line, cells)


def read_inputs(path: str | Path, text: str = "text", text_pair: str | None = None) -> list[Row]:
    """Rows to predict, with all their columns; a .txt file has one text a line, under the name `text`.

    Raises DataError for a missing file or column, and for rows whose text is empty or no text.
    """
    path = Path(path)
    bad = BadRows(path)
    wanted = [text] if text_pair is None else [text, text_pair]
    rows = _text_rows(path, text) if path.suffix.lower() == ".txt" and path.is_file() else read_rows(path, bad)
    inputs = []
    for row in require_columns(path, rows, wanted, bad):
        problems = [problem for name in wanted if (problem := text_problem(row, name))]
        if problems:
            bad.add(row.line, "; ".join(problems))
        inputs.append(row)
    bad.check()
    return inputs


def _text_rows(path: Path, column: str) -> Iterator[Row]:
    for line, content in enumerate(text_lines(path), start=1):
        if content.strip():
            yield Row(line, {column: content.rstrip("\r\n")})
