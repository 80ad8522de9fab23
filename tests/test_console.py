"""The comparison tables."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from emdistill.console import ReportRow, comparison_table, markdown_table, print_table

ROWS = [
    ReportRow("teacher", {"accuracy": 0.8333, "f1": 0.881}, 22_713_216, 90_852_864, 12.34),
    ReportRow("student, bert-emd [1, 3, 5]", {"accuracy": 0.8211, "f1": 0.872}, 17_389_824, 69_559_296, 6.17),
    ReportRow("labels | only", {"accuracy": 0.79}, latency=0.617),
]


def printed(rows: list[ReportRow], width: int = 80) -> str:
    out = StringIO()
    print_table(comparison_table(rows, "mrpc, [dev]"), Console(file=out, width=width))
    return out.getvalue()


def cells(text: str, name: str) -> str:
    """The line that holds `name`, one blank between its cells."""
    return " ".join(next(line for line in text.splitlines() if name in line).split())


def test_a_table_shows_every_number_in_80_columns() -> None:
    text = printed(ROWS)
    assert max(map(len, text.splitlines())) <= 80
    lines = text.splitlines()
    assert lines[0].strip() == "mrpc, [dev]"
    assert cells(text, "teacher") == "teacher 0.833 0.881 22.7 90.9 12.3 1.0×"
    assert cells(text, "bert-emd").endswith(" 0.821 0.872 17.4 69.6 6.2 2.0×")
    assert cells(text, "labels").endswith(" 0.790 – – – 0.62 20.0×")
    assert "…" not in text
    for heading in ("model", "accuracy", "f1", "(millions)", "(MB)", "(batch 1)", "speed-up"):
        assert heading in text


def test_names_are_no_markup() -> None:
    assert "student [last]" in printed([ReportRow("student [last]")])


def test_without_the_first_rows_latency_there_is_no_speed_up() -> None:
    rows = [ReportRow("teacher"), ReportRow("student", latency=2.0)]
    assert cells(printed(rows), "student") == "student – – 2.0 –"


def test_markdown_has_the_same_columns() -> None:
    lines = markdown_table(ROWS).splitlines()
    assert lines[0] == "| model | accuracy | f1 | params (millions) | size (MB) | ms a sentence (batch 1) | speed-up |"
    assert lines[1].split() == ["|", "---", "|", *["---:", "|"] * 6]
    assert lines[2] == "| teacher | 0.833 | 0.881 | 22.7 | 90.9 | 12.3 | 1.0× |"
    assert lines[4] == "| labels \\| only | 0.790 | – | – | – | 0.62 | 20.0× |"
    assert len(lines) == 5


@pytest.mark.parametrize("make", [printed, markdown_table])
def test_a_table_without_rows_has_its_headings(make) -> None:
    assert "speed-up" in make([])
