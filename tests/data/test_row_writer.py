"""Rows into files: what is written is read back as it was, or is refused before anything is computed for it."""

import datetime
import decimal
import json
import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from messages import names

from emdistill.data.files import read_inputs
from emdistill.data.row_writer import WRITTEN_SUFFIXES, RowWriter
from emdistill.data.rows import Row
from emdistill.errors import DataError

NASTY = ['"', '""', '"a', 'a "b" c', "a,b", "'", "\\", "\\t", "a\tb", "a\nb", "a\r\nb", "a\rb", "a\r", "\t", " a ", "#"]
NASTY += ["\x00", "\x85", "\u2028", "\u200d", "é", "😀", "\ufeff", "NaN", "null", "1e5", "007", "=1+1", "x" * 200_000]
VALUES: list[Any] = [None, True, 1, -(2**63), 2**70, 1.5, 1e300, [], [1, "a"], [None], {}, {"a": {"b": "c\td"}}, [[]]]
LINE = 10  # of the first row


def rows_of(cells: list[dict[str, Any]]) -> list[Row]:
    return [Row(LINE + place, each) for place, each in enumerate(cells)]


def written(path: Path, cells: list[dict[str, Any]], source: str = "in.jsonl") -> list[dict[str, Any]]:
    """What is read back of the rows, without the further column."""
    RowWriter(path.suffix, Path(source), rows_of(cells)).write(path, [{"prediction": "a"}] * len(cells))
    read = [row.cells for row in read_inputs(path)]
    assert [cells.pop("prediction") for cells in read] == ["a"] * len(cells)
    return read


def as_text(value: Any) -> str:
    return (
        "" if value is None else json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)
    )


def random_cells(seed: int, values: list[Any]) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    columns = ["text", "b", '"c"', " d", "e,f"]
    return [
        {name: draw.choice(values) for name in columns if draw.random() < 0.8 or name == "text"} | {"text": "a"}
        for _ in range(draw.randint(1, 8))
    ]


@pytest.mark.parametrize("seed", range(15))
def test_whatever_json_holds_is_read_back_as_it_was(tmp_path: Path, seed: int) -> None:
    cells = random_cells(seed, NASTY + VALUES)
    assert written(tmp_path / "out.jsonl", cells) == cells
    columns = dict.fromkeys(name for row in cells for name in row)
    assert written(tmp_path / "out.csv", cells) == [{name: as_text(row.get(name)) for name in columns} for row in cells]


@pytest.mark.parametrize("seed", range(15))
def test_tsv_is_read_back_as_it_was_or_refused(tmp_path: Path, seed: int) -> None:
    tearing = [text for text in NASTY if set(text) & set("\t\r\n")]
    cells = random_cells(seed, [value for value in NASTY + VALUES if value not in tearing])
    columns = dict.fromkeys(name for row in cells for name in row)
    assert written(tmp_path / "out.tsv", cells) == [{name: as_text(row.get(name)) for name in columns} for row in cells]
    draw = random.Random(seed)
    place = draw.randrange(len(cells))
    cells[place]["b"] = draw.choice(tearing)
    with names(DataError, f"in.jsonl:{LINE + place}", "'b'", ".csv", ".jsonl", ".parquet"):
        RowWriter(".tsv", Path("in.jsonl"), rows_of(cells))


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize(
    "values", [NASTY, [1, 2**62, None], [1, 0.5], [True, None], [[], [1], None], [{"a": [1]}, None]]
)
def test_parquet_holds_columns_of_one_type(tmp_path: Path, seed: int, values: list[Any]) -> None:
    cells = random_cells(seed, values)
    columns = dict.fromkeys(name for row in cells for name in row)
    assert written(tmp_path / "out.parquet", cells) == [{name: row.get(name) for name in columns} for row in cells]


@pytest.mark.parametrize(
    ("column", "place"),
    [
        (["a", "b", 1, "c"], 2),
        ([1, None, "b"], 2),
        ([1, True], 1),
        ([0.5, 2**53 + 1], 1),
        ([1, 2**70], 1),
        ([2**70, 1], 0),
        ([[1], ["a"]], 1),
        ([{"a": 1}, {"a": 2}, {"a": "b"}], 2),
        ([None, {}], 1),
        ([{"a": 1}, {"a": None}, {"b": [1]}], 2),
        ([[{"a": math.nan}], [{"a": 1}, {}]], 1),
    ],
)
def test_columns_that_parquet_cannot_hold_are_named_with_the_first_such_line(column: list[Any], place: int) -> None:
    rows = rows_of([{"text": "a", "mixed": value} for value in column])
    with names(DataError, f"in.jsonl:{LINE + place}", "'mixed'"):
        RowWriter(".parquet", Path("in.jsonl"), rows)
    RowWriter(".jsonl", Path("in.jsonl"), rows)


@pytest.mark.parametrize("suffix", [suffix for suffix in WRITTEN_SUFFIXES if suffix != ".json"])
@pytest.mark.parametrize("value", ["\ud83d", "a\udc00b", ["\ud83d"], {"a": {"\ud83d": 1}}])
def test_half_of_a_surrogate_pair_is_refused_for_every_format(suffix: str, value: Any) -> None:
    rows = rows_of([{"text": "a"}, {"text": "b", "user": value}])
    with names(DataError, f"in.jsonl:{LINE + 1}", "'user'"):
        RowWriter(suffix, Path("in.jsonl"), rows)
    with names(DataError, f"in.jsonl:{LINE}", r"'\ud83d'"):
        RowWriter(suffix, Path("in.jsonl"), rows_of([{"text": "a", "\ud83d": 1}]))


def test_labels_that_a_file_cannot_hold_are_refused() -> None:
    rows = rows_of([{"text": "a"}])
    for suffix, label in ((".tsv", "very\tgood"), (".csv", "\ud83d"), (".parquet", "\ud83d")):
        with names(DataError, "in.csv", repr(label)):
            RowWriter(suffix, Path("in.csv"), rows, ["good", label])
    RowWriter(".csv", Path("in.csv"), rows, ["good", "very\tgood"])


TYPED = pa.table(
    {
        "text": ["a", "b"],
        "day": pa.array([datetime.date(2024, 2, 29), None]),
        "time": pa.array([1, 1_709_164_800_000_000_001], pa.timestamp("ns")),
        "price": pa.array([decimal.Decimal("1.50"), None], pa.decimal128(9, 2)),
        "small": pa.array([1, 2], pa.int16()),
        "kind": pa.array(["x", "x"]).dictionary_encode(),
        "pairs": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int32())),
        "list": pa.array([["a\tb"], None]),
    }
)


def test_parquet_keeps_its_types_and_text_formats_write_them_as_text(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(TYPED, source)
    cells = [row.cells for row in read_inputs(source)]
    assert written(tmp_path / "out.parquet", cells, str(source)) == cells
    assert pq.read_table(tmp_path / "out.parquet").drop_columns("prediction").equals(pq.read_table(source))
    (first, second), table = written(tmp_path / "out.jsonl", cells), written(tmp_path / "out.csv", cells)
    assert [first[name] for name in ("day", "price", "small", "list")] == ["2024-02-29", "1.50", 1, ["a\tb"]]
    assert (second["day"], second["pairs"]) == (None, [])
    assert [table[0][name] for name in ("day", "price", "small", "list")] == ["2024-02-29", "1.50", "1", '["a\\tb"]']
    assert written(tmp_path / "out.tsv", cells) == table


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
@pytest.mark.parametrize("value", [b"\xff", [b"a"]])
def test_bytes_are_no_text(tmp_path: Path, suffix: str, value: Any) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["a", "b"], "raw": pa.array([None, value])}), source)
    with names(DataError, f"{source}:2", "'raw'"):
        RowWriter(suffix, source, read_inputs(source))
    cells = [row.cells for row in read_inputs(source)]
    assert written(tmp_path / "out.parquet", cells, str(source)) == cells


def test_a_missing_number_is_null(tmp_path: Path) -> None:
    rows = [Row(1, {"x": float("nan"), "y": [1.5, float("nan")], "z": {"a": float("nan")}})]
    RowWriter(".jsonl", tmp_path / "in.parquet", rows).write(tmp_path / "out.jsonl", [{}])
    assert (tmp_path / "out.jsonl").read_text() == '{"x": null, "y": [1.5, null], "z": {"a": null}}\n'
    with names(DataError, "in.parquet:1", "x", ".parquet"):
        RowWriter(".jsonl", tmp_path / "in.parquet", [Row(1, {"x": float("inf")})])


def test_json_holds_predictions_by_id(tmp_path: Path) -> None:
    rows = [Row(1, {"id": "a", "text": "x"}), Row(2, {"id": 7, "text": "y"})]
    RowWriter(".json", Path("in.jsonl"), rows).write(
        tmp_path / "out.json", [{"prediction": "é", "start": 0}, {"prediction": "", "start": None}]
    )
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == {"a": "é", "7": ""}
    with names(DataError, "in.jsonl:3", "'id'"):
        RowWriter(".json", Path("in.jsonl"), [*rows, Row(3, {"text": "z"})])
    with names(DataError, "in.jsonl:3", "7", 2):
        RowWriter(".json", Path("in.jsonl"), [*rows, Row(3, {"id": "7"})])
