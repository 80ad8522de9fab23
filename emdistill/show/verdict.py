"""Is the student worth it? One sentence and one table, from baselines.json alone; pure."""

from collections.abc import Mapping

from emdistill.console import ABSENT, Table, cell, gap, megabytes
from emdistill.runs.baseline_record import TITLES, BaselineRecord, ModelRow
from emdistill.show.pareto import pareto_front

CHEAP = 1.5  # times the student's milliseconds: beyond, a baseline is no cheaper model
INT8_TEACHER = "int8-teacher"
NOISE = 2.0  # standard errors of the paired difference


def verdict(record: BaselineRecord) -> str:
    """One sentence: the student against the best baseline that is no slower, and against its teacher."""
    student, rivals = record.student, record.computed
    cheap = {name: row for name, row in rivals.items() if _slowness(record, name) <= CHEAP}
    dear = {name: row for name, row in rivals.items() if name not in cheap and _shown(row) < 0}
    best, best_dear = (max(some, key=lambda name: record.score(rivals[name]), default=None) for some in (cheap, dear))
    clauses = [_against(record, best)] if best else [] if rivals else _against_teacher(record)
    faster = _times(_ratio(record.teacher, student))
    if faster and not (best and _shown(rivals[best]) < 0):
        subject = "" if best else "is " if clauses else f"the {record.student_name} is "
        clauses.append(f"{subject}{faster} faster than the teacher")
    nobody = "no baseline is as fast as the student" if rivals else "no baseline could be computed"
    sentence = " and ".join(clauses) or nobody
    if best_dear:
        title, points = TITLES.get(best_dear, best_dear), -(rivals[best_dear].lead or 0.0)
        slower = f"{_times(_slowness(record, best_dear))} slower"
        runtime = " than the student in int8, by their times in PyTorch" if best_dear == INT8_TEACHER else ""
        sentence += f"; {title} is {points:.1f} points better, but {slower}{runtime}"
    if record.own_int8 and record.own_int8.p50:
        sentence += f"; in int8 it takes {record.own_int8.p50:.1f} ms per text"
    return sentence


def _against(record: BaselineRecord, name: str) -> str:
    """The student against one baseline, which is no slower."""
    rival, title = record.baselines[name], TITLES.get(name, name)
    lead, error, shown = rival.lead or 0.0, rival.lead_error, _shown(rival)
    faster = _times(1 / _slowness(record, name))  # the baseline
    if shown < 0:
        return f"take {title}: it is {-lead:.1f} points better" + (f" and {faster} faster" if faster else "")
    if shown > 0:
        return f"the {record.student_name} is {lead:.1f} points better than {title}"
    noise = "" if error is None else f" ± {error:.1f}"
    aside = f", {faster} slower than it" if faster else ""
    return f"the {record.student_name} is level with {title} within the noise ({lead:+.1f}{noise} points){aside}"


def _against_teacher(record: BaselineRecord) -> list[str]:
    """How much of the teacher's score the student keeps, where there is nothing else to stand beside."""
    metric, teacher = record.metric, record.teacher.scores.get(record.metric, 0.0)
    own = record.score(record.student)
    return [f"the {record.student_name} keeps {own / teacher:.1%} of the teacher's {metric}"] if teacher > 0 else []


def _shown(row: ModelRow) -> float:
    """The student's lead where it is more than the noise, else 0; the plain number where the noise is not known."""
    lead = row.lead or 0.0
    return 0.0 if is_level(lead, row.lead_error) else lead


def is_level(lead: float, error: float | None = None) -> bool:
    """Whether points of lead are printed as 0.0, or are within the noise, where its standard error is known."""
    return f"{abs(lead):.1f}" == "0.0" or (error is not None and abs(lead) <= NOISE * error)


def beside(score: float, other: float, name: str) -> str:
    """'2.1 points below the teacher', 'level with TF-IDF': where a score stands, both as fractions."""
    return f"level with {name}" if is_level(100 * (score - other)) else f"{gap(score, other)} {name}"


def _slowness(record: BaselineRecord, name: str) -> float:
    """How many times as long as the student a baseline takes; the int8 teacher in PyTorch, for int8 speeds up both."""
    return _ratio(record.teacher if name == INT8_TEACHER else record.baselines[name], record.student)


def _ratio(row: ModelRow, other: ModelRow) -> float:
    """How many times as long a row takes as the other; 1 where it is not known."""
    return row.p50 / other.p50 if row.p50 and other.p50 else 1.0


def _times(ratio: float) -> str:
    """'40 times', '1.3 times'; '' where it is nearly 1 or less."""
    return "" if ratio < 1.05 else f"{ratio:.1f} times" if ratio < 9.95 else f"{ratio:,.0f} times"


def baselines_table(record: BaselineRecord) -> Table:
    """Student, teacher and baselines: score, the student's lead, MB, milliseconds, seconds; the front marked."""
    rows = {record.student_name: record.student, "teacher": record.teacher}
    rows |= {TITLES.get(name, name): row for name, row in record.baselines.items()}
    front = front_of(record, rows)
    lines = [
        [
            name,
            _with_error(row.scores.get(record.metric), row.standard_error, "{:.3f}", 0.01),
            _with_error(row.lead, row.lead_error, "{:+.1f}", 1.0),
            megabytes(row.bytes),
            cell(row.p50, ".2f"),
            cell(row.p95, ".2f"),
            cell(row.seconds, ",.0f" if (row.seconds or 0) >= 10 else ".1f"),
            "●" if name in front else "",
        ]
        for name, row in rows.items()
    ]
    headings = ["", record.metric, "student's\nlead", "size\n(MB)", "ms per\ntext", "ms,\np95", "train\n(s)", "front"]
    caption = (
        f"±: standard error over the {record.dev_rows:,} rows of dev; lead: in points, its error by rows that both "
        "answer; ms: from a text to its logits, tokenisation included, one text at a time, the median, "
        f"{record.machine}; ●: nothing here is both faster and better"
    )
    return Table(headings, lines, caption=caption)


def tasks_table(records: Mapping[str, BaselineRecord]) -> Table:
    """Of several tasks a line each: the scores of teacher, student and baselines, the student's lead beside them."""
    names = [name for name in TITLES if any(name in record.computed for record in records.values())]
    lines = []
    for task, record in records.items():
        rows = [record.computed.get(name) for name in names]
        cells = [cell(row.scores.get(record.metric), ".3f") for row in (record.teacher, record.student)]
        for row in rows:
            lead = "" if row is None else _with_error(row.lead, row.lead_error, "{:+.1f}", 1.0)
            cells.append(ABSENT if row is None else f"{record.score(row):.3f} ({lead})")
        lines.append([task, record.metric, *cells])
    headings = ["task", "metric", "teacher", "student", *(TITLES[name] for name in names)]
    return Table(headings, lines, caption="in brackets the student's lead, points ± standard error", words=(0, 1))


def front_of(record: BaselineRecord, rows: Mapping[str, ModelRow]) -> set[str]:
    """The names of the rows that no other beats in both score and milliseconds."""
    points = {name: row for name, row in rows.items() if record.metric in row.scores and row.p50 is not None}
    values = [{"score": record.score(row), "ms": row.p50 or 0.0} for row in points.values()]
    return {list(points)[place] for place in pareto_front(values, lower=("ms",), higher=("score",))}


def baseline_notes(record: BaselineRecord) -> list[str]:
    """How each baseline was made, or why it was not, likewise the teacher, and what else the reader must know."""
    made = [
        f"{TITLES.get(name, name)}: {f'not computed: {row.problem}' if row.problem else row.note}"
        for name, row in {"teacher": record.teacher, **record.baselines}.items()
        if row.problem or row.note
    ]
    return [*made, *record.notes]


def _with_error(value: float | None, error: float | None, form: str, scale: float) -> str:
    if value is None:
        return ABSENT
    shown = form.replace("+", "").format(0.0 if error is None else error * scale)
    return form.format(value) + ("" if error is None else f" ± {shown}")
