"""What is to be learned, and the proof that it can be, before anything of an earlier run is removed."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from emdistill.errors import ConfigError, EmdistillError
from emdistill.models.arithmetic import fast_float32
from emdistill.models.capture import capture
from emdistill.models.teacher import OwnAnswers, TeacherSource
from emdistill.training.arguments import DistillationArguments
from emdistill.training.evaluate import Score
from emdistill.training.stage import Stage
from emdistill.training.trainer import DistillationTrainer
from emdistill.training.two_vocabularies import collator_for_both


class MovableTeacher(TeacherSource, Protocol):
    """A teacher, a file of answers, or the teachers of several tasks."""

    def to(self, device: Any) -> Any: ...


Collator = Callable[[list[dict[str, Any]]], Any]
Batches = Callable[[Dataset, int, int], Sampler[list[int]]]


@dataclass(frozen=True)
class Lesson:
    """A student, the stages in which it learns, what it learns from and under whom.

    arguments         one per stage, from stage_arguments.py
    train, choose_on  tokenised examples; with `choose_on`, each stage keeps its best checkpoint on it, by `score`
    labelled          the rows of train that have labels, where not all have
    collator          makes a batch of examples; None: it pads them
    batches           (rows, batch size, seed) -> the batches of rows; None: as the arguments say
    teacher_tokenizer  where it differs from the student's: the examples then hold the tokens of both
    birth             what comes before, where the student is born of a training: its weights are this one's result
    """

    student: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stages: Sequence[Stage]
    arguments: Sequence[DistillationArguments]
    train: Dataset
    teacher: MovableTeacher | None = None
    choose_on: Dataset | None = None
    score: Score | None = None
    collator: Collator | None = None
    labelled: Dataset | None = None
    teacher_tokenizer: PreTrainedTokenizerBase | None = None
    batches: Batches | None = None
    birth: "Lesson | None" = None

    @property
    def all_stages(self) -> list[Stage]:
        """Its stages, those of its birth first."""
        return [*([] if self.birth is None else self.birth.stages), *self.stages]

    def rows_of(self, stage: Stage) -> Dataset:
        """What a stage learns from: without a teacher, the rows that have labels."""
        return self.train if stage.objective.taught or self.labelled is None else self.labelled

    @property
    def collate(self) -> Collator:
        """What makes a batch."""
        return self.collator or collator_for_both(self.tokenizer, self.teacher_tokenizer)

    def trainer(
        self,
        stage: Stage,
        settings: DistillationArguments,
        teacher: TeacherSource | None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> DistillationTrainer:
        """The trainer of one of its stages; `teacher` as the stage reads it, perhaps from a cache."""
        rows, score = self.rows_of(stage), self.score
        return DistillationTrainer(
            self.student,
            teacher=OwnAnswers(self.student) if stage.self_taught else teacher,
            objective=stage.objective,
            args=settings,
            processing_class=self.tokenizer,
            train_dataset=rows,
            eval_dataset=self.choose_on,
            compute_metrics=None if score is None else lambda answer: score(answer.predictions, answer.label_ids),
            data_collator=self.collate,
            batches=None if self.batches is None else partial(self.batches, rows),
            callbacks=list(callbacks),
            slow_below=stage.slow_below,
        )


def prove(lesson: Lesson) -> None:
    """One batch forward and backward through teacher, capture and objective of every stage; all stays as it was.

    Raises whatever the first training step would raise; ConfigError for settings that no trainer can be made with.
    """
    if lesson.birth is not None:
        prove(lesson.birth)
    student, teacher, device = lesson.student, lesson.teacher, lesson.arguments[0].device
    if teacher is not None:
        teacher.to(device)
    student.to(device)  # type: ignore[arg-type]
    columns = [name for name in lesson.train.column_names if name != "length"]
    rows = lesson.train.select_columns(columns).select(range(min(2, len(lesson.train)))).to_list()
    batch = {name: value.to(device) for name, value in lesson.collate(rows).items()}
    was_training = student.training
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), fast_float32():
        for stage, settings in zip(lesson.stages, lesson.arguments, strict=True):
            student.train()
            objective = copy.deepcopy(stage.objective.of(batch)).to(device)
            if settings.gradient_checkpointing:
                _switch_checkpointing_on(student)
            try:
                states = taught = capture(student, batch, objective.student_needs, objective.student_layers)
                if teacher is not None and stage.reads_teacher:
                    taught = teacher(batch, objective.needs, objective.teacher_layers)
                objective(states, taught, batch)[0].backward()
            finally:
                if settings.gradient_checkpointing:
                    student.gradient_checkpointing_disable()  # type: ignore[no-untyped-call]
                student.zero_grad(set_to_none=True)
                student.train(was_training)
            _prove_settings(lesson, replace(stage, objective=copy.deepcopy(stage.objective)), settings)


def _prove_settings(lesson: Lesson, stage: Stage, settings: DistillationArguments) -> None:
    """Make the stage's trainer, its batches, optimizer and scheduler, in a folder of their own."""
    settings = copy.copy(settings)
    try:
        with TemporaryDirectory() as settings.output_dir:
            trainer = lesson.trainer(stage, settings, lesson.teacher)
            trainer.create_optimizer_and_scheduler(num_training_steps=100)
            batches = len(trainer.get_train_dataloader())
    except EmdistillError:
        raise
    except Exception as error:
        mend = "; a schedule's own settings are --training.lr_scheduler_kwargs" if "schedule" in str(error) else ""
        mend += f"; --training.optim_args is {settings.optim_args!r}, NAME=VALUE,…" if settings.optim_args else ""
        raise ConfigError(f"the training section cannot be used: {error}{mend}") from error
    if not batches:
        raise ConfigError(
            f"--training.dataloader_drop_last leaves no batch: --training.per_device_train_batch_size is "
            f"{settings.per_device_train_batch_size}, and there are {len(lesson.rows_of(stage))} rows"
        )


def _switch_checkpointing_on(student: PreTrainedModel) -> None:
    try:  # the first name is that of transformers from 5.23 on
        getattr(student, "activation_checkpointing_enable", student.gradient_checkpointing_enable)()
    except ValueError as error:  # transformers' own, for a family that it does not have it for
        mend = "leave it out, or lower --training.per_device_train_batch_size"
        raise ConfigError(f"--training.gradient_checkpointing true: {error} {mend}") from None
