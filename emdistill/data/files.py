"""A user's files and data sets, checked row by row; and the rows of files to predict.

Labels stay as written until the task's kind is known, then become class indices or scores.
"""

import itertools
import json
from array import array
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet
from datasets import ClassLabel, Dataset, Features, Value, concatenate_datasets

from emdistill.data.arrow_files import ROWS_AT_ONCE, spooled
from emdistill.data.compressed import plain_path
from emdistill.data.data_sets import digest, split_rows
from emdistill.data.rows import (
    BadRows,
    Row,
    check_file,
    data_file,
    read_rows,
    separator_hint,
    text_lines,
)
from emdistill.errors import DataError, listing, nearest, shown
from emdistill.tasks.kind import BadLabel, Cell, LabelColumns, text_of
from emdistill.tasks.task import DataFile, Task, TaskData
from emdistill.values import parse_cell

# Of a development set of one label.
MIXED_DEV = (
    ", so a constant answer has all of them right; name other rows with --dev, or none, and a part of the training "
    "rows is held out; emdistill evaluate scores rows of one label"
)
_LOOKED_AT = 1_000  # rows
HALF_PAIR = "holds half of a surrogate pair, which is no text"


class Columns(NamedTuple):
    """The columns' names in a source; commas separate several label columns."""

    text: str = "text"
    text_pair: str | None = None
    label: str = "label"

    @property
    def texts(self) -> list[str]:
        """The columns of the text, or of the two texts of a pair."""
        return [self.text] if self.text_pair is None else [self.text, self.text_pair]

    def label_columns(self, names: Collection[str]) -> list[str]:
        """The label columns among a source's names: one, which may have commas in its name, or several."""
        return [self.label] if self.label in names else [name.strip() for name in self.label.split(",")]


@dataclass(frozen=True)
class Examples:
    """Checked rows of one source: their lines, `text` and perhaps `text_pair`, and their labels as written.

    bad    has the problems of the rows left out
    named  the classes that the source declares, in their order; () where it declares none
    """

    bad: BadRows
    lines: Sequence[int]
    texts: Dataset
    label: Sequence[Cell]
    named: tuple[str, ...] = ()

    @property
    def source(self) -> str | Path:
        """The file, or the data set and split."""
        return self.bad.source


def read_examples(path: Path, columns: Columns, header: tuple[str, ...] | None = None) -> Examples:
    """The checked rows of a file; raises DataError as read_rows, for a missing column and for no rows."""
    bad = BadRows(path)
    return _check_rows(read_rows(path, bad, header), columns, bad, file_classes(path))


def split_examples(source: str, split: Dataset, columns: Columns) -> Examples:
    """The checked rows of a data set's split."""
    return _check_rows(split_rows(split), columns, BadRows(source, digest(split)), declared_classes(split.features))


def declared_classes(features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The names of class labels, one per row or a list of them, by column."""
    elements = {name: getattr(feature, "feature", feature) for name, feature in features.items()}
    named = {name: tuple(element.names) for name, element in elements.items() if isinstance(element, ClassLabel)}
    return {name: classes for name, classes in named.items() if all(isinstance(each, str) for each in classes)}


def file_classes(path: Path) -> dict[str, tuple[str, ...]]:
    """The same of a Parquet file that `datasets` has written, as the hub's are; of any other file none."""
    try:
        schema = pyarrow.parquet.read_schema(path) if plain_path(path).suffix.lower() == ".parquet" else None
        if schema is None or b"huggingface" not in (schema.metadata or {}):
            return {}
        return declared_classes(Features.from_arrow_schema(schema))
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return {}  # a damaged file is named where its rows are read; and what describes no columns, names no classes


def in_words(cell: Cell, names: Sequence[str]) -> Cell:
    """Indices of classes as their names, where they have some; None where one is negative: a hidden label."""
    if not names:
        return cell
    indices = cell if isinstance(cell, list) else [cell]
    if any(index is None or (type(index) is int and index < 0) for index in indices):
        return None
    words = [names[index] if type(index) is int and index < len(names) else index for index in indices]
    return words if isinstance(cell, list) else words[0]


def _check_rows(rows: Iterator[Row], columns: Columns, bad: BadRows, classes: Mapping[str, Sequence[str]]) -> Examples:
    """Checks texts and that there is a label; classes: the names of those that are indices, by column."""
    lines, cells_of_rows, names = array("Q"), list[Cell](), dict[Cell, Cell]()
    with closed_after(rows):
        first, rows = look_at_first(rows, bad)
        labels = columns.label_columns(first.cells)
        problem_of_label = _label_problem if len(labels) == 1 else _cell_problem
        require_columns(first, [*columns.texts, *labels], bad.source)
        named = tuple(classes.get(columns.label, ()))
        if named:
            label = columns.label
            rows = (Row(line, cells | {label: in_words(cells.get(label), named)}) for line, cells in rows)

        def texts_of_good_rows() -> Iterator[list[str]]:
            for row in rows:
                problems = [text_problems(row, columns.texts), *(problem_of_label(row, name) for name in labels)]
                if any(problems):
                    bad.add(row.line, "; ".join(filter(None, problems)))
                    continue
                cells = LabelColumns((name, row.cells.get(name)) for name in labels)
                cell = with_list(cells[labels[0]])
                cell = names.setdefault(cell, cell) if isinstance(cell, str) else cell
                lines.append(row.line)
                cells_of_rows.append(cells if len(labels) > 1 else cell)
                yield [row.cells[name] for name in columns.texts]

        texts = spooled(_as_datasets(texts_of_good_rows(), ["text", "text_pair"][: len(columns.texts)]))
    return Examples(bad, lines, texts, cells_of_rows, named)


def _as_datasets(rows: Iterator[list[str]], names: list[str]) -> Iterator[Dataset]:
    """Rows of texts, many at once; one data set without rows where there are none."""
    features = Features({name: Value("string") for name in names})
    chunk = list(itertools.islice(rows, ROWS_AT_ONCE))
    while True:
        columns = zip(*chunk, strict=True) if chunk else [()] * len(names)
        yield Dataset.from_dict(dict(zip(names, map(list, columns), strict=True)), features=features)
        chunk = list(itertools.islice(rows, ROWS_AT_ONCE))
        if not chunk:
            return


@contextmanager
def closed_after(rows: Iterator[Row]) -> Iterator[None]:
    """Close a generator of rows, whatever happens: an error's traceback would hold its file open."""
    try:
        yield
    finally:
        if isinstance(rows, Generator):
            rows.close()


def look_at_first(rows: Iterator[Row], bad: BadRows) -> tuple[Row, Iterator[Row]]:
    """The first row, and all rows; raises DataError where there is none.

    A row of JSON may lack a column that others have, so there the first one has those of the rows after it, too.
    """
    of_json = plain_path(Path(bad.source)).suffix.lower() in (".jsonl", ".json")
    first = list(itertools.islice(rows, _LOOKED_AT if of_json else 1))
    if not first:
        bad.check()
        raise DataError("there are no rows", file=bad.source)
    cells = {name: cell for row in reversed(first) for name, cell in row.cells.items()}
    return Row(first[0].line, first[0].cells | cells), itertools.chain(first, rows)


def require_columns(row: Row, columns: list[str], source: str | Path) -> None:
    """Raise DataError for a column that is not there, and for one that would be two: text, second text or label."""
    names = list(row.cells)
    if twice := [name for name in columns if columns.count(name) > 1]:
        problem = f"column {twice[0]!r} is named twice, by --text, --text-pair or --label; name another in one of them"
        raise DataError(problem, file=source)
    for name in columns:
        if name not in names:
            hint = separator_hint(names) or nearest(name, names) or f" {_mend_columns(source)}"
            if any(isinstance(with_list(cell), list | dict) for cell in row.cells.values()):
                hint += " Lists of words, or entities, are --kind tagging, answers to questions --kind span-answers."
            problem = f"column {name!r} is not in {Path(source).name}; its columns are: {listing(names)}.{hint}"
            raise DataError(problem, file=source)


def _mend_columns(source: str | Path) -> str:
    """What to do where a column is not there: a table's first line may be a row."""
    mend = "Name yours with --text, --text-pair and --label"
    is_table = plain_path(Path(source)).suffix.lower() in (".csv", ".tsv")
    return f"{mend}; if these are no names, write a line of names above them." if is_table else f"{mend}."


def with_list(cell: Cell) -> Cell:
    """The list or object that a cell of text holds, as in CSV; else the cell."""
    values = parse_cell(cell) if isinstance(cell, str) else None
    return cell if values is None else values


def text_problem(row: Row, column: str) -> str:
    """What is wrong with a text, or ''."""
    text = row.cells.get(column)
    if text is None or (isinstance(text, str) and not text.strip()):
        return f"column {column!r} is empty" if column in row.cells else f"column {column!r} is absent"
    if not isinstance(text, str):
        mend = "; words that have tags are --kind tagging" if isinstance(text, list) else ""
        return f"column {column!r} holds {shown(text)}, which is no text{mend}"
    return f"column {column!r} {HALF_PAIR}" if has_half_pair(text) else ""


def text_problems(row: Row, columns: Iterable[str], problem_of: Callable[[Row, str], str] = text_problem) -> str:
    """What is wrong with a row's texts, or ''."""
    return "; ".join(filter(None, (problem_of(row, name) for name in columns)))


def has_half_pair(text: str) -> bool:
    """Whether it holds half of a surrogate pair, which is left of an emoji that was cut in two."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _label_problem(row: Row, column: str) -> str:
    """Why there is no label of whatever kind, or ''."""
    cell = row.cells.get(column)
    try:
        is_missing = not text_of(cell)
    except BadLabel:  # whether a list or an object is a label, the task's kind says
        is_missing = False
    return f"there is no label in column {column!r}" if is_missing else _cell_problem(row, column)


def _cell_problem(row: Row, column: str) -> str:
    """Why a cell is no label of whatever kind, or ''; of several columns some may be empty, as the kind says."""
    cell = row.cells.get(column)
    if isinstance(cell, bytes):
        return f"column {column!r} holds the bytes {shown(cell)}, which are no label; save it as text"
    written = json.dumps(with_list(cell), ensure_ascii=False, default=str)
    return f"column {column!r} {HALF_PAIR}" if has_half_pair(written) else ""


def to_dataset(examples: Examples, task: Task, *, varied: bool = True, scored: bool = False) -> Dataset:
    """Encodes the labels and reports all bad rows.

    varied    refuse labels that are all the same, of which nothing can be learned
    scored    whether the rows are scored on, and not learned from
    """
    encode = task.kind.encoder(task.labels)
    labels = []
    for line, cell in zip(examples.lines, examples.label, strict=True):
        try:
            labels.append(encode(cell))
        except BadLabel as error:
            examples.bad.add(line, str(error))
    examples.bad.check()
    if not labels:
        raise DataError("there are no rows that can be used", file=examples.source)
    if varied and all(label == labels[0] for label in labels):
        label = task.kind.written(labels[0], task.labels)
        problem = f"every label is {label!r}; at least {task.kind.asks_for} are needed{MIXED_DEV if scored else ''}"
        raise DataError(problem, file=examples.source)
    label = Dataset.from_dict({"label": labels}, features=Features({"label": task.kind.label_type}))
    texts = examples.texts
    if not task.kind.columns.keys() <= {*texts.column_names}:  # they are made of the texts
        texts = task.rows_of_text(texts.to_dict())
    return concatenate_datasets([texts, label], axis=1)


def task_data(
    task: Task, sources: Mapping[str, Examples], notes: Iterable[str] = (), *, varied: bool = True
) -> TaskData:
    """The task with the rows of all its sources, 'train' among them; `varied` and errors as of to_dataset."""
    sets = {
        part: to_dataset(examples, task, varied=varied, scored=part != "train") for part, examples in sources.items()
    }
    files = [
        data_file(source, len(sets[part]))
        if isinstance(source := examples.source, Path)
        else DataFile(Path(source), len(sets[part]), examples.bad.digest)
        for part, examples in sources.items()
        if isinstance(examples.source, Path) or examples.bad.digest
    ]
    return TaskData(task, sets.pop("train"), sets, tuple(files), notes=tuple(notes))


def text_rows(path: Path, columns: Columns, bad: BadRows) -> Iterator[Row]:
    """The rows of a file whose texts are read; of a .txt file a line is a text, or the two of a pair, a tab between.

    Raises DataError as read_rows; lines that are no pair go to `bad`.
    """
    if plain_path(path).suffix.lower() != ".txt":
        return read_rows(path, bad)
    check_file(path)
    return _lines_as_rows(path, columns, bad)


def _lines_as_rows(path: Path, columns: Columns, bad: BadRows) -> Iterator[Row]:
    for line, content in enumerate(text_lines(path), start=1):
        if not content.strip():
            continue
        texts = [content.rstrip("\r\n")] if columns.text_pair is None else content.rstrip("\r\n").split("\t")
        if len(texts) == len(columns.texts):
            yield Row(line, dict(zip(columns.texts, texts, strict=True)))
        else:
            a, b = map(repr, columns.texts)
            bad.add(line, f"{len(texts) - 1} tabs, but a line holds {a} and {b} with one tab between")


def read_inputs(
    path: str | Path,
    text: str = "text",
    text_pair: str | None = None,
    problem_of: Callable[[Row, str], str] = text_problem,
) -> list[Row]:
    """Rows to predict, with all their columns; see `text_rows`.

    problem_of   what is wrong with a row's text, or ''
    Raises DataError for a missing file or column, and for rows whose text is empty or no text.
    """
    path = Path(path)
    bad, columns = BadRows(path), Columns(text, text_pair)
    source = text_rows(path, columns, bad)
    with closed_after(source):
        first, rows = look_at_first(source, bad)
        require_columns(first, columns.texts, path)
        inputs = list(rows)
    for row in inputs:
        if problem := text_problems(row, columns.texts, problem_of):
            bad.add(row.line, problem)
    bad.check()
    return inputs
