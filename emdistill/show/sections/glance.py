"""What each model scores and costs, and the verdict of the gate."""

import os
import shlex

from emdistill.config import LABELS_ALONE, as_option
from emdistill.console import ReportRow, comparison_table, gap
from emdistill.data.unlabelled import texts_kept
from emdistill.errors import OutputError
from emdistill.runs.baseline_record import FOLDER
from emdistill.runs.distillation import Distillation, read_distillation
from emdistill.runs.gate_record import GateRecord
from emdistill.runs.record import RUN_FILE
from emdistill.show.gate_tables import FORMS, name_of
from emdistill.show.page import Go, NoGo, Notes, Section, Small, Verdict
from emdistill.tasks.task import ANSWERED
from emdistill.training.arguments import BUDGET

SAME = (
    "task", "text", "text_pair", "label", "kind", "augmented", "rows", "unlabelled_rows", "labelled_share",
    "max_length", "select", "seed", "student", "student_birth", "student_source", "embedding_rank",
)  # fmt: skip


def glance(run: Distillation) -> Section:
    """The sentence, the verdict, and the table of every model that there is."""
    gate, labels_only = run.gate, _labels_only(run)
    cases = [*gate.limit_cases.values()] if gate else []
    where = f"batch 1, length {cases[-1].length}, {gate.machine}" if gate and cases else ""
    taught = f"taught by the answers in {run.answers.file}" if run.answers else "without a teacher"
    taught = f"taught by {run.teacher.shape}" if run.teacher else taught
    facts = [
        f"{run.student.shape} (--student {run.options.student}), {taught} on {run.record.learned_from}",
        texts_kept(run.record.unlabelled) if run.record.unlabelled else "",
        run.record.selection,
        run.task.held_out if run.task else "",
        f"seed {run.record.seed}",
        "" if run.training_seconds is None else f"{run.training_seconds:,.0f} seconds of training",
    ]
    parts = [
        Verdict(_result(run)),
        _shipped(gate) if gate else None,
        comparison_table(_rows(run, gate, labels_only), caption=where).without_empty_columns(),
        Notes(_remarks(gate) if gate else ()),
        Small("; ".join(filter(None, facts)) + "."),
        Small("; ".join(run.answers.notes) + ".") if run.answers else None,
        *_further(run, gate, labels_only),
    ]
    return Section("At a glance", parts)


def _result(run: Distillation) -> str:
    """What the student scores beside its teacher; of raw text, how the loss fell."""
    if not run.record.log:  # a page is written just before its run is marked finished
        return "This run has not finished; --resume goes on with it."
    if run.task is None:
        before, after = (run.record.held_out_loss.get(moment, {}).get("loss") for moment in ("before", "after"))
        is_known = before is not None and after is not None
        return f"The loss on held-out text went from {before:.3f} to {after:.3f}." if is_known else ""
    metric = "the mean over tasks" if run.of_tasks else run.task.metric
    score, other = (scores.get(run.task.metric) for scores in (run.student_scores, run.teacher_scores))
    if score is not None and run.dev[0] == ANSWERED:
        return f"The student agrees with its teacher: {score:.3f} in {metric}."
    if score is None or other is None:
        return ""
    error = run.baselines.teacher.lead_error if run.baselines else None
    is_same = abs(other - score) < 0.0005
    beside = "as the teacher does" if is_same else f"{gap(score, other, error)} the teacher's {other:.3f}"
    size = run.student.parameters
    share = f"{size / max(1, run.teacher.parameters):.0%} of its" if run.teacher else f"{size:,}"
    return f"The student scores {score:.3f} in {metric}, {beside}, with {share} parameters."


def _shipped(gate: GateRecord) -> Verdict:
    if gate.verdict.go:
        return Go(f"Go: ship {name_of(gate.verdict.ship or '')}.")
    return NoGo("No-go: no exported student keeps the limits.")


def _further(run: Distillation, gate: GateRecord | None, labels_only: Distillation | None) -> list[Small]:
    """What stands beside the run, and what could still be made."""
    name = shlex.quote(run.folder.resolve().name)
    if run.task is None:
        return [Small(f"The loss and its terms on {run.record.rows.get('held out', 0):,} pieces not learned from.")]
    hints = []
    if labels_only:
        place = os.path.relpath(labels_only.folder, run.folder.resolve())
        hints.append(f"Labels alone: the run in `{place}`, as seen from this one's folder.")
    elif run.options.method != LABELS_ALONE:
        hints.append(
            "No student of the labels alone stands beside this run. The same command with `--method hard-labels`, "
            "without its `--objective` options and `--mapping`, and with an `--output` beside it, trains one; "
            f"`emdistill report {name}` shows it here."
        )
    if not gate:
        hints.append(f"Latency, ONNX and int8 are not measured yet: `emdistill export {name} --onnx --int8`.")
    return [*map(Small, hints)]


def _rows(run: Distillation, gate: GateRecord | None, labels_only: Distillation | None) -> list[ReportRow]:
    """Every model that has been scored; of raw text, the losses on text that was not learned from."""
    student, losses = run.student, run.record.held_out_loss
    models = [("teacher", run.teacher_scores, run.teacher), ("student", run.student_scores, student)]
    if run.task is None:
        models = [("student as born", losses.get("before", {}), student), ("student", losses.get("after", {}), student)]
    if labels_only:
        models.append(("student, labels alone", labels_only.student_scores, labels_only.student))
    forms = [(name_of(form), form, gate.variants[form]) for form in FORMS if form in gate.variants] if gate else []
    times = {name: case.p50 for name, case in gate.limit_cases.items()} if gate else {}
    rows = [
        ReportRow(name, scores, model.parameters if model else None, model.bytes if model else None, times.get(name))
        for name, scores, model in models
        if scores
    ]
    return rows + [
        ReportRow(name, variant.scores, student.parameters, variant.bytes, times.get(form))
        for name, form, variant in forms
    ]


def _remarks(gate: GateRecord) -> list[str]:
    """The limits, what failed, and the notes."""
    limits = [f"{as_option(name)} {value:g}" for name, value in gate.limits.items() if value is not None]
    failures = [f"{name_of(name)}: {reason}" for name, reasons in gate.verdict.failures.items() for reason in reasons]
    return [*([f"limits: {' '.join(limits)}"] if limits else []), *failures, *gate.verdict.notes]


def _labels_only(run: Distillation) -> Distillation | None:
    """The finished run of the same student on the same rows from the labels alone, beside it or in its own folder."""
    if run.task is None or run.options.method == LABELS_ALONE:
        return None
    folder = run.folder.resolve()
    for path in [*sorted(folder.parent.glob(f"*/{RUN_FILE}")), folder / FOLDER / "labels" / RUN_FILE]:
        try:
            other = read_distillation(path.parent)
        except (OutputError, OSError):
            continue  # another's run, or a broken one, is no reason to have no page of this one
        if other.record.is_finished and other.options.method == LABELS_ALONE and _is_comparable(other, run):
            return other
    return None


def _is_comparable(other: Distillation, run: Distillation) -> bool:
    """The same teacher and data (a mapping's file is the method's own), the same student, budget, and a score."""
    hashes, own = ({**each.record.hashes, "mapping": ""} for each in (other, run))
    return (
        other.task is not None
        and hashes == own
        and all(other.options.training.get(name) == run.options.training.get(name) for name in BUDGET)
        and all(other.record.config.get(name) == run.record.config.get(name) for name in SAME)
    )
