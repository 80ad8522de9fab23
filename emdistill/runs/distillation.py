"""A run that taught a student, as pages, cards and comparisons read it: nothing that they need is open."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emdistill.errors import OutputError
from emdistill.runs.record import (
    MEND,
    RUN_FILE,
    DataOptions,
    ModelRecord,
    RunRecord,
    TaskRecord,
    check_record,
    read_run,
)


@dataclass(frozen=True, kw_only=True)
class Options(DataOptions):
    """The options that are read one by one; run.json's `config` holds all of them."""

    teacher: str
    student: str
    method: str
    output: str
    student_source: str | None = None
    mapping: str | None = None
    augmented: str | None = None
    objective: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Distillation:
    """The record of a run with a student; `task` is None for raw text."""

    folder: Path
    record: RunRecord
    options: Options
    teacher: ModelRecord
    student: ModelRecord
    task: TaskRecord | None

    @property
    def teacher_scores(self) -> dict[str, float]:
        """By metric; empty before the teacher was scored."""
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
    def train_rows(self) -> int:
        """How many rows, or pieces of text, were learned from."""
        return self.record.rows.get("train", 0)

    @property
    def dev(self) -> tuple[str, int]:
        """Name and rows of the first evaluation set; ("", 0) for raw text."""
        return next(iter(self.task.evaluation_rows.items())) if self.task else ("", 0)


def read_distillation(folder: Path) -> Distillation:
    """The distillation of a run folder; OutputError where there is none, or its record is broken."""
    return as_distillation(folder, read_run(folder))


def as_distillation(folder: Path, record: RunRecord) -> Distillation:
    """A record as a distillation; OutputError for another run, or naming what is missing or no finite number."""
    path = folder / RUN_FILE
    if record.student is None:
        raise OutputError(f"{folder} holds no distillation; name a folder that `emdistill distill` wrote")
    if record.teacher is None:
        raise OutputError(f"{path} is broken (teacher: Field required); {MEND}")
    options = check_record(record.config, Options, path, within="config")
    run = Distillation(folder, record, options, record.teacher, record.student, record.task)
    if fault := _fault(run):
        raise OutputError(f"{path} is broken ({fault}); {MEND}")
    return run


def _fault(run: Distillation) -> str | None:
    if run.task and not (run.task.metrics and run.task.evaluation_rows):
        return "task.metrics or task.evaluation_rows is empty"
    for group in ("scores", "held_out_loss"):
        for name, values in getattr(run.record, group).items():
            for metric, value in values.items():
                if not math.isfinite(value):
                    return f"{group}.{name}.{metric}: {value} is no finite number"
    if not run.record.is_finished:
        return None
    if run.training_seconds is None:
        return "timings.training_seconds: Field required"
    if run.task:
        group, names, metric = "scores", ("teacher", "student"), run.task.metric
    else:
        group, names, metric = "held_out_loss", ("before", "after"), "loss"
    missing = [name for name in names if metric not in getattr(run.record, group).get(name, {})]
    return f"{group}.{missing[0]}.{metric}: Field required" if missing else None
