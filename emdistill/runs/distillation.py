"""A run that taught a student, as pages, cards and comparisons read it: nothing that they need is open."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from emdistill.config import NO_TEACHER
from emdistill.errors import DataError, OutputError
from emdistill.files import is_inside
from emdistill.runs.answers import PREDICTIONS, Predictions, read_predictions
from emdistill.runs.baseline_record import BaselineRecord, read_baselines
from emdistill.runs.flows import FLOWS, FlowRecord, read_flows
from emdistill.runs.gate_record import GateRecord, read_gate
from emdistill.runs.record import (
    MEND,
    RUN_FILE,
    AnswersRecord,
    DataOptions,
    ModelRecord,
    RunRecord,
    TaskRecord,
    check_record,
    read_run,
)
from emdistill.tasks.answers import flat

PACKAGES = ("emdistill", "torch", "transformers")
TASKS = "tasks"  # of a run of several, a folder of each task's answers and baselines


@dataclass(frozen=True, kw_only=True)
class Options(DataOptions):
    """The options that are read one by one; run.json's `config` holds all of them."""

    teacher: str
    student: str
    method: str
    output: str
    objective: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Distillation:
    """The record of a run with a student, and what else it has left, which is read when asked for.

    task      None for raw text
    teacher   None where no model taught
    Raises OutputError for a broken record, DataError for a broken line.
    """

    folder: Path
    record: RunRecord
    options: Options
    teacher: ModelRecord | None
    student: ModelRecord
    task: TaskRecord | None

    @property
    def scored_task(self) -> TaskRecord:
        """The task; OutputError for raw text, which has no score."""
        if self.task is None:
            raise OutputError(f"{self.folder} holds a general distillation, which has no score; name runs of a task")
        return self.task

    @property
    def answers(self) -> AnswersRecord | None:
        """The file of answers that taught; None where none did."""
        return self.record.teacher if isinstance(self.record.teacher, AnswersRecord) else None

    @property
    def teacher_scores(self) -> dict[str, float]:
        """By metric; empty before the teacher was scored, and where it has not answered all of dev."""
        return self.record.scores.get("teacher", {})

    @property
    def student_scores(self) -> dict[str, float]:
        """By metric; empty before the student was scored."""
        return self.record.scores.get("student", {})

    @property
    def training_seconds(self) -> float | None:
        """Over all sessions; None before the training has ended."""
        return self.record.timings.get("training_seconds")

    @property
    def dev(self) -> tuple[str, int]:
        """Name and rows of the first evaluation set; ("", 0) for raw text."""
        return next(iter(self.task.evaluation_rows.items())) if self.task else ("", 0)

    @cached_property
    def gate(self) -> GateRecord | None:
        """What was measured of its exported forms."""
        return read_gate(self.folder)

    @cached_property
    def baselines(self) -> BaselineRecord | None:
        """What could be taken instead of the student."""
        return read_baselines(self.folder)

    @cached_property
    def flows(self) -> list[FlowRecord]:
        """The flows over the steps; empty for a method without layer mapping."""
        path = self.folder / FLOWS
        return read_flows(path) if path.exists() else []

    @cached_property
    def predictions(self) -> Predictions | None:
        """The answers to the first development set."""
        path = self.folder / PREDICTIONS
        if self.task is None or not path.exists():
            return None
        predictions = next(iter(read_predictions(path).values()))
        outputs, labels = flat(predictions.student).shape[1], len(self.task.labels)
        if outputs != (labels or 1):
            raise DataError(f"its rows have {outputs} logits, but {RUN_FILE} names {labels} labels", file=path)
        return predictions

    @property
    def stages(self) -> dict[str, int]:
        """Each stage, and the steps before it: steps are counted from 1 in every stage."""
        stages, before = {}, 0
        for stage in self.record.log:
            stages[stage.stage] = before
            before += max((step for step, _ in stage.steps), default=0)
        return stages

    @cached_property
    def of_tasks(self) -> dict[str, "Distillation"]:
        """Of several tasks each, as if it had been learned alone: its task and scores, in a folder of its own."""
        return {
            name: replace(self, folder=task_folder(self.folder, name), task=task, record=_of_task(self.record, name))
            for name, task in self.record.tasks.items()
        }


def task_folder(run: Path, task: str) -> Path:
    """Where a run of several tasks leaves what is one task's."""
    return run / TASKS / task


def _of_task(record: RunRecord, name: str) -> RunRecord:
    prefix = f"{name}/"
    scores = {
        model: {metric.removeprefix(prefix): score for metric, score in own.items() if metric.startswith(prefix)}
        for model, own in record.scores.items()
    }
    return replace(record, task=record.tasks[name], tasks={}, scores=scores)


def read_distillation(folder: Path) -> Distillation:
    """The distillation of a run folder; OutputError where there is none, or its record is broken."""
    return as_distillation(folder, read_run(folder))


def as_distillation(folder: Path, record: RunRecord) -> Distillation:
    """A record as a distillation; OutputError for another run, or naming what is missing or no finite number."""
    path = folder / RUN_FILE
    if record.student is None:
        raise OutputError(f"{folder} holds no distillation; name a folder that `emdistill distill` wrote")
    if record.teacher is None and record.config.get("teacher") != NO_TEACHER:
        raise OutputError(f"{path} is broken (teacher: Field required); {MEND}")
    if fault := _fault(record):
        raise OutputError(f"{path} is broken ({fault}); {MEND}")
    options = check_record(record.config, Options, path, within="config")
    teacher = record.teacher if isinstance(record.teacher, ModelRecord) else None
    return Distillation(folder, record, options, teacher, record.student, record.task)


def _fault(record: RunRecord) -> str | None:
    """What a record lacks, or holds that is no number."""
    task, groups = record.task, {"scores": record.scores, "held_out_loss": record.held_out_loss}
    if task and not (task.metrics and task.evaluation_rows):
        return "task.metrics or task.evaluation_rows is empty"
    values = {f"timings.{name}": value for name, value in record.timings.items()}
    for group, parts in groups.items():
        values |= {f"{group}.{name}.{metric}": value for name in parts for metric, value in parts[name].items()}
    scored = ("teacher", "student") if isinstance(record.teacher, ModelRecord) else ("student",)
    scores = [f"scores.{name}.{task.metric}" for name in scored] if task else []
    needed = ("timings.training_seconds", *(scores or ("held_out_loss.before.loss", "held_out_loss.after.loss")))
    faults = [f"tasks.{name}: this is no name" for name in record.tasks if not is_inside(name)]
    faults += [f"{name}: {value} is no finite number" for name, value in values.items() if not math.isfinite(value)]
    if record.is_finished:
        faults += [f"{name}: Field required" for name in needed if name not in values]
    return faults[0] if faults else None


def versions_of(runs: Sequence[Distillation]) -> dict[str, tuple[str, ...]]:
    """Package -> the versions that the runs were made with."""
    return {name: tuple(dict.fromkeys(run.record.versions.get(name, "unknown") for run in runs)) for name in PACKAGES}


def version_notes(versions: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence for each package of which the runs had several versions."""
    return [
        f"the runs were made with different versions of {name}: {', '.join(several)}"
        for name, several in versions.items()
        if len(several) > 1
    ]
