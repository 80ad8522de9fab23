"""Rows into files of the types that data/rows.py reads, with further columns beside the rows' own.

Rows are read back as they were written. CSV and TSV hold text: an absent cell is '', lists and objects are JSON; in TSV
quotes are plain text, so a cell holds no tabs or line ends. JSON Lines holds dates and decimals as text, and null for
NaN. Parquet holds one type per column, from Parquet to Parquet the same one. JSON is SQuAD's format of predictions: one
object, the prediction by the row's id, and nothing else.
"""

import csv
import json
import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from emdistill.data.files import HALF_PAIR
from emdistill.data.rows import BadRows, Row
from emdistill.errors import DataError, shown

WRITTEN_SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet", ".json")


class RowWriter:
    """Writes rows into a file of one of these types.

    source   the file that the rows were read from
    answers  the words that may come beside the rows, such as a model's labels
    Raises DataError, with line and column, for what such a file cannot hold.
    """

    def __init__(self, suffix: str, source: Path, rows: Sequence[Row], answers: Iterable[str] = ()) -> None:
        self._suffix = suffix
        self._rows = rows
        self._columns = list(dict.fromkeys(name for row in rows for name in row.cells))  # rows of JSON may differ
        bad = BadRows(source)
        cells = [(rows[0].line, f"the name of column {shown(name)}", name) for name in self._columns]
        cells += [(row.line, f"column {shown(name)}", value) for row in rows for name, value in row.cells.items()]
        for line, place, value in cells:
            if problem := _problem(value, suffix):
                bad.add(line, f"{place} {problem}")
        if suffix == ".json":
            _check_ids(rows, bad)
        bad.check()
        for word in answers:
            if problem := _problem(word, suffix):
                raise DataError(f"{shown(word)}, one of the model's labels, {problem}", file=source)
        self._table = self._as_table(source) if suffix == ".parquet" else None

    def write(self, path: Path, further: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows, each beside the further cells of its place, which all have the same columns."""
        if self._table is not None:
            table = self._table
            for name in further[0]:
                table = table.append_column(name, pyarrow.array([cells[name] for cells in further]))
            pyarrow.parquet.write_table(table, path)
            return
        if self._suffix == ".json":
            pairs = zip(self._rows, further, strict=True)
            path.write_text(
                _as_json({str(row.cells["id"]): cells["prediction"] for row, cells in pairs}), encoding="utf-8"
            )
            return
        rows = ({**row.cells, **cells} for row, cells in zip(self._rows, further, strict=True))
        with path.open("w", encoding="utf-8", newline="") as file:
            if self._suffix == ".jsonl":
                file.writelines(f"{_as_json(row)}\n" for row in rows)
            else:
                quoting: Any = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None}
                writer = csv.writer(file, **quoting if self._suffix == ".tsv" else {})
                columns = [*self._columns, *further[0]]
                writer.writerow(columns)
                writer.writerows([_as_text(row.get(name)) for name in columns] for row in rows)

    def _as_table(self, source: Path) -> pyarrow.Table:
        if source.suffix.lower() == ".parquet":
            with pyarrow.parquet.ParquetFile(source) as file:
                return file.read()
        columns = {}
        for name in self._columns:
            values = [row.cells.get(name) for row in self._rows]
            if (column := _parquet_column(values)) is None:
                # The first row that cannot stand beside those before it.
                place = bisect_left(range(1, len(values)), True, key=lambda n: _parquet_column(values[:n]) is None)
                problem = f"column {name!r} holds {shown(values[place])}, which Parquet cannot hold"
                beside = f" beside {shown(values[0])}" if place else ""
                raise DataError(f"{problem}{beside}; write .jsonl", file=source, line=self._rows[place].line)
            columns[name] = column
        return pyarrow.table(columns)


def _parquet_column(values: list[Any]) -> pyarrow.Array | None:
    """None for values of several types, integers beyond 64 bits, and objects without keys or with different ones."""
    try:
        column = pyarrow.array(values)
        pyarrow.parquet.ParquetWriter(pyarrow.BufferOutputStream(), pyarrow.schema([("", column.type)])).close()
    except (pyarrow.ArrowException, OverflowError):
        return None
    # Of a key that one object lacks the column would say null.
    held = not pyarrow.types.is_nested(column.type) or _without_nan(column.to_pylist()) == _without_nan(values)
    return column if held else None


def _check_ids(rows: Sequence[Row], bad: BadRows) -> None:
    """Every row needs one of its own."""
    lines: dict[str, int] = {}
    for row in rows:
        if row.cells.get("id") is None:
            bad.add(row.line, "there is no 'id', by which .json holds predictions; write .jsonl")
        elif (name := str(row.cells["id"])) in lines:
            bad.add(row.line, f"id {name!r} occurs twice, on line {lines[name]} too")
        else:
            lines[name] = row.line


def _problem(value: object, suffix: str) -> str:
    """Why no file of this type holds a cell, or ''."""
    try:
        default, written = str if suffix == ".parquet" else _plain, _without_nan(value)
        json.dumps(written, ensure_ascii=False, default=default, allow_nan=suffix != ".jsonl").encode("utf-8")
    except UnicodeEncodeError:
        return HALF_PAIR
    except (TypeError, ValueError, RecursionError):  # bytes; rings and depths
        mend = "leave the column out" + (", or write .parquet" if suffix != ".parquet" else "")
        return f"holds {shown(value)}, which {suffix} cannot hold; {mend}"
    if suffix == ".tsv" and isinstance(value, str) and any(mark in value for mark in "\t\r\n"):
        return f"holds a tab or a line end in {shown(value)}, which would tear the row; write .csv, .jsonl or .parquet"
    return ""


def _as_json(value: object) -> str:
    return json.dumps(_without_nan(value), ensure_ascii=False, default=_plain)


def _without_nan(value: Any) -> Any:
    """None for NaN, which is no JSON: how data frames write a missing number."""
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _plain(value: object) -> str:
    """Dates and decimals as text; bytes are none."""
    if isinstance(value, bytes):
        raise TypeError("bytes are no text")
    return str(value)


def _as_text(value: object) -> str:
    if isinstance(value, list | dict):
        return _as_json(value)
    return "" if value is None else str(value)
