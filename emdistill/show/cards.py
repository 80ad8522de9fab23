"""Model cards, README.md of a student: of a task, of several, of raw text, of an export. Front matter: huggingface_hub.

No path of the machine stands in them: paths are cut to their last part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from emdistill.config import as_command, folder_name, plain, source_name, source_names
from emdistill.console import ReportRow, Table, cell, comparison_table
from emdistill.models.families import FAMILIES
from emdistill.runs.distillation import Distillation
from emdistill.runs.gate_record import GateRecord
from emdistill.runs.record import RunRecord
from emdistill.show.gate_tables import FORMS, gate_tables, name_of, verdict_lines
from emdistill.show.page import code_span, render, words
from emdistill.tasks import TaskKind, find_kind


@dataclass(frozen=True)
class Reads:
    """What a model reads and answers; labels are empty for a score."""

    task: str
    kind: TaskKind
    labels: Sequence[str]
    pairs: bool
    max_length: int


def student_card(run: Distillation, verdict: str = "") -> str:
    """The card of a task's student; `verdict` compares it with what could be taken instead."""
    task, (first, _) = run.scored_task, run.dev
    kind = find_kind(task.kind)
    reads = Reads(task.name, kind, task.labels, task.pairs, run.options.max_length)
    # Scores on the first evaluation set bear the metric's name alone, others SET/METRIC.
    names = {name: name.rpartition("/") for name in (*run.student_scores, *run.teacher_scores)}
    sides = (run.teacher_scores, run.student_scores)
    scores = [
        [part or first, metric, *(cell(side.get(name), ".4f") for side in sides)]
        for name, (part, _, metric) in names.items()
    ]
    models = {"teacher": run.teacher, "student": run.student}
    sizes = [ReportRow(name, {}, model.parameters, model.bytes) for name, model in models.items() if model]
    files = [[code_span(source_name(file.name)), f"{file.rows:,}", code_span(file.sha256)] for file in task.files]
    front = {
        "pipeline_tag": kind.pipeline,
        "metrics": list(dict.fromkeys(names[name][-1] for name in run.student_scores)) or None,
        "model_name": folder_name(run.options.output),
        "eval_results": [
            EvalResult(
                kind.pipeline, dataset_type=task.name, dataset_name=task.name, dataset_split=names[name][0] or first,
                metric_type=names[name][-1], metric_value=round(value, 4),
            )
            for name, value in run.student_scores.items()
        ],
    }  # fmt: skip
    return _card(
        "student.md",
        run,
        front,
        task=task,
        reads=reads,
        settings={words(name).capitalize(): _text(value) for name, value in run.options.training.items()},
        data=Table(["data", "rows", "SHA-256"], files, words=(0, 2)),
        scores=Table(["measured on", "metric", "teacher", "student"], scores, words=(0, 1)),
        counts=f"{task.metric} on {first}",
        sizes=comparison_table(sizes).without_empty_columns(),
        verdict=verdict,
    )


def mixture_card(run: Distillation) -> str:
    """The card of a student of several tasks: each head's task and scores."""
    tasks = run.record.tasks
    lines = [
        [code_span(name), task.kind, f"{task.train_rows:,}", ", ".join(map(code_span, task.labels[:12])) or "a score"]
        for name, task in tasks.items()
    ]
    sides = (run.teacher_scores, run.student_scores)
    scores = [[name, *(cell(side.get(name), ".4f") for side in sides)] for name in run.student_scores]
    return _card(
        "mixture.md",
        run,
        {"model_name": folder_name(run.options.output)},
        tasks=list(tasks),
        first=next(iter(tasks)),
        table=Table(["head", "kind", "rows", "answers"], lines, words=(0, 1, 3)),
        scores=Table(["metric", "teacher", "student"], scores, words=(0,)),
    )


def text_card(run: Distillation) -> str:
    """The card of a student of raw text, which has no task yet."""
    before, after = (run.record.held_out_loss.get(moment, {}) for moment in ("before", "after"))
    losses = [[name, f"{value:.4f}", cell(after.get(name), ".4f")] for name, value in before.items()]
    return _card(
        "text.md",
        run,
        {},
        text=[(name, digest) for name, digest in run.record.hashes.items() if name not in run.record.config],
        losses=Table(["term", "as born", "after training"], losses),
    )


def onnx_card(gate: GateRecord, reads: Reads) -> str:
    """The card of an exported folder: what is in it, how it is run, and what was measured."""
    return _export_card("onnx.md", gate, gate_tables(gate)[0], reads=reads)


def heads_card(gate: GateRecord, run: RunRecord) -> str:
    """The card of an exported student of several tasks."""
    variants = gate.variants
    scores = [
        [name, *(f"{variant.scores[name]:.4f}" for variant in variants.values())] for name in variants["student"].scores
    ]
    worth = Table(["metric", *map(name_of, variants)], scores, words=(0,))
    return _export_card("heads.md", gate, worth, tasks=list(run.tasks))


def _export_card(template: str, gate: GateRecord, worth: Table, **values: Any) -> str:
    return render(
        f"cards/{template}",
        gate=gate,
        files=[(FORMS[name], variant) for name, variant in gate.variants.items() if name in FORMS],
        worth=worth,
        speed=gate_tables(gate)[1],
        verdict=verdict_lines(gate),
        **values,
    )


def _card(template: str, run: Distillation, front: Mapping[str, Any], **values: Any) -> str:
    method = source_name(run.options.method)
    tags = list(dict.fromkeys(["emdistill", "knowledge-distillation", method]))
    return render(
        f"cards/{template}",
        front=ModelCardData(library_name="transformers", tags=tags, **front).to_yaml().strip(),
        run=run,
        name=folder_name(run.options.output),
        teacher=source_names(run.options.teacher),
        method=method,
        brought=_brought(run),
        command=as_command("distill", run.record.config),
        **values,
    )


def _brought(run: Distillation) -> str:
    """The name of the student's family, where it is emdistill that brings it to transformers; else ''."""
    family = FAMILIES.get(run.student.family)
    return family.name if family is not None and family.brought else ""


def _text(value: Any) -> str:
    """A value as text, absolute paths cut to their last part."""
    value = plain(value)
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items())
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)
