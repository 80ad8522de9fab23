"""One task under its teacher, as it is learned alone and as one of several: what distill.py and _mixture.py share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from datasets import Dataset

from emdistill.config import RunConfig
from emdistill.data.mixture_file import MixtureTask
from emdistill.models.encoder import Classifier, encoder_shape
from emdistill.runs.answers import PREDICTIONS, write_predictions
from emdistill.runs.baseline_record import BaselineRecord, baseline_names, write_baselines
from emdistill.runs.learn import prepare
from emdistill.runs.open_run import Run
from emdistill.ship.baselines import Setting, measure_baselines
from emdistill.ship.bench import torch_contender
from emdistill.tasks.task import Task, TaskData
from emdistill.teachers.opened import Logits, OpenTeacher
from emdistill.training.evaluate import predict_sets, score_sets
from emdistill.training.lesson import Lesson
from emdistill.training.projections import fit_projections
from emdistill.training.splits import Splits, sample_batches

ALONE = MixtureTask()


@dataclass(frozen=True)
class Asked:
    """One task with its data and its teacher; `entry` is that of a mixture's file, where it is one of several."""

    config: RunConfig
    data: TaskData
    teacher: OpenTeacher
    entry: MixtureTask = ALONE

    @property
    def name(self) -> str:
        """Of the task among several, and of its head."""
        return self.entry.name

    @property
    def task(self) -> Task:
        """What is asked."""
        return self.data.task

    @property
    def dev(self) -> Dataset:
        """The rows that count."""
        return next(iter(self.data.evaluation.values()))

    @cached_property
    def sample(self) -> Callable[..., list[dict[str, Any]]]:
        """(tokenizer, the teacher's) -> batches of rows that are learned from."""
        config = self.config
        return partial(sample_batches, self.data, select=config.select, max_length=config.max_length, rows=config.rows)

    def lesson(self, model: Any, tokenizer: Any, *, share: float = 1.0) -> "Part":
        """The stages of the method for this teacher, with this share of the budget, and the rows."""
        config, teacher, task = self.config, self.teacher, self.task
        augmented = None if config.augmented is None else teacher.augmented(Path(config.augmented), self.data)
        stages = [
            replace(stage, share=share * stage.share) for stage in teacher.stages(config, encoder_shape(model), task)
        ]
        own_tokenizer = teacher.own_tokenizer(stages, tokenizer)
        text = teacher.unlabelled(config, task)
        arguments, splits = prepare(
            config, self.data, tokenizer, stages, augmented, own_tokenizer, text, config.labelled_share
        )
        lesson = Lesson(
            model, tokenizer, stages, arguments, splits.train, teacher.source, splits.choose_on, splits.score,
            labelled=None if text is None else splits.labelled, teacher_tokenizer=own_tokenizer,
        )  # fmt: skip
        return Part(self, lesson, splits)

    def scores(self, logits: Logits | None) -> dict[str, float]:
        """By metric; none where some rows have no answer."""
        return {} if logits is None else score_sets(self.task, logits, self.data.evaluation)

    def score_teacher(self, description: str) -> Logits | None:
        """The teacher's logits on every evaluation set; raises TeacherError as check_teacher."""
        length = self.config.max_length
        logits = self.teacher.logits(self.data.evaluation, max_length=length, description=description)
        self.check_teacher(self.scores(logits))
        return logits

    def check_teacher(self, scores: Mapping[str, float]) -> None:
        """Raise TeacherError for a teacher near chance, unless such a one is wanted."""
        if self.config.check_teacher:
            self.teacher.check_score(scores, self.task, self.dev)


@dataclass(frozen=True)
class Part:
    """What a student learns of one task: the lesson that it would be alone, and the rows."""

    asked: Asked
    lesson: Lesson
    splits: Splits

    def fit_projections(self) -> None:
        """Where a stage begins with projections that are fitted."""
        lesson, asked = self.lesson, self.asked
        batches = partial(asked.sample, lesson.tokenizer, lesson.teacher_tokenizer)
        fit_projections(lesson.stages, lesson.student, asked.teacher.source, batches)

    def predict(self, description: str) -> Logits:
        """The student's logits of every evaluation set."""
        lesson, asked = self.lesson, self.asked
        return predict_sets(
            lesson.student, lesson.tokenizer, asked.data.evaluation,
            max_length=asked.config.max_length, description=description,
        )  # fmt: skip

    def write_answers(self, place: Path, teacher: Logits | None, student: Logits) -> None:
        """What both answer to every row that is scored."""
        place.mkdir(parents=True, exist_ok=True)
        write_predictions(place / PREDICTIONS, self.asked.data.evaluation, teacher, student)

    def measure_baselines(
        self,
        run: Run,
        place: Path,
        teacher: Logits | None,
        student: Logits,
        *,
        again: Callable[[RunConfig], Any] | None = None,
    ) -> BaselineRecord | None:
        """Measure what a user could take instead of the student, and write baselines.json; None where it is not asked.

        teacher, student   their logits
        again              does another run, for the student on labels alone
        """
        config, data = self.asked.config, self.asked.data
        if not (names := baseline_names(config.baselines)):
            return None
        own = Classifier(str(run.folder), self.lesson.student, self.lesson.tokenizer)
        seconds = run.record.timings["training_seconds"]
        contender = torch_contender(own, [student], max_length=config.max_length, seconds=seconds)
        setting = Setting(config, data, self.asked.teacher, own, again)
        record = measure_baselines(names, setting, contender, teacher).record(contender)
        write_baselines(place, record)
        return record
