"""One table, printed on the terminal and written in Markdown."""

from io import StringIO

import pytest
from messages import unnamed
from rich.console import Console

from emdistill.console import ReportRow, Table, comparison_table, markdown, print_table, say, say_once, short, silent

ROWS = [
    ReportRow("teacher", {"accuracy": 0.8333, "f1": 0.881}, 22_713_216, 90_852_864, 12.34),
    ReportRow("student, bert-emd [1, 3, 5]", {"accuracy": 0.8211, "f1": 0.872}, 17_389_824, 69_559_296, 6.17),
    ReportRow("labels | only", {"accuracy": 0.79}, latency=0.617),
]


def printed(table: Table, width: int = 80) -> str:
    out = StringIO()
    print_table(table, Console(file=out, width=width))
    return out.getvalue()


def cells(text: str, name: str) -> str:
    """The line that holds `name`, one blank between its cells."""
    return " ".join(next(line for line in text.splitlines() if name in line).split())


@pytest.mark.parametrize("width", [20, 40, 60])
def test_a_narrow_terminal_leaves_out_neither_names_nor_numbers(width: int) -> None:
    table = comparison_table(ROWS, "mrpc, [dev]")
    text = printed(table, width)
    assert not unnamed(text, *(cell for line in table.lines for cell in line[1:]), "teacher", "bert-emd", "labels")


def test_a_table_shows_every_number_in_80_columns() -> None:
    text = printed(comparison_table(ROWS, "mrpc, [dev]"))
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[0].strip() == "mrpc, [dev]"
    assert cells(text, "teacher") == "teacher 0.833 0.881 22.7 90.9 12.3 1.0×"
    assert cells(text, "bert-emd").endswith(" 0.821 0.872 17.4 69.6 6.2 2.0×")
    assert cells(text, "labels").endswith(" 0.790 – – – 0.62 20.0×")
    assert "…" not in text
    for heading in ("model", "accuracy", "f1", "(millions)", "(MB)", "(batch 1)", "speed-up"):
        assert heading in text


def test_names_are_no_markup() -> None:
    assert "student [last]" in printed(comparison_table([ReportRow("student [last]")]))


def test_without_the_first_rows_latency_there_is_no_speed_up() -> None:
    rows = [ReportRow("teacher"), ReportRow("student", latency=2.0)]
    assert cells(printed(comparison_table(rows)), "student") == "student – – 2.0 –"


def test_markdown_has_the_same_cells() -> None:
    lines = markdown(comparison_table(ROWS)).splitlines()
    headings = [" ".join(cell.split()) for cell in lines[0].split("|")[1:-1]]
    assert headings[:3] == ["model", "accuracy", "f1"]
    assert lines[1].split() == ["|", "---", "|", *["---:", "|"] * 6]
    assert lines[2] == "| teacher | 0.833 | 0.881 | 22.7 | 90.9 | 12.3 | 1.0× |"
    assert lines[4] == "| labels \\| only | 0.790 | – | – | – | 0.62 | 20.0× |"
    assert len(lines) == 5


@pytest.mark.parametrize("make", [printed, markdown])
def test_a_table_without_rows_has_its_headings(make) -> None:
    assert "speed-up" in make(comparison_table([]))


def test_columns_without_anything_are_left_out_and_words_stay_words() -> None:
    table = Table(["a", "b", "c", "d"], [["x", "–", "1", "y"], ["z", "–", "–", "–"]], words=(0, 3))
    left = table.without_empty_columns()
    assert list(left.headings) == ["a", "c", "d"]
    assert left.lines == [["x", "1", "y"], ["z", "–", "–"]]
    assert markdown(left).splitlines()[1] == "| --- | ---: | --- |"
    assert not left.is_text
    assert Table(["a", "b"], [], words=(0, 1)).is_text


@pytest.mark.parametrize(("value", "text"), [(1234.5, "1,234"), (0.01234, "0.0123"), (99.95, "100"), (-150.2, "-150")])
def test_short_numbers_have_three_digits_and_no_powers_of_ten(value: float, text: str) -> None:
    assert short(value) == text


def test_names_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(["model\x1b[31m", "score"], [["a\x1b]0;x\x07b", "\x1b[2J1"]], title="\x1b[5m", caption="\u202e")
    say("\x1b[2Jlabels")
    for text in (printed(table), capsys.readouterr().out):
        assert not set(text) & {"\x1b", "\x07", "\u202e"}
        assert "\\x1b[2J" in text


def test_a_silent_part_shows_nothing_but_what_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with silent():
        with silent(False):  # a part of a silent one
            say("a line")
        print_table(Table(["a"], [["b"]]))
        say_once("a warning of this test alone")
    say("the end")
    assert capsys.readouterr().out.splitlines() == ["a warning of this test alone", "the end"]
