"""What a compression tells people: tables, lines, the sentence of verdict, and the page; from its record alone."""

import math
from pathlib import Path

from emdistill.console import ABSENT, Table, cell, counted, megabytes, short
from emdistill.runs.baseline_record import TITLES
from emdistill.runs.compression import TEACHER, CompressionRecord, FinalRow, FormRow, PlanRow
from emdistill.runs.search_record import Form
from emdistill.search.budget import Budget, Cost, read_budget
from emdistill.search.halving import Trial
from emdistill.show.front import Axis, Point, front_section
from emdistill.show.gate_tables import FORMS
from emdistill.show.page import Command, Notes, Section, Small, Verdict, write_sections
from emdistill.show.verdict import beside, is_level

BASELINE_TIMES = "Their milliseconds are from a text of about 128 tokens to its answer."
PREDICTED = "Predicted from graphs of random weights that were measured here, before anything was trained."


def candidates_table(record: CompressionRecord) -> Table:
    """What every student will cost in each form, whoever teaches it, and whether that keeps the budget."""
    lines = {}
    for row in record.candidates.values():
        costs = [part for form in FORMS for part in _cost(row.predicted.get(form))]
        keeping = [FORMS[form] for form, cost in row.predicted.items() if cost.keeps]
        lines[row.shape] = [row.shape, *costs, " and ".join(keeping) or "no"]
    costs = [f"{form}\n{cost}" for form in FORMS.values() for cost in ("ms (p95)", "MB")]
    headings = ["student", *costs, f"keeps\n{record.budget}"]
    return Table(headings, list(lines.values()), f"what students will cost here ({record.machine})", words=(0, 5))


def trials_table(record: CompressionRecord) -> Table:
    """The scores of the short trainings by their length, the one that went furthest first."""
    plan = record.plan
    scores = {(each.candidate, plan.share(each.candidate, each.rung)): each.score for each in record.trials if plan}
    shares = sorted({share for _, share in scores})
    names = dict.fromkeys(trial.candidate for trial in record.trials)

    def furthest(name: str) -> list[tuple[bool, float]]:
        last_first = [scores.get((name, share)) for share in reversed(shares)]
        return [(score is None, -(score or 0.0)) for score in last_first]

    lines = [
        [name, *(cell(scores.get((name, share)), ".4f") for share in shares)] for name in sorted(names, key=furthest)
    ]
    return Table(["candidate", *(f"{record.metric}\nafter {share:.0%}" for share in shares)], lines)


def baseline_table(record: CompressionRecord) -> Table:
    """What needs no distillation, and the teacher."""
    lines = [["teacher", cell(record.teacher.get(record.metric), ".4f"), ABSENT, ABSENT]]
    for name, row in record.baselines.items():
        lines.append([TITLES[name], cell(row.score, ".4f"), cell(row.p95, ".3g"), megabytes(row.bytes)])
    return Table(["without distilling", f"{record.metric}\ndev", "ms (p95)", "MB"], lines)


def finals_table(record: CompressionRecord) -> Table:
    """The whole trainings as they were measured."""
    lines = []
    for final in record.finals:
        for form, row in final.forms.items():
            chosen = final.candidate == record.delivered and form == final.ship
            kept = "delivered" if chosen else "yes" if row.keeps else "no"
            lines.append([final.candidate, FORMS[form], cell(row.score, ".4f"), *_cost(row), kept])
    headings = ["trained whole", "form", f"{record.metric}\ndev", "ms (p95)", "MB", f"keeps\n{record.budget}"]
    return Table(headings, lines, title="measured", words=(0, 1, 5))


def trial_line(record: CompressionRecord, trial: Trial) -> str:
    """'3 balanced: accuracy 0.7475 on held-out rows after 11% of a training, 31 s'."""
    assert record.plan is not None
    outcome = (
        f"failed: {trial.problem}" if trial.score is None else f"{record.metric} {trial.score:.4f} on held-out rows"
    )
    share = record.plan.share(trial.candidate, trial.rung)
    return f"{trial.candidate}: {outcome} after {share:.0%} of a training, {trial.seconds:.0f} s"


def plan_line(plan: PlanRow, *, fitting: int, texts: int, hours: float) -> str:
    """Who is tried, and what the time leaves out; hours: that would leave out nothing."""
    parts = [f"{counted(len(plan.candidates), 'candidate')} will be tried, {plan.finals} of them trained whole"]
    if fitting > len(plan.candidates):
        parts.append(f"{fitting - len(plan.candidates)} that fit are left out, for there is no time")
    if plan.unlabelled_rows is not None and plan.unlabelled_rows < texts:
        parts.append(f"{plan.unlabelled_rows:,} of {texts:,} texts without labels are learned from")
    if plan.scale < 1:
        parts.append(f"a whole training is cut to {plan.scale:.0%} of its steps")
    if len(parts) > 1:
        parts.append(f"a search anew with --hours {math.ceil(10 * hours) / 10:g} would leave nothing out")
    return "; ".join(parts)


def delivery(record: CompressionRecord, final: FinalRow) -> str:
    """What a whole training came to: '3 balanced: accuracy 0.8062 on dev; int8: 4.61 ms, 17.5 MB'."""
    forms = "; ".join(f"{FORMS[form]}: {row.cost}" for form, row in final.forms.items())
    return f"{final.candidate}: {record.metric} {final.scores[record.metric]:.4f} on dev; {forms}"


def verdict(record: CompressionRecord, best: FinalRow) -> str:
    """What is delivered, against the budget, what needs no distillation, and the teacher."""
    assert best.ship is not None
    form = best.forms[best.ship]
    score = best.scores[record.metric] if form.score is None else form.score
    sentence = (
        f"model/ holds {_name(best.candidate)} in {FORMS[best.ship]}: {record.metric} {score:.4f} on dev, "
        f"{form.cost}, within {record.budget}"
    )
    budget, clauses = read_budget(record.budget), []
    scores = {name: row.score for name, row in record.baselines.items() if row.score is not None}
    keeping = [name for name in scores if (cost := record.baselines[name].cost) and budget.keeps(cost)]
    if scores:
        name = max(keeping or scores, key=lambda name: scores[name])
        rival, lead = TITLES[name], 100 * (score - scores[name])
        if keeping and lead < 0 and not is_level(lead):
            return f"take {rival}: it is {-lead:.1f} points better, and keeps the budget too; {sentence}"
        clauses.append(beside(score, scores[name], rival) + ("" if keeping else " (which misses the budget)"))
    if (teacher := record.teacher.get(record.metric)) is not None and best.candidate != TEACHER:
        clauses.append(beside(score, teacher, "the teacher"))
    return f"{sentence}: {' and '.join(clauses)}" if clauses else sentence


def miss(record: CompressionRecord, budget: Budget, name: str, form: Form, cost: Cost, *, measured: bool) -> str:
    """By how much the nearest misses, and what would reach it."""
    over = [
        f"{short(part - limit)} {unit} over"
        for part, limit, unit in ((cost.ms, budget.ms, "ms"), (cost.mb, budget.mb, "MB"))
        if limit is not None and part > limit
    ] or ["too near the limit to be sure"]
    how, needed = ("takes", cost) if measured else ("would take", cost.to_be_sure)
    return (
        f"no student keeps {budget}: the nearest, {_name(name)} in {FORMS[form]}, {how} {cost}, {' and '.join(over)}; "
        f"--budget '{str(budget.reached_by(needed)).replace(' ms', 'ms').replace(' MB', 'MB')}' would be kept"
    )


def behind(record: CompressionRecord, best: FinalRow, name: str) -> str:
    """That the best student is behind a baseline."""
    theirs, own = cell(record.baselines[name].held_out, ".4f"), cell(best.held_out, ".4f")
    return (
        f"no student is worth its training here: on the {record.held_out_rows:,} rows that choose {TITLES[name]} has "
        f"{record.metric} {theirs} and {_name(best.candidate)} {own}"
    )


def instead(record: CompressionRecord, name: str) -> str:
    """What is delivered where no student keeps the budget and is better."""
    row = record.baselines[name]
    score = cell(row.score, ".4f")
    return f"model/ holds {TITLES[name]}: {record.metric} {score} on dev, {row.cost}, within {record.budget}"


def failures(record: CompressionRecord) -> list[str]:
    """Who was left out for a fault of its own."""
    return [f"{_name(name)} was left out: {problem}" for name, problem in record.failed.items()]


def chart_points(record: CompressionRecord) -> list[Point]:
    """Every candidate that was trained, in each form, by the longest training it had; and the baselines.

    By the rows that choose; where there is the teacher alone, which has no score on them, by dev.
    """
    scores = _scores(record)
    measured = {final.candidate: final.forms for final in record.finals}
    made = [
        Point(name, form, scores[name], row.p95, row.bytes / 1e6)
        for name in scores
        for form, row in (measured.get(name) or record.candidates[name].predicted).items()
    ] or [
        Point(name, form, row.score, row.p95, row.bytes / 1e6)
        for name, forms in measured.items()
        for form, row in forms.items()
        if row.score is not None
    ]
    return made + [
        Point(TITLES[name], "baseline", score, cost.ms, cost.mb)
        for name, row in record.baselines.items()
        if (score := row.held_out if scores else row.score) is not None and (cost := row.cost)
    ]


def _scores(record: CompressionRecord) -> dict[str, float]:
    """The score of every candidate on the rows that choose after the longest training it had."""
    latest = {trial.candidate: trial.score for trial in sorted(record.trials, key=lambda trial: trial.rung)}
    whole = {final.candidate: final.held_out for final in record.finals}
    return {name: score for each in (latest, whole) for name, score in each.items() if score is not None}


def write_compress_report(path: Path, record: CompressionRecord) -> None:
    """Write the page: the verdict, the front, what was measured, what was tried, and the notes."""
    budget, trials = read_budget(record.budget), trials_table(record)
    arithmetic = ", learning in bfloat16" if record.bfloat16 else ""
    effort = (
        f"The budget: {record.budget}, the 95th percentile of one text of 128 tokens and the model file, on "
        f"{record.machine}. The search took {record.spent / 60:.0f} of {record.hours * 60:.0f} minutes{arithmetic}."
    )
    chosen = (
        f"Which one is delivered was chosen by {record.held_out}; scores here are on {record.dev_rows:,} rows of dev, "
        "which nothing was chosen on. All of them stay: NAME/onnx in finals/ is a folder like model/."
    )
    rows, scored = "held out", f"Scores by {record.held_out}, each after the longest training it had."
    if not _scores(record):
        rows, scored = "dev", "Scores on dev."
    tried = f"Scores by {record.held_out}."
    if record.plan is not None and record.plan.quick:
        tried += " Who learns whole in the time of a short training did so."
    front = front_section(
        chart_points(record), record.metric, rows,
        Axis("milliseconds", "ms (p95)", [] if budget.ms is None else [budget.ms]),
        Axis("megabytes", "MB", [] if budget.mb is None else [budget.mb]),
        scored,
    )  # fmt: skip
    sections = [
        Section("", [Verdict(record.verdict), Small(effort)]),
        Section("Trained whole, exported, measured", [finals_table(record), Small(chosen)] if record.finals else []),
        front,
        Section("Without distilling", [baseline_table(record), Small(BASELINE_TIMES)]),
        Section("Trials", [trials, Small(tried)] if trials.lines else []),
        Section("What students cost", [candidates_table(record), Small(PREDICTED)]),
        Section("Notes", [Notes([*record.notes, *failures(record)])]),
        Section("The command", [Command(record.command)]),
    ]
    write_sections(path, f"{record.task} within {record.budget}", sections)


def _cost(row: FormRow | None) -> list[str]:
    return [ABSENT, ABSENT] if row is None else [short(row.p95), short(row.bytes / 1e6)]


def _name(candidate: str) -> str:
    return candidate if candidate == TEACHER else f"the student {candidate}"
