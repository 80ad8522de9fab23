"""Files into rows: what is read, under which line, and what is refused."""

import csv
import gzip
import json
import lzma
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from messages import names, unnamed

from emdistill.data import rows as rows_module
from emdistill.data.files import read_inputs
from emdistill.data.rows import BadRows, Row, read_rows
from emdistill.errors import DataError, listing, shown


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path) -> list[Row]:
    """All rows; raises what the file or any of its rows is refused for."""
    bad = BadRows(path)
    rows = list(read_rows(path, bad))
    bad.check()
    return rows


def refused(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.file == path
    return caught.value


# ------------------------------------------------------------------------------------------------------ what is read


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_a_cell_is_as_long_as_it_is(tmp_path: Path, suffix: str) -> None:
    texts = ["good", "long " * 40_000, "bad"]
    lines = {
        "csv": ["text", *(f'"{text}"' for text in texts)],
        "tsv": ["text", *texts],
        "jsonl": [json.dumps({"text": text}) for text in texts],
    }[suffix]
    path = write(tmp_path / f"x.{suffix}", "\n".join(lines))
    assert [row.cells["text"] for row in read(path)] == texts


def test_other_readers_keep_their_limit_on_a_cell(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "text\n" + "long\n" * 20 + "x" * 200_000 + "\n")
    before = csv.field_size_limit()
    rows = read_rows(path, BadRows(path))
    next(rows)
    assert csv.field_size_limit() == before  # also between two rows
    with ThreadPoolExecutor(4) as pool:
        assert [len(found) for found in pool.map(lambda _: read(path), range(8))] == [21] * 8
    assert csv.field_size_limit() == before


MAC = {
    "csv": 'text,n\r"one, ""two""",1\r\rthree,2\r',
    "tsv": 'text\tn\r"one\t1\r\rthree\t2',
    "jsonl": '{"text": "one"}\r\r{"text": "two\\r"}\r',
    "txt": "one\r\rtwo",
}


@pytest.mark.parametrize("suffix", MAC)
def test_lines_may_end_in_cr_alone(tmp_path: Path, suffix: str) -> None:
    mac, unix = (
        write(tmp_path / f"{name}.{suffix}", MAC[suffix].replace("\r", end)) for name, end in (("a", "\r"), ("b", "\n"))
    )
    assert read_inputs(mac) == read_inputs(unix)
    assert len(read_inputs(mac)) == 2


def test_rows_that_end_in_cr_may_hold_lf_in_quotes(tmp_path: Path) -> None:
    path = write(tmp_path / "excel.csv", 'text,n\r"one\ntwo",1\rthree,2\r')
    assert [row.cells for row in read(path)] == [{"text": "one\ntwo", "n": "1"}, {"text": "three", "n": "2"}]


def test_a_cr_within_a_line_is_text_where_lines_end_in_lf(tmp_path: Path) -> None:
    assert [row.cells for row in read(write(tmp_path / "x.tsv", "a\tb\rc\n1\r2\t3\n"))] == [{"a": "1\r2", "b\rc": "3"}]
    path = write(tmp_path / "x.csv", 'a,b\n"1\r2",3\n')
    assert read(path)[0].cells["a"] == "1\r2"
    assert refused(write(path, "a,b\n1,2\n1\r2,3\n")).line == 3


@pytest.mark.parametrize("says", ["", "sep=;\r\n", '\ufeff"sep=;"\n'])
def test_excel_separates_by_semicolons_where_a_comma_is_decimal(tmp_path: Path, says: str) -> None:
    path = write(tmp_path / "excel.csv", says + 'text;n\r\n"a; b, c";0,5\r\nd, e;1,5\r\n')
    before = 2 if says else 1
    cells = [{"text": "a; b, c", "n": "0.5"}, {"text": "d, e", "n": "1.5"}]
    assert read(path) == [Row(line, row) for line, row in enumerate(cells, start=before + 1)]
    assert [row.cells for row in read(write(path, "sep=\t\na;b\tc\n1\t2\n"))] == [{"a;b": "1", "c": "2"}]
    assert [row.cells for row in read(write(path, "a;b,c\n1,2\n"))] == [{"a;b": "1", "c": "2"}]
    with names(DataError, f"{path}:3", 3):
        read(write(path, "a;b\n1;2\n1;2;3\n"))


def test_a_spreadsheet_is_to_be_saved_as_csv(tmp_path: Path) -> None:
    for name in ("x.xlsx", "x.csv"):  # renaming it helps nobody
        path = write(tmp_path / name, b"PK\3\4\x14\0\6\0")
        with names(DataError, path, re.compile(r"sheet as \.csv")):
            read(path)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (gzip.compress(b"text\na\n", mtime=0), ".gz"),
        ("text\na\n".encode("utf-16"), "UTF-16"),
        (b"PAR1\x15\0", "Parquet"),
    ],
)
def test_what_the_name_does_not_say_is_named(tmp_path: Path, content: bytes, named: str) -> None:
    with names(DataError, tmp_path / "x.csv", named):
        read(write(tmp_path / "x.csv", content))


def test_columns_of_pandas_are_rows(tmp_path: Path) -> None:
    columns: dict[str, dict[str, Any]] = {"text": {"0": "a", "7": "b"}, "label": {"0": 1, "7": None}}
    path = write(tmp_path / "x.json", json.dumps(columns))
    assert [row.cells for row in read(path)] == [{"text": "a", "label": 1}, {"text": "b", "label": None}]
    columns["label"].pop("7")
    assert [row.cells for row in read(write(path, json.dumps(columns)))] == [columns]


def test_quotes_are_text_in_tsv(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tsv", 'a\tb\r\n"one\ttwo"\r\n""\t"a ""b"""\r\n')
    assert [tuple(row.cells.values()) for row in read(path)] == [('"one', 'two"'), ('""', '"a ""b"""')]


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_one_json_list_holds_rows(tmp_path: Path, name: str) -> None:
    """As pandas, datasets and services write them; rows are counted."""
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": [2]}]
    for content in (json.dumps(rows), "\ufeff\n" + json.dumps(rows, indent=2)):
        assert read(write(tmp_path / name, content)) == [(1, rows[0]), (2, rows[1])]


def test_rows_may_stand_in_an_object_as_its_data(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": 2}]
    assert read(write(tmp_path / "x.json", json.dumps({"schema": [], "data": rows}))) == [(1, rows[0]), (2, rows[1])]


def test_an_empty_cell_of_one_column_is_a_row(tmp_path: Path) -> None:
    """Left out, predictions would stand beside other rows than theirs."""
    assert [row.cells["text"] for row in read(write(tmp_path / "x.csv", 'text\na\n""\n\nb\n'))] == ["a", "", "b"]
    with names(DataError, f"{tmp_path / 'x.csv'}:3", "'text'"):
        read_inputs(tmp_path / "x.csv")


# --------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(("suffix", "mark"), [("csv", ","), ("tsv", "\t")])
def test_lines_of_blanks_alone_are_no_rows(tmp_path: Path, suffix: str, mark: str) -> None:
    path = write(tmp_path / f"x.{suffix}", f"text{mark}label\n  \na{mark}1\n \n{mark}1\n")
    assert [row.line for row in read(path)] == [3, 5]


def test_broken_bytes_are_named_with_line_and_byte(tmp_path: Path) -> None:
    for suffix in ("csv", "tsv", "jsonl"):
        first = b'{"text": "a", "label": 1}' if suffix == "jsonl" else b"text,label"
        error = refused(write(tmp_path / f"x.{suffix}", first + b"\nok\xe9,a\n"))
        assert error.line == 2
        assert "byte 3" in str(error)
        assert "0xe9" in str(error)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("open-quote.csv", 'text,label\na,1\n"b,2\nc,3\n', 3),
        ("after-quote.csv", 'text,label\n"a"b,1\n', 2),
        ("half.jsonl", '{"text": "a"}\n{"text": \n', 2),
        ("no-object.jsonl", '{"text": "a"}\n\n[1]\n', 3),
        ("deep.jsonl", '{"text": "a"}\n{"text": ' + "[" * 100_000 + "]" * 100_000 + "}\n", 2),
        ("list.json", '[\n{"text": "a"}', 1),
        ("lists.jsonl", '["a", 1]\n["b", 2]', 1),
        ("numbers.json", '[{"text": "a"}, 7]', 2),
        ("twice.json", '[{"text": "a", "text": "b"}]', None),
        ("columns.json", '{"columns": ["text"], "data": [["a"], ["b"]]}', 1),
        ("twice.csv", "text,n,text\na,1,b\n", 1),
        ("twice.jsonl", '{"text": "x"}\n{"text": "a", "n": {}, "text": "b"}\n', 2),
        ("blank.csv", "text,,\na,,\nb,1,\n", 3),
        ("twice.tsv", "\n\ntext\tn\ttext\na\t1\tb\n", 3),
        ("utf-16.csv", "t\0e\0x\0t\0,\0l\0\n\0a\0,\0b\0", 1),
        ("pointer.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:1f\nsize 9\n", None),
        ("x.parquet", "no parquet at all", None),
        ("x.xlsx", "x", None),
        ("empty.csv", "", None),
    ],
)
def test_what_is_broken_is_named_with_its_line(tmp_path: Path, name: str, content: str, line: int | None) -> None:
    error = refused(write(tmp_path / name, content))
    assert error.line == line
    assert str(error).startswith(f"{tmp_path / name}:{line}: " if line else f"{tmp_path / name}: ")
    assert ("twice" not in name) or "'text'" in str(error)


def test_quotes_behind_backslashes_are_named(tmp_path: Path) -> None:
    error = refused(write(tmp_path / "x.csv", 'text,label\nyes,0\n"he said \\"no\\"",1\n'))
    assert error.line == 3
    assert not unnamed(str(error), "backslash")


def test_a_parquet_file_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array([1]), pa.array([2])], ["text", "label", "label"])
    pq.write_table(table, tmp_path / "x.parquet")
    assert "'label'" in str(refused(tmp_path / "x.parquet"))


UNHOLDABLE = {
    "no UTF-8": pa.array([b"\xff\xfe"]).view(pa.string()),
    "a date beyond the year 9999": pa.array([10_000_000], pa.int32()).view(pa.date32()),
}


@pytest.mark.parametrize("name", UNHOLDABLE)
def test_parquet_values_that_python_cannot_hold_are_refused(tmp_path: Path, name: str) -> None:
    pq.write_table(pa.table({"x": UNHOLDABLE[name]}), tmp_path / "x.parquet")
    refused(tmp_path / "x.parquet")


@pytest.mark.parametrize("damage", ["cut", "zeros"])
def test_damaged_parquet_is_refused(tmp_path: Path, damage: str) -> None:
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(5_000)]}), tmp_path / "x.parquet")
    content = (tmp_path / "x.parquet").read_bytes()
    third = len(content) // 3
    refused(
        write(
            tmp_path / "x.parquet",
            content[:third] if damage == "cut" else content[:third] + bytes(third) + content[2 * third :],
        )
    )


# ------------------------------------------------------------------------------------------- what stands in messages


def test_values_and_names_are_cut_short_in_messages(tmp_path: Path) -> None:
    column = {str(n): f"a rather long review, number {n}" for n in range(1_000)}
    path = write(tmp_path / "columns.json", json.dumps([{"text": column, "label": column}]))
    with names(DataError, path, "'text'") as caught:
        read_inputs(path)
    assert caught.value.line == 1
    assert len(str(caught.value)) < len(str(path)) + 300
    wide = write(tmp_path / "wide.tsv", "one column whose name is a whole text, as there is no tab in this file, " * 50)
    with names(DataError, wide):
        read_inputs(wide)
    write(wide, wide.read_text() + "\nx\n")
    with names(DataError, wide, "'text'") as caught:
        read_inputs(wide)
    assert len(str(caught.value)) < len(str(wide)) + 300


@pytest.mark.parametrize("value", ["x" * 10_000, [["x" * 100] * 100] * 100, {n: n for n in range(999)}, b"x" * 999])
def test_what_is_shown_of_a_value_is_short(value: Any) -> None:
    assert len(shown(value)) < 130
    assert len(listing(["x" * 1_000] * 100)) < 1_400


def test_short_values_are_shown_as_they_are() -> None:
    assert [shown(value) for value in (7, "a", None, [1, "b"])] == ["7", "'a'", "None", "[1, 'b']"]
    assert listing(["a", "b"]) == "a, b"


# ------------------------------------------------------------------------------------------------ what has no end


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json"])
@pytest.mark.parametrize("end", ["", "\r"])
def test_a_packed_line_cannot_fill_the_memory(tmp_path: Path, suffix: str, end: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(rows_module, "LONGEST_LINE", 1000)
    monkeypatch.setattr(rows_module, "LONGEST_OBJECT", 1000)
    path = tmp_path / f"bomb{suffix}.gz"
    path.write_bytes(gzip.compress(f"text{end}".encode() + b"a" * 100_000))
    assert refused(path).line == 1 + bool(end)


def test_a_cell_over_many_lines_cannot_fill_the_memory(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(rows_module, "LONGEST_LINE", 1000)
    assert refused(write(tmp_path / "open.csv", 'text\n"' + "a\n" * 1000)).line == 2


def test_an_xz_file_that_needs_a_huge_dictionary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.csv.xz"
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**29}]
    path.write_bytes(lzma.compress(b"text\na\n", filters=filters))
    refused(path)


def test_what_is_no_file_is_told_from_what_is_not_there(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.csv")
    there, absent = str(refused(tmp_path / "rows.csv")), str(refused(tmp_path / "none.csv"))
    assert "pipe" in there
    assert "pipe" not in absent
