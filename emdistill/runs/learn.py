"""What fine-tuning and distillation have in common: how a training is prepared, run and recorded."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback

from emdistill.config import LearningConfig, config_dict
from emdistill.console import say_once
from emdistill.data.unlabelled import UnlabelledText
from emdistill.models.arithmetic import onednn_keeps_float32
from emdistill.models.teacher import TeacherSource
from emdistill.runs.describe import versions
from emdistill.runs.flow_recorder import FlowRecorder
from emdistill.runs.flows import FLOWS
from emdistill.runs.open_run import Run
from emdistill.runs.record import RunRecord, StageLog
from emdistill.tasks.task import TaskData
from emdistill.training import DistillationArguments, Stage
from emdistill.training.lesson import Lesson
from emdistill.training.run_stages import run_stages
from emdistill.training.splits import Splits, make_splits
from emdistill.training.stage_arguments import stage_arguments


def prepare(
    config: LearningConfig,
    data: TaskData,
    tokenizer: PreTrainedTokenizerBase,
    stages: Sequence[Stage],
    augmented: Dataset | None = None,
    teacher_tokenizer: PreTrainedTokenizerBase | None = None,
    text: UnlabelledText | None = None,
    labelled_share: float | None = None,
) -> tuple[list[DistillationArguments], Splits]:
    """The training arguments of every stage, and the rows that are learned from and chosen on."""
    choose, metric = config.select != "last", data.task.metrics[0]
    arguments = [
        stage_arguments(
            stage, config.training, folder=Path(config.output), choose=choose, metric=metric, seed=config.seed
        )
        for stage in stages
    ]
    splits = make_splits(
        data,
        tokenizer,
        teacher_tokenizer,
        select=config.select,
        max_length=config.max_length,
        batch_size=arguments[0].per_device_train_batch_size,
        tokens_per_batch=arguments[0].tokens_per_batch,
        rows=config.rows,
        augmented=augmented,
        text=text,
        labelled_share=labelled_share,
    )
    return arguments, splits


def new_record(config: LearningConfig, lesson: Lesson, **known: Any) -> RunRecord:
    """The record of a run that is about to begin: its options and versions, what the lesson says, and what is known."""
    teacher_dtype = lesson.arguments[0].teacher_dtype
    return RunRecord(
        config=config_dict(config),
        seed=config.seed,
        versions=versions(),
        rows_per_step={
            stage.name: settings.rows_per_step for stage, settings in zip(lesson.stages, lesson.arguments, strict=True)
        },
        arithmetic={
            "teacher": str(teacher_dtype).removeprefix("torch."),
            "float32 products by oneDNN": onednn_keeps_float32(),
        },
        objective={stage.name: str(stage.objective) for stage in lesson.all_stages},
        **known,
    )


def steps_per_epoch(settings: DistillationArguments, batches: int) -> int:
    """Updates of the student per pass over the batches of all rows, as transformers' Trainer counts them."""
    of_each: int = math.ceil(batches / settings.world_size)
    return math.ceil(of_each / settings.gradient_accumulation_steps)


def count_steps(stages: Sequence[Stage], arguments: Sequence[DistillationArguments], batches: int) -> None:
    """Let a stage that learns from labels alone take as many steps as if it learned from text without labels too."""
    for stage, settings in zip(stages, arguments, strict=True):
        if not stage.objective.taught and settings.max_steps <= 0:
            settings.max_steps = math.ceil(settings.num_train_epochs * steps_per_epoch(settings, batches))


def learn(
    run: Run,
    lesson: Lesson,
    teachers: Sequence[TeacherSource | None],
    *,
    callbacks: Sequence[TrainerCallback] = (),
) -> None:
    """Train the student through all stages; the log and the seconds are added to the run's record.

    teachers   one per stage; None where its objective reads labels only
    Raises Interrupted after Ctrl-C, once a checkpoint is written; TrainingError where a loss is not finite.
    """
    settings = lesson.arguments[0]
    if settings.emulates_bfloat16:
        say_once(
            "this processor has no bfloat16 instructions, and emulates them many times slower than float32; "
            "leave out --training.bf16 and --training.teacher_bf16"
        )
    elif settings.leaves_bfloat16_out and "bf16" not in run.record.config["training"]:
        say_once("there are instructions for bfloat16 here: with --training.bf16 true the student learns faster")
    recorder = FlowRecorder(run.folder / FLOWS, lesson.all_stages)
    with run.timed("training_seconds"):
        histories = run_stages(lesson, teachers, run.folder, resume=run.resumes, callbacks=[recorder, *callbacks])
    run.record.log += [StageLog(**history) for history in histories]
