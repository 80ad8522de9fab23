"""What a comparison tells people: the table, its notes and the page; all from the comparison alone."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from emdistill.console import ABSENT, ReportRow, Table, comparison_table, markdown
from emdistill.files import write_whole
from emdistill.runs.comparison import Comparison, EntryResult, PairedDifference
from emdistill.show.charts import differences
from emdistill.show.page import Chart, write_page

FILES = ("comparison.json", "comparison.md", "report.html")
OLD_PICTURE = "differences.png"  # of earlier versions


def write_comparison(folder: Path, comparison: Comparison, *, command: str = "") -> None:
    """Write comparison.json, comparison.md and report.html, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / OLD_PICTURE).unlink(missing_ok=True)
    notes = comparison_notes(comparison)
    record = json.dumps(comparison_record(comparison), indent=2, ensure_ascii=False)
    write_whole(folder / FILES[0], record + "\n")
    write_whole(folder / FILES[1], differences_markdown(comparison) + "\n" + "".join(f"- {note}\n" for note in notes))
    rows = [ReportRow("teacher", comparison.teacher), *map(_means, comparison.entries)]
    write_page(
        folder / FILES[2],
        "comparison",
        title=f"{comparison.task}: {', '.join(entry.name for entry in comparison.entries)}",
        verdict=_verdict(comparison),
        notes=[*(_sentence(entry, difference) for entry, difference in comparison.compared), *notes],
        table=differences_table(comparison),
        chart=_chart(comparison) if comparison.compared else None,
        models=comparison_table(rows).without_empty_columns(),
        command=command,
    )


def _chart(comparison: Comparison) -> Chart:
    rows = [
        (
            entry.name,
            list(entry.differences.values()),
            difference.mean,
            None if difference.low is None or difference.high is None else (difference.low, difference.high),
        )
        for entry, difference in comparison.compared
    ]
    against = f"difference to {comparison.baseline} with the same seed"
    caption = "A dot per seed, their mean, and its 95 % interval. An interval that holds 0 shows no difference."
    return Chart("", differences(rows, x=f"{comparison.metric}, {against}"), caption)


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
    """Mean ± deviation, paired difference and interval, wins/ties/losses, time, finding."""
    seeds = len(comparison.seeds)
    against = f"difference to\n{comparison.baseline}"
    headings = ["", comparison.metric, against, "won/\ntied/\nlost", "time\n(s)", "finding"]
    teacher = ["teacher", f"{comparison.teacher[comparison.metric]:.3f}", *[ABSENT] * 3, ""]
    lines = [teacher, *(_line(comparison, entry) for entry in comparison.entries)]
    title = f"{comparison.task}, {comparison.dev}: {seeds} seed{'s' * (seeds > 1)}"
    return Table(headings, lines, title, words=(0, 5))


def differences_markdown(comparison: Comparison) -> str:
    """The same table in Markdown, with the p-values beside it."""
    table = differences_table(comparison)
    p_values = [["", ""], *([_p(e.difference.p if e.difference else None), _p(e.p_holm)] for e in comparison.entries)]
    lines = [[*line, *p] for line, p in zip(table.lines, p_values, strict=True)]
    return markdown(replace(table, headings=[*table.headings, "p", "p (Holm)"], lines=lines))


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


def _line(comparison: Comparison, entry: EntryResult) -> list[str]:
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


def _verdict(comparison: Comparison) -> str:
    """'Better than soft-targets: bert-emd. No difference shown: tinybert.'; "" where nothing is compared."""
    groups: dict[str, list[str]] = {}
    for entry, _ in comparison.compared:
        groups.setdefault(entry.finding or "", []).append(entry.name)
    than = f" than {comparison.baseline}"
    titles = {"better": f"Better{than}", "worse": f"Worse{than}", "no difference shown": "No difference shown"}
    return " ".join(f"{title}: {', '.join(groups[kind])}." for kind, title in titles.items() if kind in groups)


def _signed(value: float) -> str:
    """+.012, as shares are written in the pictures."""
    text = f"{value:+z.3f}"
    return text[0] + text[1:].removeprefix("0")


def _seconds(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _p(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3f}" if value >= 0.001 else "< 0.001"
