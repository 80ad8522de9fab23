"""Files into rows: CSV, TSV, JSON Lines and Parquet, each row with the line on which it begins.

CSV follows RFC 4180: a quoted cell may hold commas and line ends; or semicolons stand between cells, as `separator`
says, and a cell of 4,5 is 4.5. In TSV, as in GLUE, quotes are plain text and every line is a row. Text is UTF-8, with
or without a byte-order mark; lines end in LF, CRLF, or CR alone (old Mac programs); blank lines are no rows. A line has
at most 64 MiB, and so has a cell. Rows of Parquet files are counted from 1, and so are those of one JSON list, of at
most 128 MiB, which may stand in an object as its `data`; or of one object of columns, as pandas writes it. A .json file
in SQuAD's format has a row per question: id, question, context, answers. The text formats may be compressed:
reviews.csv.gz.
"""

import codecs
import csv
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

from emdistill.console import counted
from emdistill.data.compressed import OPENERS, compression, open_bytes, plain_path
from emdistill.errors import DataError, listing, nearest
from emdistill.files import FETCH, is_pointer, matching, sha256
from emdistill.tasks.kind import DECIMAL
from emdistill.tasks.task import DataFile
from emdistill.values import parse_json

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
_SHOWN_ROWS = 5
BEGINNINGS = {  # of files that are not what their name says
    b"PK\x03\x04": "this is a zip archive, as a sheet of Excel is; unpack it, or save the sheet as .csv, in UTF-8",
    b"\xd0\xcf\x11\xe0": "this is an old Excel or Word file; save the sheet as .csv, in UTF-8",
    b"\x1f\x8b": "this is packed; call it .gz behind its type, as in rows.csv.gz",
    b"PAR1": "this is Parquet; call it .parquet",
    b"ARROW1": "this is Arrow; write it as Parquet",
    b"SQLite": "this is a database; write the table as .csv, in UTF-8",
    codecs.BOM_UTF16_LE: "this is UTF-16; save the file as UTF-8",
    codecs.BOM_UTF16_BE: "this is UTF-16; save the file as UTF-8",
}
NO_TEXT = "a NUL stands in this line, so this is no text; save the file as UTF-8, or copy it again"
LONGEST_LINE = 2**26  # bytes; a packed file of a few kilobytes may hold a line that fills the memory
LONGEST_OBJECT = 2**27  # bytes of a file that is one JSON object
AS_ONE = "of several, datasets' load_dataset() reads all at once, and to_parquet() writes them as one"
SHEETS = (".xlsx", ".xls", ".ods")
DECIMAL_COMMA = re.compile(r"([+-]?\d+),(\d+)")
SAYS_SEPARATOR = re.compile(r'"?sep=([,;|\t])"?\s*')  # a line for Excel, before the header
KNOWN = 1_000  # values of a column, characters of a value, and rows with rows in a cell, that are remembered
_CELL_LIMIT = Lock()


class Row(NamedTuple):
    """A row and the line on which it begins."""

    line: int
    cells: dict[str, Any]


class BadRows:
    """Collects the problems of one source's rows for one message.

    digest   SHA-256 of the rows of a source that is no file
    """

    def __init__(self, source: str | Path, digest: str = "") -> None:
        self.source, self.digest = source, digest
        self.problems: list[tuple[int, str]] = []

    def add(self, line: int, problem: str) -> None:
        self.problems.append((line, problem))

    def check(self) -> None:
        """Raise DataError for the first five bad rows, each with its line, and the number of the others."""
        if not self.problems:
            return
        (first_line, first), *others = sorted(self.problems)[:_SHOWN_ROWS]
        message = [first, *(f"{self.source}:{line}: {problem}" for line, problem in others)]
        if len(self.problems) > _SHOWN_ROWS:
            message.append(f"… and {len(self.problems) - _SHOWN_ROWS} more like these")
        raise DataError("\n".join(message), file=self.source, line=first_line)


def read_rows(path: Path, bad: BadRows, header: tuple[str, ...] | None = None) -> Iterator[Row]:
    """The rows of a file, by its extension; what is wrong with single rows goes to `bad`.

    header   the columns' names of a CSV or TSV file without a header line
    Raises DataError for a file that is missing, empty, of unknown type, not UTF-8 or broken as a whole.
    """
    check_file(path)
    suffix = plain_path(path).suffix.lower()
    if suffix == ".csv":
        between = separator(path)
        return _table_rows(path, _csv_cells(path, between), bad, header, _RowsWithin(between))
    if suffix == ".tsv":
        return _table_rows(path, tsv_cells(path), bad, header)
    if suffix in (".jsonl", ".json"):
        if (whole := _whole_json(path)) is None:
            return _json_rows(path, bad)
        value, content = whole
        if isinstance(value, dict):
            return _squad_rows(value, content, path)
        return _listed_rows(value, content, path, bad)
    if suffix == ".parquet":
        if compression(path):
            raise DataError("Parquet is compressed inside, and cannot be read as a stream; unpack it", file=path)
        return _parquet_rows(path)
    packed = ", ".join(filter(None, OPENERS))
    problem = f"files of type {suffix!r} are not read; these are: {', '.join(SUFFIXES)}, and packed ones ({packed})"
    raise DataError(problem + "; save the sheet as .csv, in UTF-8" * (suffix in SHEETS), file=path)


def check_file(path: Path) -> None:
    """Raise DataError for a folder, a file that is missing (with the nearest name beside it), empty, or a pointer.

    And for several files, a pattern such as train-*.parquet or names with commas between: one is read.
    """
    if path.is_dir():
        raise DataError(f"this is a folder; name one file ({', '.join(SUFFIXES)}); {AS_ONE}", file=path)
    if not path.is_file() and path.exists():
        raise DataError("this is a pipe or a device, and files are read more than once; write it to a file", file=path)
    if not path.is_file():
        listed = [name.strip() for name in str(path).split(",")]
        if files := matching(str(path)) or [name for name in listed[1:] and listed if Path(name).is_file()]:
            raise DataError(f"this names {counted(len(files), 'file')}, and one is read; name it; {AS_ONE}", file=path)
        neighbours = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"there is no such file.{nearest(path.name, neighbours)}", file=path)
    if path.stat().st_size == 0:
        raise DataError("the file is empty", file=path)
    if is_pointer(path):
        raise DataError(FETCH, file=path)


def decoded(content: bytes, path: Path, line: int) -> str:
    """The text of a line, without the byte-order mark of the first; DataError: it is too long, or not UTF-8.

    A NUL in the first line is refused, too: it betrays UTF-16 without a mark, or another binary format.
    """
    if len(content) > LONGEST_LINE:
        raise DataError(f"this line has more than {LONGEST_LINE >> 20} MiB; write a row per line", file=path, line=line)
    content = content.removeprefix(codecs.BOM_UTF8) if line == 1 else content
    known = next((BEGINNINGS[mark] for mark in BEGINNINGS if line == 1 and content.startswith(mark)), "")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"byte {error.start + 1} of this line (0x{content[error.start]:02x}) is not UTF-8"
        raise DataError(known or f"{problem}; save the file as UTF-8", file=path, line=line) from None
    if line == 1 and "\0" in text:
        raise DataError(known or NO_TEXT, file=path, line=line)
    return text


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a text file, with their ends."""
    return (decoded(content, path, line) for line, content in enumerate(_raw_lines(path), start=1))


def _raw_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file; of one that is longer than LONGEST_LINE a piece that is longer, too."""
    with open_bytes(path) as file:
        lines: Iterator[bytes] = iter(partial(file.readline, LONGEST_LINE + 1), b"")
        first = next(lines, b"")
        # CR ends lines where there is no LF; in CSV also where it ends the header, for cells may hold LF.
        by_cr = plain_path(path).suffix.lower() == ".csv" or not first.endswith(b"\n")
        if by_cr and re.search(rb"\r(?!\n)", first):
            yield from _cut_at_cr(itertools.chain([first], lines))
        else:
            yield first
            yield from lines


def _cut_at_cr(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a file whose lines end in CR; a piece may end within one."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).splitlines(keepends=True)
        yield from lines
        if len(rest) > LONGEST_LINE:
            break
    yield rest


def tsv_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of every line that is not blank."""
    for number, line in enumerate(text_lines(path), start=1):
        if content := line.rstrip("\r\n"):
            yield number, content.split("\t")


def separator(path: Path) -> str:
    """What stands between the cells of a CSV file: a comma; or a semicolon, as Excel writes where a comma is decimal.

    That is where the header has semicolons and no comma, or where a line before it, such as `sep=;`, says so.
    """
    first = next(text_lines(path), "")
    says = SAYS_SEPARATOR.fullmatch(first)
    return says[1] if says else ";" if ";" in first and "," not in first else ","


def _csv_cells(path: Path, between: str) -> Iterator[tuple[int, list[str]]]:
    of_row: list[str] = []

    def lines() -> Iterator[str]:
        for line in text_lines(path):
            of_row.append(line)
            yield line

    reader = csv.reader(lines(), strict=True, delimiter=between)
    while True:
        line = reader.line_num + 1
        of_row.clear()
        try:
            with _CELL_LIMIT:  # the limit is the process's, so it is lifted for this row alone
                limit = csv.field_size_limit(LONGEST_LINE)
                try:
                    cells = next(reader)
                finally:
                    csv.field_size_limit(limit)
        except StopIteration:
            return
        except csv.Error:
            why = "is a quote left open, or does a CR stand outside quotes?"
            if any('\\"' in part for part in of_row):
                why = 'a quote within a cell is written twice (""), and not behind a backslash'
            raise DataError(f"the row that begins here is not CSV: {why}", file=path, line=line) from None
        if cells and not (line == 1 and SAYS_SEPARATOR.fullmatch(of_row[0])):
            yield line, [*map(_with_point, cells)] if between == ";" else cells


def _with_point(cell: str) -> str:
    number = DECIMAL_COMMA.fullmatch(cell)
    return f"{number[1]}.{number[2]}" if number else cell


class _RowsWithin:
    """Rows in a cell of another row.

    A quote that nobody meant opens a cell, and closes at the next one; what lies between is read as one text. So a
    cell holds lines most of which have as many cells as a row, and in two of them a cell is what others of its column
    are: a value that occurs, or a number.
    """

    def __init__(self, between: str) -> None:
        self._between = between
        self._known: defaultdict[int, set[str]] = defaultdict(set)  # values by column
        self._found: list[tuple[int, int, list[list[str]]]] = []  # line, column, rows

    def look(self, line: int, cells: Sequence[str]) -> None:
        for place, cell in enumerate(cells):
            if "\n" in cell and len(cells) > 1 and len(self._found) < KNOWN:
                inner = cell.split("\n")[1:-1]
                parts = (part.rstrip("\r").split(self._between) for part in inner)
                rows = [row for row in parts if len(row) == len(cells)]
                if 2 * len(rows) > len(inner):
                    self._found.append((line, place, rows))
            elif cell and len(cell) < KNOWN and len(self._known[place]) < KNOWN:
                self._known[place].add(cell)

    def report(self, bad: BadRows) -> None:
        numbers = {place for place, known in self._known.items() if all(map(DECIMAL.fullmatch, known))}
        mend = "a quote that a text has is written twice, within quotes; if the text is so, write the rows as JSONL"
        for line, place, rows in self._found:
            alike = sum(
                any(
                    at != place and (cell in self._known[at] or (at in numbers and DECIMAL.fullmatch(cell)))
                    for at, cell in enumerate(row)
                )
                for row in rows
            )
            if alike > 1:
                bad.add(line, f"a cell of this row holds {alike} lines that look like rows; {mend}")


def _table_rows(
    path: Path,
    rows: Iterator[tuple[int, list[str]]],
    bad: BadRows,
    header: tuple[str, ...] | None,
    within: _RowsWithin | None = None,
) -> Iterator[Row]:
    for line, cells in rows:
        if len(cells) == 1 and len(header or "") != 1 and not cells[0].strip():
            continue  # blanks alone, or quotes around them; where there is one column, they are its cell
        if header is None:
            header = tuple(cells)
            _refuse_twice(header, path, line)
        elif len(cells) != len(header):
            problem = f"{counted(len(cells), 'cell')}, but there are {len(header)} columns ({listing(header)})"
            hint = separator_hint(header) or _quote_hint(cells, path)
            bad.add(line, f"{problem}.{hint}".removesuffix("."))
        elif header.count("") > 1 and any(cell for name, cell in zip(header, cells, strict=True) if not name):
            bad.add(line, "a cell stands in one of several columns without a name; name these in the first line")
        else:
            if within is not None:
                within.look(line, cells)
            yield Row(line, dict(zip(header, cells, strict=True)))
    if within is not None:
        within.report(bad)


def separator_hint(names: Sequence[str]) -> str:
    """What to know where there is one column, whose name looks like several; else ''."""
    looks = len(names) == 1 and any(mark in names[0] for mark in ";,|\t")
    mend = "separate the cells by commas or semicolons in .csv, by tabs in .tsv"
    return f" This looks like several columns, separated otherwise than the file's name says; {mend}." if looks else ""


def _quote_hint(cells: Sequence[str], path: Path) -> str:
    """What to know of a .tsv file where a row is torn within quotes; else ''."""
    torn = plain_path(path).suffix.lower() == ".tsv" and any(cell.count('"') % 2 for cell in cells)
    return " In .tsv quotes are text and every line is a row; save the file as .csv, with commas." if torn else ""


def _refuse_twice(names: Sequence[str], path: Path, line: int | None = None) -> None:
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise DataError(f"column {twice[0]!r} occurs twice; rename one of the two", file=path, line=line)


def _json_rows(path: Path, bad: BadRows) -> Iterator[Row]:
    for number, line in enumerate(text_lines(path), start=1):
        if not line.strip():
            continue
        try:
            cells = parse_json(line, once=True)
        except ValueError as error:
            if number == 1 and line.lstrip().startswith("["):
                problem = f"this begins a JSON list that is damaged, or of more than {LONGEST_OBJECT >> 20} MiB"
                raise DataError(f"{problem}; write one JSON object per line", file=path, line=1) from None
            bad.add(number, f"{error}; every line must be one JSON object")
            continue
        if isinstance(cells, dict):
            yield Row(number, cells)
        else:
            bad.add(number, "every line must be one JSON object, with the columns' names as keys")


def _listed_rows(listed: list[Any], content: str, path: Path, bad: BadRows) -> Iterator[Row]:
    try:
        parse_json(content, once=True)
    except ValueError as error:
        raise DataError(str(error), file=path) from None
    for number, cells in enumerate(listed, start=1):
        if isinstance(cells, dict):
            yield Row(number, cells)
        else:
            bad.add(number, "every part of the list must be a JSON object, with the columns' names as keys")


def is_squad(path: Path) -> bool:
    """Whether a .json file has SQuAD's layout."""
    whole = _whole_json(path) if plain_path(path).suffix.lower() == ".json" else None
    return whole is not None and isinstance(whole[0], dict)


def _whole_json(path: Path) -> tuple[dict[str, Any] | list[Any], str] | None:
    """SQuAD's object, or the list of rows, of a file that is one JSON value, and its text; None for any other file.

    Rows may be written as an object of columns, each an object of cells by the row's name: pandas' to_json() does so.
    """
    with open_bytes(path) as file:
        content = file.read(2**10)
        if plain_path(path).suffix.lower() == ".json" or content.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"[":
            content += file.read(max(0, LONGEST_OBJECT + 1 - len(content)))
    try:
        text = content.decode("utf-8-sig")
        whole = parse_json(text) if len(content) <= LONGEST_OBJECT else None
    except ValueError:
        return None  # one object per line, perhaps
    if isinstance(whole, list):
        return whole, text
    if not isinstance(whole, dict):
        return None
    columns = [*whole.values()]
    if columns and all(isinstance(column, dict) and column.keys() == columns[0].keys() for column in columns):
        return [{name: column[row] for name, column in whole.items()} for row in columns[0]], text
    if "data" not in whole:
        return None
    rows = whole["data"]
    are_rows = isinstance(rows, list) and all(isinstance(row, dict) and "paragraphs" not in row for row in rows)
    return rows if are_rows and rows else whole, text


def _squad_rows(whole: dict[str, Any], content: str, path: Path) -> Iterator[Row]:
    """The questions as rows, each with the line on which its id stands."""
    line, reached = 1, -1
    try:
        for article in whole["data"]:
            for paragraph in article["paragraphs"]:
                for cells in paragraph["qas"]:
                    place = content.find(json.dumps(cells.get("id")), reached + 1)
                    if place >= 0:
                        line, reached = line + content.count("\n", max(reached, 0), place), place
                    yield Row(line, {**cells, "context": paragraph["context"]})
    except (TypeError, KeyError, AttributeError) as error:
        layout = '{"data": [{"paragraphs": [{"context": …, "qas": [{"id": …, "question": …, "answers": […]}]}]}]}'
        problem = f"`data` is no list of objects, and not the layout of SQuAD, {layout}: {type(error).__name__} {error}"
        raise DataError(f'{problem}; pandas writes rows with to_json(orient="records")', file=path, line=line) from None


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _refuse_twice(file.schema_arrow.names, path)
            rows = itertools.chain.from_iterable(batch.to_pylist() for batch in file.iter_batches())
            yield from (Row(number, cells) for number, cells in enumerate(rows, start=1))
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:  # the last two: no Python value
        raise DataError(f"this is no readable Parquet file ({error})", file=path) from None


def data_file(path: Path, rows: int) -> DataFile:
    """The record of a file that was read."""
    return DataFile(path, rows, sha256(path))
