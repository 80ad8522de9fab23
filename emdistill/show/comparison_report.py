"""What a comparison tells people: the table, its notes, the picture and the page; all from the comparison alone."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from rich.text import Text

from emdistill.console import ABSENT, ReportRow, markdown
from emdistill.errors import DataError
from emdistill.files import write_whole
from emdistill.runs.comparison import Comparison, EntryResult, PairedDifference
from emdistill.show.figures import BAR_COLOR, DOTS_PER_INCH, FAINT, INK
from emdistill.show.page import Command, Items, Part, Picture, score_table, write_page

PICTURE = "differences.png"
FILES = ("comparison.json", "comparison.md", PICTURE, "report.html")


def write_comparison(folder: Path, comparison: Comparison, *, command: str = "") -> None:
    """Write comparison.json, comparison.md, differences.png and report.html, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / FILES[0], json.dumps(comparison_record(comparison), indent=2, ensure_ascii=False) + "\n")
    notes = comparison_notes(comparison)
    write_whole(folder / FILES[1], differences_markdown(comparison) + "\n" + "".join(f"- {note}\n" for note in notes))
    (folder / PICTURE).unlink(missing_ok=True)
    if comparison.compared:
        draw_differences(comparison, folder / PICTURE)
    metric, baseline = comparison.metric, comparison.baseline
    caption = (
        f"{metric}, difference to {baseline} with the same seed: a dot a seed, their mean, and its 95 % interval. "
        f"An interval that holds 0 shows no difference."
    )
    rows = [ReportRow("teacher", comparison.teacher), *map(_means, comparison.entries)]
    sentences = [*(_sentence(entry, difference) for entry, difference in comparison.compared), *notes]
    write_page(
        folder / "report.html",
        title=f"{comparison.task}: {', '.join(entry.name for entry in comparison.entries)}",
        parts=[
            Part("", [score_table(rows)]),
            Part("Notes", [Items(sentences)]),
            Part("Differences", [Picture(folder / PICTURE, caption)]),
            Part("Command", [Command(command)]),
        ],
    )


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain values for JSON: all scores, and what was found."""
    record = asdict(comparison)
    for entry, plain in zip(comparison.entries, record["entries"], strict=True):
        started = bool(entry.scores)
        plain["mean"] = entry.mean(comparison.metric) if started else None
        plain["standard_deviation"] = entry.deviation(comparison.metric)
        plain["mean_seconds"] = entry.mean_seconds if started else None
        plain["finding"] = entry.finding
        plain["finding_survives_holm"] = entry.survives
    return {"status": "interrupted" if comparison.missing else "finished", **record}


def differences_table(comparison: Comparison) -> Table:
    """The table for the terminal: mean ± deviation, paired difference and interval, wins/ties/losses, time, finding."""
    seeds = len(comparison.seeds)
    title = f"{comparison.task}, {comparison.dev}: {seeds} seed{'s' * (seeds > 1)}"
    table = Table(
        title=Text(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    first, *numbers, last = map(Text, _headings(comparison))
    table.add_column(first, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(last, min_width=len("no difference"))
    for cells in _rows(comparison):
        table.add_row(*map(Text, cells))
    return table


def differences_markdown(comparison: Comparison) -> str:
    """The same table in Markdown, with the p-values beside it."""
    headings = _headings(comparison)
    p_values = [["", ""], *([_p(e.difference.p if e.difference else None), _p(e.p_holm)] for e in comparison.entries)]
    rows = [row + p for row, p in zip(_rows(comparison), p_values, strict=True)]
    rule = ["---"] + ["---:"] * (len(headings) - 2) + ["---", "---:", "---:"]
    return markdown([[*headings, "p", "p (Holm)"], rule, *rows])


def comparison_notes(comparison: Comparison) -> list[str]:
    """What must be known to read the table, a sentence each."""
    notes = [
        f"scores on {comparison.dev} ({comparison.dev_rows} rows); {selection}" for selection in comparison.selection
    ]
    if len(comparison.seeds) > 1:
        notes.append(
            f"±: standard deviation over seeds; [ ]: 95 % interval of the mean difference to {comparison.baseline} "
            f"with the same seed (Student's t); time: of training, the mean"
        )
    else:
        notes.append("one seed shows no difference, whatever its size: an interval needs two, better five (--seeds 5)")
    notes += _about_holm(comparison)
    for name, versions in comparison.versions.items():
        if len(versions) > 1:
            notes.append(f"the runs were made with different versions of {name}: {', '.join(versions)}")
    if comparison.missing:
        counts = ", ".join(f"{entry.name} {len(entry.scores)}" for entry in comparison.entries)
        notes.append(
            f"not complete: {comparison.missing} of {len(comparison.entries) * len(comparison.seeds)} runs are missing "
            f"(seeds finished: {counts}); differences are over the seeds that both have"
        )
    return notes


def _about_holm(comparison: Comparison) -> list[str]:
    made = f"{len(comparison.compared)} comparisons with {comparison.baseline} were made"
    if len(comparison.compared) < 2 or len(comparison.seeds) < 2:
        return []
    verdicts = [
        f"{entry.name} {entry.finding} (p {_p(difference.p)}, adjusted {_p(entry.p_holm)}: "
        f"{'stands' if entry.survives else 'does not stand'})"
        for entry, difference in comparison.compared
        if entry.finding != "no difference shown"
    ]
    if not verdicts:
        return [f"{made}, and none shows a difference"]
    return [f"{made}; after Holm's correction for their number: {', '.join(verdicts)}"]


def draw_differences(comparison: Comparison, path: Path) -> None:
    """Draw the paired differences as a PNG: a row an entry, a dot a seed, the mean and its 95 % interval.

    Raises DataError where no entry has a seed in common with the baseline.
    """
    if not comparison.compared:
        raise DataError(f"no entry has a finished seed in common with {comparison.baseline}: nothing to draw")
    labels = [entry.name for entry, _ in comparison.compared]
    left, right, width = 0.3 + 0.085 * max(map(len, labels)), 3.3, 4.2
    below, above, height = 0.62, 0.5, 0.42 * len(labels) + 0.1
    size = (left + width + right, below + height + above)
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((left / size[0], below / size[1], width / size[0], height / size[1]))
    axes.axvline(0.0, color=INK, linewidth=0.9)
    for row, (entry, difference) in enumerate(comparison.compared):
        low, high = difference.low, difference.high
        axes.plot(
            list(entry.differences.values()), [row - 0.2] * len(entry.differences), "o", color=BAR_COLOR, markersize=4
        )
        if low is not None and high is not None:
            axes.plot([low, high], [row, row], "-", color=INK, linewidth=1.4)
            axes.plot([low, high], [row, row], "|", color=INK, markersize=7)
        axes.plot([difference.mean], [row], "D", color=INK, markersize=5)
        at = (1.0, row)
        text = f"{_difference(difference)}   {entry.finding}"
        axes.annotate(text, at, (8, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                      fontsize=8.5, color=INK, va="center")  # fmt: skip
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.margins(x=0.06)
    axes.set_xlabel(f"{comparison.metric}, difference to {comparison.baseline}", fontsize=9.5, color=INK)
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=INK)
    axes.locator_params(axis="x", nbins=6)
    for spine in axes.spines.values():
        spine.set_color(FAINT)
    heading = f"{comparison.task}: a dot a seed, the mean and its 95 % interval"
    figure.text(0.15 / size[0], 1 - 0.3 / size[1], heading, fontsize=11, color=INK, fontweight="bold")
    # Without the library's name and version in the file, equal pictures are equal bytes.
    figure.savefig(path, format="png", metadata={"Software": None})


def _headings(comparison: Comparison) -> list[str]:
    against = f"difference to\n{comparison.baseline}"
    return ["", comparison.metric, against, "won/\ntied/\nlost", "time\n(s)", "finding"]


def _rows(comparison: Comparison) -> list[list[str]]:
    teacher = ["teacher", f"{comparison.teacher[comparison.metric]:.3f}", *[ABSENT] * 3, ""]
    return [teacher, *(_row(comparison, entry) for entry in comparison.entries)]


def _row(comparison: Comparison, entry: EntryResult) -> list[str]:
    if not entry.scores:
        return [entry.name, *[ABSENT] * 4, "not run yet"]
    mean, deviation = entry.mean(comparison.metric), entry.deviation(comparison.metric)
    score = f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"
    seconds = _seconds(entry.mean_seconds)
    if entry.difference is None:
        return [entry.name, score, ABSENT, ABSENT, seconds, "baseline" * (entry.name == comparison.baseline)]
    found = entry.difference
    counts = f"{found.wins}/{found.ties}/{found.losses}"
    return [entry.name, score, _difference(found), counts, seconds, entry.finding or ""]


def _difference(found: PairedDifference) -> str:
    """+.012 [-.003, +.027]; without an interval where there is none."""
    if found.low is None or found.high is None:
        return _signed(found.mean) + (" each" if found.p is not None else "")
    return f"{_signed(found.mean)} [{_signed(found.low)}, {_signed(found.high)}]"


def _sentence(entry: EntryResult, found: PairedDifference) -> str:
    seeds = len(entry.differences)
    counts = f"{found.wins} won, {found.ties} tied, {found.losses} lost"
    return f"{entry.name}: {entry.finding}; {_difference(found)} over {seeds} seed{'s' * (seeds > 1)} ({counts})"


def _means(entry: EntryResult) -> ReportRow:
    metrics = next(iter(entry.scores.values()), {})
    return ReportRow(entry.name, {name: entry.mean(name) for name in metrics}, entry.parameters, entry.size)


def _signed(value: float) -> str:
    """+.012, as shares are written in the pictures."""
    text = f"{value:+z.3f}"
    return text[0] + text[1:].removeprefix("0")


def _seconds(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _p(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3f}" if value >= 0.001 else "< 0.001"
