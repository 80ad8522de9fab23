"""Tables for people: the same cells on the terminal, in Markdown, and on pages (show/templates/blocks.html)."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NoReturn, Self

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from emdistill.errors import visible
from emdistill.processes import is_first_process

ABSENT = "–"
NAME_WIDTH = 12  # characters that a column of words keeps on a narrow terminal
_SILENT = ContextVar("silent", default=False)


class Terminal(Console):
    """Rich's console; rich itself ends with exit code 1, a no-go of `export`, where its reader has gone."""

    def on_broken_pipe(self) -> NoReturn:
        """Called by rich while it handles one."""
        raise BrokenPipeError


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

    def without_empty_columns(self) -> Self:
        """The table without the columns in which no line has anything."""
        places = [place for place in range(len(self.headings)) if any(line[place] != ABSENT for line in self.lines)]
        return replace(
            self,
            headings=[self.headings[place] for place in places],
            lines=[[line[place] for place in places] for line in self.lines],
            words=[column for column, place in enumerate(places) if place in self.words],
        )


def print_table(table: Table, console: Console | None = None) -> None:
    """Print a table to the terminal, or to the console given; its texts are no markup."""
    if is_silent():
        return
    grid = RichTable(
        title=_plain(table.title) if table.title else None,
        title_justify="left",
        caption=_plain(table.caption) if table.caption else None,
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for place, heading in enumerate(table.headings):
        if place in table.words:
            longest = max((len(line[place]) for line in table.lines), default=0)
            grid.add_column(_plain(heading), overflow="fold", min_width=min(NAME_WIDTH, longest))
        else:
            grid.add_column(_plain(heading), justify="right", no_wrap=True)
    for line in table.lines:
        grid.add_row(*map(_plain, line))
    console = console or Terminal()
    if (least := _least_width(table)) > console.width:  # rich would leave out columns, the names' first
        grid.width = least
    console.print(grid, crop=False)


def _least_width(table: Table) -> int:
    """Characters that a table takes where its words are broken, but nothing is left out."""
    columns = [
        [part for cell in (heading, *(line[place] for line in table.lines)) for part in visible(cell).split("\n")]
        for place, heading in enumerate(table.headings)
    ]
    widths = [max(map(cell_len, parts)) for parts in columns]
    kept = [min(NAME_WIDTH, width) if place in table.words else width for place, width in enumerate(widths)]
    return sum(kept) + len(kept)  # a blank after each


def _plain(text: str) -> Text:
    """A text without markup, and without what steers a terminal."""
    return Text(visible(text))


def markdown(table: Table) -> str:
    """The table in Markdown, ending with a newline; title and caption are left to the text around it."""
    rule = ["---" if place in table.words else "---:" for place in range(len(table.headings))]
    return "".join(
        "| " + " | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in line) + " |\n"
        for line in (table.headings, rule, *table.lines)
    )


@dataclass(frozen=True)
class ReportRow:
    """One model's line; a value that is None or not among the scores is shown as –.

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


@contextmanager
def silent(whether: bool = True) -> Iterator[None]:
    """While open, nothing of this module is shown, and no bar: of a run that is a part of something else."""
    token = _SILENT.set(whether or is_silent())
    try:
        yield
    finally:
        _SILENT.reset(token)


def is_silent() -> bool:
    """Whether nothing is to be shown here."""
    return _SILENT.get()


def say(text: str, *, always: bool = False) -> None:
    """A line about the work, on stdout; of several processes the first one speaks. always: where it is silent, too."""
    if (always or not is_silent()) and is_first_process():
        Terminal(soft_wrap=True, markup=False, highlight=False).print(visible(text))


@cache
def say_once(text: str) -> None:
    """The same, the first time in this process, silent or not: a command may train many students, all alike in this."""
    say(text, always=True)


def conclude(tables: Iterable[Table], notes: Iterable[str], *lines: str) -> None:
    """How a verb that compares ends: its tables, a dash before each note, and lines: the verdict, the page."""
    for table in tables:
        print_table(table)
    say("\n".join([*(f"- {note}" for note in notes), *lines]))


def status(doing: str) -> AbstractContextManager[object]:
    """While open, a line on stderr says what is being done."""
    return Terminal(stderr=True, quiet=is_silent(), highlight=False).status(doing)


def say_scores(scores: Mapping[str, float]) -> str:
    """'accuracy 0.8123, f1 0.7999'."""
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items())


def comparison_table(rows: Sequence[ReportRow], title: str = "", caption: str = "") -> Table:
    """Models beside each other: metrics, parameters (millions), size (MB = 10⁶ bytes), ms per sentence, speed-up.

    Speed-up is against the first row, the teacher; there is a column for every metric that any row has.
    """
    metrics = list(dict.fromkeys(metric for row in rows for metric in row.scores))
    lines = [
        [
            row.model,
            *(cell(row.scores.get(metric), ".3f") for metric in metrics),
            cell(_ratio(row.parameters, 1e6), ".1f"),
            megabytes(row.size),
            cell(row.latency, ".1f" if (row.latency or 0.0) >= 1.0 else ".2f"),
            cell(_ratio(rows[0].latency, row.latency), ".1f", "×"),
        ]
        for row in rows
    ]
    about_time = "ms: the median; speed-up: against the first row" if any(row.latency for row in rows) else ""
    return Table(
        ["model", *metrics, "params\n(millions)", "size\n(MB)", "ms per\nsentence\n(batch 1)", "speed-up"],
        lines,
        title,
        "; ".join(filter(None, (about_time, caption))),
    )


def short(value: float) -> str:
    """Three significant digits, never in powers of ten above 1."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def cell(value: float | None, form: str, unit: str = "") -> str:
    """A number as a table's cell, in this format and with its unit; – where there is none."""
    return ABSENT if value is None else f"{value:{form}}{unit}"


def megabytes(size: float | None) -> str:
    """Bytes in MB, 10⁶ of them, as a table's cell."""
    return cell(_ratio(size, 1e6), ".1f")


def spread(mean: float, deviation: float | None) -> str:
    """'0.812 ± 0.006'; the mean alone where there is no deviation."""
    return f"{mean:.3f}" + ("" if deviation is None else f" ± {deviation:.3f}")


def gap(score: float, other: float, error: float | None = None) -> str:
    """'2.1 points below': where a score stands beside another, both as fractions; '2.1 ± 0.9 points' with an error."""
    points, noise = 100 * (other - score), "" if error is None else f" ± {error:.1f}"
    return f"{abs(points):.1f}{noise} points {'below' if points >= 0 else 'above'}"


def counted(number: int, noun: str) -> str:
    """'1 seed', '5 seeds'."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    return None if numerator is None or not denominator else numerator / denominator
