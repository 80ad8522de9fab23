"""A user's CSV, TSV, JSONL and Parquet files and hub datasets, checked row by row.

CSV is read as RFC 4180 has it (a quoted cell may hold commas and line ends); in TSV quotes are plain text
and a line is a row, as in GLUE. All text is UTF-8, with or without a byte-order mark; blank lines are no rows.
A row is named by the file's line on which it begins; rows of Parquet files and hub datasets are counted from 1.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import pyarrow
import pyarrow.parquet
from datasets import ClassLabel, Dataset, Features, Value
from datasets.exceptions import DatasetsError

from emdistill.data.task import DataFile, Kind, Task
from emdistill.errors import DataError, nearest

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
MOST_DISTINCT_CLASSES = 20  # whole numbers with more distinct values than this are scores
_SHOWN_ROWS = 5
_SHOWN_NAMES = 20


class Columns(NamedTuple):
    """The columns' names in a source."""

    text: str = "text"
    text_pair: str | None = None
    label: str = "label"


class Row(NamedTuple):
    """One row and the line on which it begins."""

    line: int
    cells: dict[str, Any]


@dataclass(frozen=True)
class Examples:
    """Checked rows of one source; labels still as they are written there."""

    source: str
    lines: list[int]
    text: list[str]
    text_pair: list[str] | None
    label: list[str]


class BadRows:
    """Collects what is wrong with the rows of one source, to be said in one message."""

    def __init__(self, source: str | Path) -> None:
        self.source = source
        self.problems: list[tuple[int, str]] = []

    def add(self, line: int, problem: str) -> None:
        self.problems.append((line, problem))

    def check(self) -> None:
        """Raises DataError with the first five bad rows, each with its line, and the number of the others."""
        if not self.problems:
            return
        shown = sorted(self.problems)[:_SHOWN_ROWS]
        (first_line, first), others = shown[0], shown[1:]
        message = [first, *(f"{self.source}:{line}: {problem}" for line, problem in others)]
        if len(self.problems) > len(shown):
            message.append(f"… and {len(self.problems) - len(shown)} more like these")
        raise DataError("\n".join(message), file=self.source, line=first_line)


# ------------------------------------------------------------------------------------------ names in messages


def listing(names: Iterable[str]) -> str:
    """The first twenty names, and how many there are besides."""
    every = list(names)
    more = f", … ({len(every)} in all)" if len(every) > _SHOWN_NAMES else ""
    return ", ".join(every[:_SHOWN_NAMES]) + more


# ------------------------------------------------------------------------------------------ from bytes to rows


def read_rows(path: Path, bad: BadRows, header: tuple[str, ...] | None = None) -> Iterator[Row]:
    """The rows of a file, chosen by its extension; rows that are no rows go to `bad`.

    header   the columns' names of a CSV or TSV file that has no header line
    Raises DataError for a file that is missing, empty, of unknown type, not UTF-8 or broken as a whole.
    """
    if not path.is_file():
        neighbours = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"there is no such file.{nearest(path.name, neighbours)}", file=path)
    if path.stat().st_size == 0:
        raise DataError("the file is empty", file=path)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _table_rows(path, _csv_cells(path), bad, header)
    if suffix == ".tsv":
        return _table_rows(path, tsv_cells(path), bad, header)
    if suffix in (".jsonl", ".json"):
        return _json_rows(path, bad)
    if suffix == ".parquet":
        return _parquet_rows(path)
    raise DataError(f"files of type {suffix!r} are not read; these are: {', '.join(SUFFIXES)}", file=path)


def _lines(path: Path) -> Iterator[str]:
    """Decoded one by one, so that a broken byte is named with its line; line ends stay on."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            content = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
            try:
                line = content.decode("utf-8")
            except UnicodeDecodeError as error:
                problem = f"byte {error.start + 1} of this line (0x{content[error.start]:02x}) is not UTF-8"
                raise DataError(f"{problem}; save the file as UTF-8", file=path, line=number) from None
            yield line


def tsv_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of every line that is not blank; quotes are plain text."""
    for number, line in enumerate(_lines(path), start=1):
        if content := line.rstrip("\r\n"):
            yield number, content.split("\t")


def _csv_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(_lines(path), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"the row that begins here is not CSV ({error}); is a quote left open?"
            raise DataError(problem, file=path, line=line) from None
        if cells not in ([], [""]):
            yield line, cells


def _table_rows(
    path: Path, rows: Iterator[tuple[int, list[str]]], bad: BadRows, header: tuple[str, ...] | None
) -> Iterator[Row]:
    for line, cells in rows:
        if header is None:
            header = tuple(cells)
            twice = sorted({name for name in header if name and header.count(name) > 1})
            if twice:
                raise DataError(f"column {twice[0]!r} occurs twice in the header", file=path, line=line)
        elif len(cells) != len(header):
            bad.add(line, f"{len(cells)} cells, but there are {len(header)} columns ({listing(header)})")
        else:
            yield Row(line, dict(zip(header, cells, strict=True)))


def _json_rows(path: Path, bad: BadRows) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), start=1):
        if number == 1 and line.lstrip().startswith("["):
            raise DataError("this is a JSON list; write one JSON object a line instead", file=path, line=1)
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except ValueError as error:
            bad.add(number, f"not valid JSON ({error}); every line must be one JSON object")
            continue
        if isinstance(cells, dict):
            yield Row(number, cells)
        else:
            bad.add(number, "every line must be one JSON object, with the columns' names as keys")


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            rows = itertools.chain.from_iterable(batch.to_pylist() for batch in file.iter_batches())
            yield from (Row(number, cells) for number, cells in enumerate(rows, start=1))
    except pyarrow.ArrowException as error:
        raise DataError(f"this is no readable Parquet file ({error})", file=path) from None


def data_file(path: Path, rows: int) -> DataFile:
    """What is recorded of a file that was read."""
    with path.open("rb") as file:
        return DataFile(path, rows, hashlib.file_digest(file, "sha256").hexdigest())


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
        problems += ["" if label else f"there is no label in column {columns.label!r}"]
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
        return f"column {column!r} holds {text!r}, which is no text"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return f"column {column!r} holds half of a surrogate pair, which is no text"
    return ""


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


def to_dataset(examples: Examples, task: Task, index: Mapping[str, int], bad: BadRows) -> Dataset:
    """Encodes the labels, reports all bad rows, and refuses labels that are all the same."""
    labels = encode_labels(examples, task.kind, index, bad)
    bad.check()
    if not labels:
        raise DataError("there are no rows that can be used", file=examples.source)
    if len(set(labels)) < 2:
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


def read_inputs(path: str | Path, text: str = "text", text_pair: str | None = None) -> list[dict[str, Any]]:
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
        inputs.append(row.cells)
    bad.check()
    return inputs


def _text_rows(path: Path, column: str) -> Iterator[Row]:
    for line, content in enumerate(_lines(path), start=1):
        if content.strip():
            yield Row(line, {column: content.rstrip("\r\n")})
