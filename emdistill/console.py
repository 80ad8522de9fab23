"""Tables that compare models: for the terminal and for Markdown; `page.py` sets the same cells in HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from emdistill.processes import is_first_process

ABSENT = "–"
TABLE_CAPTION = "ms: the median; speed-up: against the first row"


@dataclass(frozen=True)
class ReportRow:
    """One model's line; what is None or not among the scores is shown as –.

    scores      by metric, as fractions: {"accuracy": 0.83}
    parameters  a count
    size        bytes
    latency     milliseconds a sentence at batch size 1, the median
    """

    model: str
    scores: Mapping[str, float] = field(default_factory=dict)
    parameters: int | None = None
    size: int | None = None
    latency: float | None = None


def say(text: str, *, quiet: bool = False) -> None:
    """A line about the work, on stdout; of several processes the first one speaks."""
    if not quiet and is_first_process():
        Console(soft_wrap=True, markup=False, highlight=False).print(text)


def say_scores(scores: Mapping[str, float]) -> str:
    """'accuracy 0.8123, f1 0.7999'."""
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items())


def comparison_table(rows: Sequence[ReportRow], title: str) -> Table:
    """A table for the terminal: model, metrics, parameters (millions), size (MB = 10⁶ bytes), ms a sentence, speed-up.

    Speed-up is against the first row, the teacher; there is a column for every metric that any row has.
    """
    table = plain_table(title, TABLE_CAPTION)
    for index, heading in enumerate(table_headings(rows)):
        table.add_column(
            heading, justify="right" if index else "left", no_wrap=index > 0, min_width=None if index else 12
        )
    for cells in table_cells(rows):
        # Text, for a model's name may hold what rich would take for markup: "[last]".
        table.add_row(*map(Text, cells))
    return table


def plain_table(title: str, caption: str) -> Table:
    """An empty table for the terminal, as all of ours look; the texts are plain."""
    return Table(
        title=Text(title),
        title_justify="left",
        caption=Text(caption),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )


def print_table(table: Table, console: Console | None = None) -> None:
    """Print a table to the terminal, or to the console given."""
    (console or Console()).print(table)


def markdown_table(rows: Sequence[ReportRow]) -> str:
    """The comparison as a Markdown table, ending with a newline; columns as in `comparison_table`."""
    headings = table_headings(rows)
    return markdown([headings, ["---"] + ["---:"] * (len(headings) - 1), *table_cells(rows)])


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells as a Markdown table; the second line is the rule below the headings."""
    return "".join(
        "| " + " | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def table_headings(rows: Sequence[ReportRow]) -> list[str]:
    """The columns' headings, with newlines where a narrow column breaks them."""
    return ["model", *_metrics(rows), "params\n(millions)", "size\n(MB)", "ms a\nsentence\n(batch 1)", "speed-up"]


def _metrics(rows: Sequence[ReportRow]) -> list[str]:
    """All metrics in the order in which the rows first name them."""
    return list({metric: None for row in rows for metric in row.scores})


def table_cells(rows: Sequence[ReportRow]) -> list[list[str]]:
    """The cells of each row as text, in the order of `table_headings`."""
    metrics = _metrics(rows)
    yardstick = rows[0].latency if rows else None
    return [
        [
            row.model,
            *(_number(row.scores.get(metric), 3) for metric in metrics),
            _number(_ratio(row.parameters, 1e6), 1),
            _number(_ratio(row.size, 1e6), 1),
            _number(row.latency, 1 if row.latency is None or row.latency >= 1.0 else 2),
            _number(_ratio(yardstick, row.latency), 1, "×"),
        ]
        for row in rows
    ]


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    return None if numerator is None or not denominator else numerator / denominator


def _number(value: float | None, digits: int, unit: str = "") -> str:
    return ABSENT if value is None else f"{value:.{digits}f}{unit}"
