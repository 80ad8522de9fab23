"""Model cards, README.md of a student: of a task, of raw text, of an export. Front matter by huggingface_hub.

No path of the machine stands in them: paths are cut to their last part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from emdistill.config import as_command, folder_name, plain, source_name
from emdistill.console import ReportRow, Table, comparison_table, shown
from emdistill.runs.distillation import PACKAGES, Distillation
from emdistill.runs.gate_record import GateRecord
from emdistill.runs.record import TaskRecord
from emdistill.show.gate_tables import gate_tables, verdict_lines
from emdistill.show.page import code_span, render, words
from emdistill.states import Link
from emdistill.tasks import find_kind

PIPELINE = "text-classification"
FILES = {"onnx": "float32", "int8": "int8"}


@dataclass(frozen=True)
class Reads:
    """What a model reads and answers; labels are empty for a score."""

    task: str
    link: Link
    labels: Sequence[str]
    pairs: bool
    max_length: int


def student_card(run: Distillation) -> str:
    """The card of a task's student."""
    task, (first, _) = run.scored_task, run.dev
    reads = Reads(task.name, find_kind(task.kind).link, task.labels, task.pairs, run.options.max_length)
    teacher, student = (_by_set(task, scores) for scores in (run.teacher_scores, run.student_scores))
    models = [("teacher", run.teacher), ("student", run.student)]
    scores = [
        [name, metric, shown(teacher[name].get(metric), ".4f"), shown(student[name].get(metric), ".4f")]
        for name in student
        for metric in dict.fromkeys([*student[name], *teacher[name]])
    ]
    sizes = [ReportRow(name, {}, model.parameters, model.bytes) for name, model in models]
    files = [[code_span(source_name(file.name)), f"{file.rows:,}", code_span(file.sha256)] for file in task.files]
    front = {
        "pipeline_tag": PIPELINE,
        "metrics": list(dict.fromkeys(metric for values in student.values() for metric in values)) or None,
        "model_name": folder_name(run.options.output),
        "eval_results": [
            EvalResult(
                PIPELINE, dataset_type=task.name, dataset_name=task.name, dataset_split=name, metric_type=metric,
                metric_value=round(value, 4),
            )
            for name, values in student.items()
            for metric, value in values.items()
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
        counts=f"{words(task.metric)} on {first}",
        sizes=comparison_table(sizes).without_empty_columns(),
    )


def text_card(run: Distillation) -> str:
    """The card of a student of raw text, which has no task yet."""
    before, after = (run.record.held_out_loss.get(moment, {}) for moment in ("before", "after"))
    losses = [[name, f"{value:.4f}", shown(after.get(name), ".4f")] for name, value in before.items()]
    return _card(
        "text.md",
        run,
        {},
        text=[(name, digest) for name, digest in run.record.hashes.items() if name != "teacher"],
        losses=Table(["term", "as born", "after training"], losses),
    )


def onnx_card(gate: GateRecord, reads: Reads) -> str:
    """The card of an exported folder: what is in it, how it is run, and what was measured."""
    worth, speed = gate_tables(gate)
    files = [(FILES[name], variant) for name, variant in gate.variants.items() if name in FILES]
    return render(
        "cards/onnx.md", gate=gate, reads=reads, files=files, worth=worth, speed=speed, verdict=verdict_lines(gate)
    )


def _card(template: str, run: Distillation, front: Mapping[str, Any], **values: Any) -> str:
    method = source_name(run.options.method)
    tags = list(dict.fromkeys(["emdistill", "knowledge-distillation", method]))
    return render(
        f"cards/{template}",
        front=ModelCardData(library_name="transformers", tags=tags, **front).to_yaml().strip(),
        run=run,
        name=folder_name(run.options.output),
        teacher=source_name(run.options.teacher),
        method=method,
        shape=f"{run.student.shape.layers} layers × {run.student.shape.width}",
        versions=[(name, run.record.versions[name]) for name in PACKAGES if name in run.record.versions],
        command=as_command("distill", run.record.config),
        **values,
    )


def _by_set(task: TaskRecord, scores: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Scores by evaluation set: those of the first bear the metric's name alone, others 'SET/METRIC'."""
    first, *others = task.evaluation_rows
    sets: dict[str, dict[str, float]] = {name: {} for name in (first, *others)}
    for name, value in scores.items():
        part, _, metric = name.rpartition("/")
        sets.get(part or first, {})[metric] = value
    return sets


def _text(value: Any) -> str:
    """A value as text, absolute paths cut to their last part."""
    value = plain(value)
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items())
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)
