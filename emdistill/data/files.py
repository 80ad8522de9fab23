"""A user's files and hub datasets, checked row by row; and the rows of files to predict.

Labels stay as they are written until the task's kind is known, then become class indices or scores.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from datasets import ClassLabel, Dataset, Features, Value
from datasets.exceptions import DatasetsError

from emdistill.data.rows import BadRows, Row, read_rows, text_lines
from emdistill.errors import DataError, listing, nearest, shown
from emdistill.tasks.kind import BadLabel, Cell, LabelColumns, text_of
from emdistill.tasks.task import Task

HALF_PAIR = "holds half of a surrogate pair, which is no text"


class Columns(NamedTuple):
    """The columns' names in a source; several label columns are separated by commas."""

    text: str = "text"
    text_pair: str | None = None
    label: str = "label"

    def label_columns(self, names: Collection[str]) -> list[str]:
        """The label columns among a source's names: one, which may have commas in its name, or several."""
        return [self.label] if self.label in names else [name.strip() for name in self.label.split(",")]


@dataclass(frozen=True)
class Examples:
    """Checked rows of one source; labels still as they are written there."""

    source: str
    lines: list[int]
    text: list[str]
    text_pair: list[str] | None
    label: list[Cell]


# ------------------------------------------------------------------------------------- from rows to examples


def read_examples(source: str | Path, rows: Iterator[Row], columns: Columns, bad: BadRows) -> Examples:
    """Checks texts and that there is a label; what is wrong goes to `bad`.

    Raises DataError where a column is missing or there are no rows.
    """
    texts = [name for name in columns[:2] if name is not None]
    examples = Examples(str(source), [], [], None if columns.text_pair is None else [], [])
    first, rows = look_at_first(source, rows, bad)
    labels = columns.label_columns(first.cells)
    for row in require_columns(source, rows, [*texts, *labels], bad):
        label = row.cells.get(labels[0]) if len(labels) == 1 else LabelColumns((n, row.cells.get(n)) for n in labels)
        problems = [text_problem(row, name) for name in texts]
        problems += [_label_problem(row, name) for name in labels]
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
    first, rows = look_at_first(source, rows, bad)
    for name in wanted:
        if name not in first.cells:
            raise DataError(_missing_column(name, source, list(first.cells)), file=source)
    return rows


def look_at_first(source: str | Path, rows: Iterator[Row], bad: BadRows) -> tuple[Row, Iterator[Row]]:
    """The first row, and all rows; raises DataError where there is none."""
    first = next(rows, None)
    if first is None:
        bad.check()
        raise DataError("there are no rows", file=source)
    return first, itertools.chain([first], rows)


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
    """Why there is no label of whatever kind, or ''."""
    cell = row.cells.get(column)
    if _is_missing(cell):
        return f"there is no label in column {column!r}"
    if isinstance(cell, bytes):
        return f"column {column!r} holds the bytes {shown(cell)}, which are no label; save it as text"
    return f"column {column!r} {HALF_PAIR}" if has_half_pair(json.dumps(cell, ensure_ascii=False, default=str)) else ""


def _is_missing(cell: Cell) -> bool:
    try:
        return not text_of(cell)
    except BadLabel:  # a list or an object: whether it is a label is for the task's kind to say
        return False


def to_dataset(
    examples: Examples,
    task: Task,
    bad: BadRows,
    aliases: Mapping[str, int] | None = None,
    *,
    varied: bool = True,
) -> Dataset:
    """Encodes the labels and reports all bad rows.

    aliases   further ways to write a label -> its index
    varied    refuse labels that are all the same, of which nothing can be learned
    """
    encode = task.kind.encoder(task.labels, aliases)
    labels = []
    for line, cell in zip(examples.lines, examples.label, strict=True):
        try:
            labels.append(encode(cell))
        except BadLabel as error:
            bad.add(line, str(error))
    bad.check()
    if not labels:
        raise DataError("there are no rows that can be used", file=examples.source)
    if varied and all(label == labels[0] for label in labels):
        problem = (
            f"every label is {task.kind.written(labels[0], task.labels)!r}; at least {task.kind.asks_for} are needed"
        )
        raise DataError(problem, file=examples.source)
    columns: dict[str, Any] = {"text": examples.text, "text_pair": examples.text_pair, "label": labels}
    types = {"text": Value("string"), "text_pair": Value("string"), "label": task.kind.label_type}
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
    of_list = getattr(feature, "feature", None)  # several class labels per row
    for line, cells in enumerate(dataset, start=1):
        if isinstance(feature, ClassLabel):
            index = cells[label]
            cells = {**cells, label: None if index is None or index < 0 else feature.names[index]}
        elif isinstance(of_list, ClassLabel):
            cells = {**cells, label: [of_list.names[index] for index in cells[label]]}
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
