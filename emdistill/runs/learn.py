"""The part that fine-tuning, distillation and raw text have in common: prove that it can be learned, then learn it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.config import LearningConfig
from emdistill.data.batches import padding_collator
from emdistill.models.teacher import Teacher, TeacherSource
from emdistill.runs.flow_recorder import FlowRecorder
from emdistill.runs.open_run import Run
from emdistill.runs.record import RunRecord, StageLog
from emdistill.tasks.task import TaskData
from emdistill.training import DistillationArguments, Stage
from emdistill.training.dry_step import dry_step
from emdistill.training.run_stages import Collator, Score, run_stages, stage_arguments
from emdistill.training.splits import Splits, make_splits

FLOWS = "flows.jsonl"


@dataclass
class Lesson:
    """What is to be learned: a student, the stages in which it learns, what it learns from and under whom.

    train, choose_on  tokenised examples; with `choose_on`, each stage keeps its best checkpoint on it
    score             of the checkpoints
    collator          makes a batch of examples; by default it pads them
    """

    record: RunRecord
    student: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stages: Sequence[Stage]
    arguments: Sequence[DistillationArguments]
    train: Dataset
    teacher: Teacher | None = None
    choose_on: Dataset | None = None
    score: Score | None = None
    collator: Collator | None = field(default=None)

    def __post_init__(self) -> None:
        self.collator = self.collator or padding_collator(self.tokenizer)


def prepare(
    config: LearningConfig,
    data: TaskData,
    tokenizer: PreTrainedTokenizerBase,
    stages: Sequence[Stage],
    augmented: Dataset | None = None,
) -> tuple[list[DistillationArguments], Splits]:
    """The training arguments of every stage, and the rows that are learned from and chosen on."""
    arguments = [
        stage_arguments(
            stage,
            config.training,
            folder=Path(config.output),
            choose=config.select != "last",
            metric=data.task.metrics[0],
            seed=config.seed,
        )
        for stage in stages
    ]
    splits = make_splits(
        data,
        tokenizer,
        select=config.select,
        max_length=config.max_length,
        batch_size=arguments[0].per_device_train_batch_size,
        tokens_per_batch=arguments[0].tokens_per_batch,
        rows=config.rows,
        augmented=augmented,
    )
    return arguments, splits


def prove(lesson: Lesson) -> None:
    """Take one step of every stage without consequences; raises what training would raise at its first step."""
    assert lesson.collator is not None
    device = lesson.arguments[0].device
    if lesson.teacher is not None:
        lesson.teacher.to(device)
    lesson.student.to(device)  # type: ignore[arg-type]
    columns = [name for name in lesson.train.column_names if name != "length"]
    rows: list[dict[str, Any]] = lesson.train.select_columns(columns).select(range(min(2, len(lesson.train)))).to_list()
    batch = {name: value.to(device) for name, value in lesson.collator(rows).items()}
    dry_step(lesson.student, lesson.teacher, lesson.stages, lesson.arguments, batch)


def learn(run: Run, lesson: Lesson, teachers: Sequence[TeacherSource | None]) -> None:
    """Train the student through all stages; the log and the seconds go into the run's record.

    teachers   one per stage; None where its objective reads labels only
    Raises Interrupted after Ctrl-C, once a checkpoint is written; TrainingError where a loss is not finite.
    """
    with run.timed("training_seconds"):
        histories = run_stages(
            lesson.student,
            lesson.tokenizer,
            lesson.stages,
            lesson.arguments,
            teachers=teachers,
            train=lesson.train,
            choose_on=lesson.choose_on,
            score=lesson.score,
            folder=run.folder,
            resume=run.resumes,
            callbacks=[FlowRecorder(run.folder / FLOWS, list(lesson.stages))],
            collator=lesson.collator,
        )
    run.record.log = [StageLog(**history) for history in histories]
