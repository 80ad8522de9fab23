"""Tables for people: the same cells on the terminal, in Markdown, and on pages (show/templates/blocks.html)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rich import box, table
from rich.console import Console
from rich.text import Text

from emdistill.processes import is_first_process

ABSENT = "–"
NAME_WIDTH = 12  # characters that a column of words keeps on a narrow terminal


@dataclass(frozen=True)
class Table:
    """Lines of cells under headings; the first cell names its line.

    headings   a newline breaks the heading of a narrow column
    words      columns of words, on the left; all others hold numbers, on the right and never broken
    """

    headings: Sequence[str]
    lines: Sequence[Sequence[str]]
    title: str = ""
    caption: str = ""
    words: Collection[int] = (0,)

    @property
    def is_text(self) -> bool:
        """Whether it is read rather than compared: every column holds words."""
        return len(self.words) == len(self.headings)

    def without_empty_columns(self) -> Table:
        """The table without the columns in which no line has anything."""
        kept = [place for place in range(len(self.headings)) if any(line[place] != ABSENT for line in self.lines)]
        return replace(
            self,
            headings=[self.headings[place] for place in kept],
            lines=[[line[place] for place in kept] for line in self.lines],
            words=[new for new, place in enumerate(kept) if place in self.words],
        )


def print_table(printed: Table, console: Console | None = None) -> None:
    """Print a table to the terminal, or to the console given; its texts are no markup."""
    drawn = table.Table(
        title=Text(printed.title) if printed.title else None,
        title_justify="left",
        caption=Text(printed.caption) if printed.caption else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for place, heading in enumerate(printed.headings):
        if place in printed.words:
            longest = max((len(line[place]) for line in printed.lines), default=0)
            drawn.add_column(Text(heading), overflow="fold", min_width=min(NAME_WIDTH, longest))
        else:
            drawn.add_column(Text(heading), justify="right", no_wrap=True)
    for line in printed.lines:
        drawn.add_row(*map(Text, line))
    (console or Console()).print(drawn)


def markdown(written: Table) -> str:
    """The table in Markdown, ending with a newline; title and caption are left to the text around it."""
    rule = ["---" if place in written.words else "---:" for place in range(len(written.headings))]
    return "".join(
        "| " + " | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in line) + " |\n"
        for line in (written.headings, rule, *written.lines)
    )


@dataclass(frozen=True)
class ReportRow:
    """One model's line; what is None or not among the scores is shown as –.

    scores      by metric, as fractions: {"accuracy": 0.83}
    parameters  a count
    size        bytes
    latency     milliseconds per sentence at batch size 1, the median
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


def comparison_table(rows: Sequence[ReportRow], title: str = "", caption: str = "") -> Table:
    """Models beside each other: metrics, parameters (millions), size (MB = 10⁶ bytes), ms per sentence, speed-up.

    Speed-up is against the first row, the teacher; there is a column for every metric that any row has.
    """
    metrics = list({metric: None for row in rows for metric in row.scores})
    yardstick = rows[0].latency if rows else None
    lines = [
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
    about_time = ["ms: the median; speed-up: against the first row"] if any(row.latency for row in rows) else []
    return Table(
        ["model", *metrics, "params\n(millions)", "size\n(MB)", "ms per\nsentence\n(batch 1)", "speed-up"],
        lines,
        title,
        "; ".join([*about_time, *([caption] if caption else [])]),
    )


def short(value: float) -> str:
    """Three significant digits, never in powers of ten above 1."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def shown(value: float | None, form: str) -> str:
    """A number in this format, or – where there is none."""
    return ABSENT if value is None else format(value, form)


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    return None if numerator is None or not denominator else numerator / denominator


def _number(value: float | None, digits: int, unit: str = "") -> str:
    return ABSENT if value is None else f"{value:.{digits}f}{unit}"
