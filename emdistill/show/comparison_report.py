"""What a comparison tells people: the table, its notes and the page; all from the comparison alone."""

from dataclasses import asdict, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from emdistill.console import ABSENT, ReportRow, Table, cell, comparison_table, counted, markdown, short, spread
from emdistill.files import write_json, write_whole
from emdistill.runs.baseline_record import TITLES, BaselineRecord
from emdistill.runs.comparison import Comparison, EntryResult, PairedDifference
from emdistill.runs.distillation import version_notes
from emdistill.show.charts import differences
from emdistill.show.page import Chart, Command, Notes, Section, Verdict, write_sections
from emdistill.show.verdict import baseline_notes, baselines_table, verdict

OLD_PICTURE = "differences.png"  # of earlier versions


def write_comparison(
    folder: Path, comparison: Comparison, beside: BaselineRecord | None = None, *, command: str = ""
) -> None:
    """Write comparison.json, comparison.md and report.html, each whole or not at all.

    beside   what was measured that could be taken instead of a student
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / OLD_PICTURE).unlink(missing_ok=True)
    write_json(folder / "comparison.json", comparison_record(comparison))
    notes, judgement = comparison_notes(comparison), verdict(beside) if beside else ""
    of_tasks = tasks_table(comparison) if comparison.tasks else None
    instead = baselines_table(beside).without_empty_columns() if beside else None
    text = differences_markdown(comparison, beside) + "\n" + (markdown(of_tasks) + "\n" if of_tasks else "")
    text += "".join(f"- {note}\n" for note in notes)
    text += f"\n{markdown(instead)}\n{judgement}\n" if instead else ""
    write_whole(folder / "comparison.md", text)
    title = f"{comparison.task}: {', '.join(entry.name for entry in comparison.entries)}"
    models = [ReportRow("teacher", comparison.teacher)] if comparison.teacher else []
    for entry in comparison.entries:
        means = {name: entry.mean(name) for name in next(iter(entry.scores.values()), {})}
        models.append(ReportRow(entry.name, means, entry.parameters, entry.size))
    differing = [
        (entry.name, list(entry.differences.values()), difference.mean, (difference.low, difference.high))
        for entry, difference in comparison.compared
    ]
    caption = (
        f"A dot per seed: its score minus that of {comparison.baseline} with the same seed. Below, their mean and its "
        "95 % interval. Right of 0 is better; an interval that holds 0 shows no difference."
    )
    x = f"{comparison.metric}, difference to {comparison.baseline}"
    verdicts = Verdict(_findings(comparison)), Verdict(judgement and f"{judgement[0].upper()}{judgement[1:]}.")
    sections = [
        Section("", [*verdicts, differences_table(comparison, beside)]),
        Section("Task by task", [of_tasks]),
        Section("What could be taken instead", [instead, Notes(baseline_notes(beside) if beside else ())]),
        Section("Differences", [Chart("", differences(differing, x=x), caption)] if differing else []),
        Section("Notes", [Notes([*(_note(*each) for each in comparison.compared), *notes])]),
        Section("Models", [comparison_table(models).without_empty_columns()]),
        Section("Command", [Command(command)]),
    ]
    write_sections(folder / "report.html", title, sections)


def _findings(comparison: Comparison) -> str:
    """'Better than soft-targets: a, b. No difference to soft-targets shown: c.'"""
    headings = {finding: f"{finding.capitalize()} than {comparison.baseline}" for finding in ("better", "worse")}
    sentences = []
    for finding, heading in (
        headings | {"no difference shown": f"No difference to {comparison.baseline} shown"}
    ).items():
        names = [entry.name for entry, _ in comparison.compared if entry.finding == finding]
        sentences += [f"{heading}: {', '.join(names)}."] if names else []
    return " ".join(sentences)


def _note(entry: EntryResult, difference: PairedDifference) -> str:
    return (
        f"{entry.name}: {entry.finding}; {_difference(difference)} over {counted(len(entry.differences), 'seed')} "
        f"({difference.wins} won, {difference.ties} tied, {difference.losses} lost)"
    )


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain values for JSON: all scores, differences and findings."""
    record = asdict(comparison)
    for entry, plain in zip(comparison.entries, record["entries"], strict=True):
        plain["mean"] = entry.mean(comparison.metric) if entry.scores else None
        plain["standard_deviation"] = entry.deviation(comparison.metric)
        plain["mean_seconds"] = entry.mean_seconds if entry.scores else None
        plain["finding"] = entry.finding
        plain["finding_survives_holm"] = entry.survives
    of_tasks = {
        metric: {
            entry.name: {
                "mean": entry.mean(metric) if entry.scores else None,
                "standard_deviation": entry.deviation(metric),
                "difference": entry.difference and asdict(entry.difference),
            }
            for entry in comparison.by(metric).entries
        }
        for metric in comparison.tasks
    }
    return {"status": "interrupted" if comparison.missing else "finished", **record, "tasks": of_tasks}


def differences_table(comparison: Comparison, beside: BaselineRecord | None = None) -> Table:
    """Mean ± deviation, paired difference and interval, wins/ties/losses, time, finding; of baselines score, time."""
    against = f"difference to\n{comparison.baseline}"
    headings = ["", comparison.metric, against, "won/\ntied/\nlost", "time\n(s)", "finding"]
    teacher = ["teacher", cell(comparison.teacher.get(comparison.metric), ".3f"), *[ABSENT] * 3, ""]
    lines = [teacher, *(_line(comparison, entry) for entry in comparison.entries)]
    if beside:
        lines += [
            [TITLES.get(name, name), f"{beside.score(row):.3f}", ABSENT, ABSENT, cell(row.seconds, ".3g"), ""]
            for name, row in beside.computed.items()
            if name != "labels"  # an entry by itself
        ]
    title = f"{comparison.task}, {comparison.dev}: {counted(len(comparison.seeds), 'seed')}"
    return Table(headings, lines, title, words=(0, 5))


def tasks_table(comparison: Comparison) -> Table:
    """Of several tasks the same task by task, without findings: those are by the mean."""
    lines = []
    for metric in comparison.tasks:
        task, _, name = metric.partition("/")
        lines.append([task, "teacher", cell(comparison.teacher.get(metric), ".3f"), ABSENT, ABSENT])
        part = comparison.by(metric)
        lines += [[name if place == 0 else "", *_line(part, entry)[:4]] for place, entry in enumerate(part.entries)]
    headings = ["task", "", "score", f"difference to\n{comparison.baseline}", "won/\ntied/\nlost"]
    return Table(headings, lines, f"{len(comparison.tasks)} tasks", words=(0, 1))


def differences_markdown(comparison: Comparison, beside: BaselineRecord | None = None) -> str:
    """The same table in Markdown, with the p-values beside it."""
    table = differences_table(comparison, beside)
    p_values = [("", ""), *((_p(e.difference.p if e.difference else None), _p(e.p_holm)) for e in comparison.entries)]
    lines = [[*line, *p] for line, p in zip_longest(table.lines, p_values, fillvalue=("", ""))]
    return markdown(replace(table, headings=[*table.headings, "p", "p (Holm)"], lines=lines))


def comparison_notes(comparison: Comparison) -> list[str]:
    """What a reader of the table must know, a sentence each."""
    notes = [
        f"scores on {comparison.dev} ({comparison.dev_rows} rows); {selection}" for selection in comparison.selection
    ]
    if comparison.learned_from:
        notes += [f"learned from {rows}" for rows in comparison.learned_from]
        notes.append("an entry without a teacher learns from the labelled rows alone, in as many steps as the others")
    if len(comparison.seeds) > 1:
        notes.append(
            f"±: standard deviation over seeds; [ ]: 95 % interval of the mean difference to {comparison.baseline} "
            f"with the same seed (Student's t); time: of training, the mean"
        )
    else:
        notes.append("one seed shows no difference, whatever its size: an interval needs two, better five (--seeds 5)")
    if comparison.tasks:
        notes.append(
            "findings are by the mean over tasks; an interval of one task is that task's alone, and of many such "
            "intervals some leave out 0 by chance"
        )
    notes += _holm_notes(comparison) + version_notes(comparison.versions)
    if comparison.missing:
        counts = ", ".join(f"{entry.name} {len(entry.scores)}" for entry in comparison.entries)
        notes.append(
            f"not complete: {comparison.missing} of {len(comparison.entries) * len(comparison.seeds)} runs are missing "
            f"(seeds finished: {counts}); differences are over the seeds that both have"
        )
    return notes


def _holm_notes(comparison: Comparison) -> list[str]:
    if len(comparison.compared) < 2 or len(comparison.seeds) < 2:
        return []
    verdicts = [
        f"{entry.name} {entry.finding} (p {_p(difference.p)}, adjusted {_p(entry.p_holm)}: "
        f"{'stands' if entry.survives else 'does not stand'})"
        for entry, difference in comparison.compared
        if entry.finding != "no difference shown"
    ]
    outcome = f"; after Holm's correction for their number: {', '.join(verdicts)}"
    made = f"{len(comparison.compared)} comparisons with {comparison.baseline} were made"
    return [made + (outcome if verdicts else ", and none shows a difference")]


def _line(comparison: Comparison, entry: EntryResult) -> list[str]:
    if not entry.scores:
        return [entry.name, *[ABSENT] * 4, "not run yet"]
    score = spread(entry.mean(comparison.metric), entry.deviation(comparison.metric))
    seconds, difference = short(entry.mean_seconds), entry.difference
    if difference is None:
        return [entry.name, score, ABSENT, ABSENT, seconds, "baseline" * (entry.name == comparison.baseline)]
    counts = f"{difference.wins}/{difference.ties}/{difference.losses}"
    return [entry.name, score, _difference(difference), counts, seconds, entry.finding or ""]


def _difference(difference: PairedDifference) -> str:
    """+.012 [-.003, +.027]; without an interval where there is none."""
    mean, low, high = difference.mean, difference.low, difference.high
    if low is None or high is None:
        return _signed(mean) + (" each" if difference.p is not None else "")
    return f"{_signed(mean)} [{_signed(low)}, {_signed(high)}]"


def _signed(value: float) -> str:
    """+.012, as shares are written in the pictures."""
    text = f"{value:+z.3f}"
    return text[0] + text[1:].removeprefix("0")


def _p(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3f}" if value >= 0.001 else "< 0.001"
