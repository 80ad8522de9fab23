"""Whoever teaches: a model, a file of answers, or nobody; several models stand in several.py."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Unpack

import numpy as np
from datasets import Dataset

from emdistill.config import NO_TEACHER, RunConfig
from emdistill.data.augmentation import read_augmented
from emdistill.data.files import Columns
from emdistill.data.teacher_answers import TeacherAnswers, answered_rows
from emdistill.data.unlabelled import UnlabelledText, unlabelled_text
from emdistill.errors import ConfigError
from emdistill.methods import compose_stages
from emdistill.models.encoder import Classifier, encoder_shape, load_classifier, load_tokenizer
from emdistill.models.teacher import AnswersTeacher, Teacher, TeacherSource, check_above_chance
from emdistill.models.teacher_ensemble import TeacherEnsemble
from emdistill.runs.describe import describe_model
from emdistill.runs.record import AnswersRecord, MemberRecord, ModelRecord
from emdistill.states import NOBODY, EncoderShape
from emdistill.students import Student, make_student, student_kind
from emdistill.students.pretrained import pretrained_student
from emdistill.tasks.task import Task, TaskData
from emdistill.training.evaluate import Reading, predict_sets
from emdistill.training.lesson import Lesson
from emdistill.training.splits import check_max_length
from emdistill.training.stage import Stage
from emdistill.training.stage_teachers import stage_teachers
from emdistill.training.two_vocabularies import check_can_meet, teachers_own

LEAST_SCORED = 20  # answered rows of dev; the score of fewer says nothing

Logits = Mapping[str, np.ndarray]


class OpenTeacher(ABC):
    """What a distillation asks of its teacher; what stands here is true where nobody teaches.

    source       gives a batch's states; None where nobody teaches
    fingerprint  SHA-256 of the weights, or of the file; '' of nobody
    tokenizer    of the encoder that the student is born from
    answers      of a file; what it has not answered is not learned from
    classifier   the one model that can be run, measured and exported; of a file, and of several, none
    born_from    the model whose layers a student may keep; of a file none
    logits_of_each  of several teachers, each one's by its name, once `logits` were asked for
    """

    source: Teacher | TeacherEnsemble | AnswersTeacher | None = None
    fingerprint: str = ""
    tokenizer: Any
    answers: TeacherAnswers | None = None
    classifier: Classifier | None = None
    born_from: Classifier | None = None
    logits_of_each: Mapping[str, Logits] = MappingProxyType({})

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @abstractmethod
    def student(self, task: Task, spec: str | None = None, **options: Any) -> Student:
        """The student that the configuration names, or `spec`, at birth; keywords as of make_student."""

    def student_shape(self, task: Task) -> EncoderShape:
        """The shape that the student will have: for it a method can be composed before any training."""
        return encoder_shape(self.student(task, birth="fresh")[0])

    @abstractmethod
    def stages(self, config: RunConfig, student: EncoderShape, task: Task) -> list[Stage]:
        """The stages of the configuration's method for a student of this shape; raises ConfigError."""

    def own_tokenizer(self, stages: Sequence[Stage], tokenizer: Any) -> Any | None:
        """Its tokenizer where it reads other tokens than the student's; raises TokenizerError where a stage cannot."""
        return None

    def augmented(self, file: Path, data: TaskData) -> Dataset:
        """The rows of a file that `emdistill augment` wrote, with the labels that stand there."""
        return read_augmented(file, data)

    def logits(self, evaluation: Mapping[str, Dataset], **reading: Unpack[Reading]) -> Logits | None:
        """Logits [rows, C] of every evaluation set; None where some rows have no answer."""
        return None

    def unlabelled(self, config: RunConfig, task: Task) -> UnlabelledText | None:
        """The text without labels; raises ConfigError for a number of texts without any."""
        if config.unlabelled is None:
            if config.unlabelled_rows is not None:
                raise ConfigError("--unlabelled-rows counts texts without labels; name their files with --unlabelled")
            if config.labelled_share is not None:
                raise ConfigError("--labelled-share is that beside texts without labels; name them with --unlabelled")
            return None
        given, folder = Columns(config.text, config.text_pair), cache_folder(config)
        return unlabelled_text(config.unlabelled, task, given, folder, config.unlabelled_rows, self.answers)

    def stage_sources(self, lesson: Lesson) -> list[TeacherSource | None]:
        """What teaches each stage; caches are written now."""
        return [self.source if stage.reads_teacher else None for stage in lesson.stages]

    def describe(self) -> ModelRecord | AnswersRecord | None:
        """The teacher as run.json has it."""
        return None

    def describe_each(self) -> tuple[MemberRecord, ...]:
        """Of several teachers each, as run.json has it."""
        return ()

    def check_score(self, scores: Mapping[str, float], task: Task, dev: Dataset) -> None:
        """Raise TeacherError where it scores near chance."""
        metric = task.metrics[0]
        if scores:
            check_above_chance(scores[metric], task.chance(task.gold(dev)), metric)


class TeacherModel(OpenTeacher):
    """A fine-tuned encoder, which is run."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.model = Teacher(load_classifier(config.teacher, task=config.head))
        self.source: Teacher | TeacherEnsemble = self.model
        self.fingerprint = self.model.fingerprint
        self.tokenizer = load_tokenizer(config.teacher)
        self.classifier = self.born_from = Classifier(config.teacher, self.model.model, self.tokenizer)

    def student(self, task: Task, spec: str | None = None, **options: Any) -> Student:
        student, tokenizer = make_student(
            spec or self.config.student, self.model.model, self.tokenizer, source=self.config.student_source,
            **task.asks, **options,
        )  # fmt: skip
        check_max_length(self.config.max_length, self.model.model, student)
        return student, tokenizer

    def stages(self, config: RunConfig, student: EncoderShape, task: Task) -> list[Stage]:
        return compose_stages(config, student, self.model.shape, task.predictions)

    def own_tokenizer(self, stages: Sequence[Stage], tokenizer: Any) -> Any | None:
        own = teachers_own(self.tokenizer, tokenizer)
        check_can_meet(stages, tokenizer, own)
        return own

    def augmented(self, file: Path, data: TaskData) -> Dataset:
        return read_augmented(file, data, teacher=self.fingerprint)

    def logits(self, evaluation: Mapping[str, Dataset], **reading: Unpack[Reading]) -> Logits:
        return predict_sets(self.model.model, self.tokenizer, evaluation, **reading)

    def stage_sources(self, lesson: Lesson) -> list[TeacherSource | None]:
        self.model.dtype = lesson.arguments[0].teacher_dtype
        return stage_teachers(
            lesson.stages, self.model, lesson.train, self.tokenizer,
            cache=self.config.teacher_cache, folder=cache_folder(self.config),
        )  # fmt: skip

    def describe(self) -> ModelRecord:
        return describe_model(self.model.model)


class WithoutModel(OpenTeacher):
    """There are no layers to learn from or to keep: the student is born from an encoder of its own."""

    why: str

    @cached_property
    def encoder(self) -> str:
        """The encoder that the student is born from; raises ConfigError where none is named."""
        spec, source = self.config.student, self.config.student_source
        if source is None and student_kind(spec) == "pretrained":
            return spec
        if source is None:
            raise ConfigError(
                f"--student {spec}: {self.why}, which has no layers to make a student of; name an encoder that gives "
                "them, --student-source FOLDER, or that is the student, --student FOLDER"
            )
        return source

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.encoder)

    def student(self, task: Task, spec: str | None = None, **options: Any) -> Student:
        """Made from the encoder as from a teacher; a student that is named as a whole takes no source."""
        encoder, _ = pretrained_student(self.encoder, **task.asks, seed=options.get("seed", 0))
        whole = student_kind(self.config.student) == "pretrained"
        source = self.config.student_source if whole else None
        student, tokenizer = make_student(
            spec or self.config.student, encoder, self.tokenizer, source=source, **task.asks, **options
        )
        check_max_length(self.config.max_length, student)
        return student, tokenizer


class TeacherFile(WithoutModel):
    """Answers that were given before, by whatever model or service."""

    def __init__(self, config: RunConfig, answers: TeacherAnswers, data: TaskData) -> None:
        super().__init__(config)
        self.source: AnswersTeacher = AnswersTeacher()
        self.answers: TeacherAnswers = answers
        self.fingerprint = answers.sha256
        self.why = f"the teacher {answers.path} is a file of answers"
        self.record = _describe_answers(answers, data)

    def stages(self, config: RunConfig, student: EncoderShape, task: Task) -> list[Stage]:
        """Raises ConfigError also where a stage learns from layers."""
        stages = compose_stages(config, student, student, task.predictions)
        if any(stage.objective.needs for stage in stages):
            raise ConfigError(
                f"the layer losses of {config.method} need a teacher that is a model, and {self.answers.path} is a "
                "file of answers; take --method soft-targets"
            )
        return stages

    def augmented(self, file: Path, data: TaskData) -> Dataset:
        """Those of the rows that have an answer, whoever has labelled them."""
        return answered_rows(self.answers.beside(read_augmented(file, data)))

    def logits(self, evaluation: Mapping[str, Dataset], **reading: Unpack[Reading]) -> Logits | None:
        every = {name: self.answers.of(examples) for name, examples in evaluation.items()}
        if not all(answered.all() for _, answered in every.values()):
            return None
        return {name: logits for name, (logits, _) in every.items()}

    def describe(self) -> AnswersRecord:
        return self.record

    def check_score(self, scores: Mapping[str, float], task: Task, dev: Dataset) -> None:
        super().check_score(scores or self.record.scores, task, dev)


class Nobody(WithoutModel):
    """Labels alone, and what a student can teach itself."""

    why = f"there is no teacher (--teacher {NO_TEACHER})"

    def stages(self, config: RunConfig, student: EncoderShape, task: Task) -> list[Stage]:
        """Raises ConfigError also where a stage learns from a teacher."""
        stages = compose_stages(config, student, student, task.predictions)
        if not any(stage.objective.needs for stage in stages):
            stages = compose_stages(config, student, NOBODY, task.predictions)
        if taught := [stage.name for stage in stages if stage.reads_teacher]:
            raise ConfigError(
                f"--method {config.method} has a teacher in its stage {taught[0]}, and --teacher {NO_TEACHER} is none; "
                "name one, or take --method cross-view or hard-labels"
            )
        return stages


def cache_folder(config: RunConfig) -> Path:
    """Where the teacher's outputs and the tokens of text without labels are kept."""
    return Path(config.teacher_cache_folder or Path(config.output) / "teacher_cache")


def _describe_answers(answers: TeacherAnswers, data: TaskData) -> AnswersRecord:
    """The file, how much of the data it answers, and its score on a part of dev where it answers that alone."""
    sets = {"train": data.train, **data.evaluation}
    answered = {name: answers.of(examples) for name, examples in sets.items()}
    counts = {name: int(there.sum()) for name, (_, there) in answered.items()}
    name, dev = next(iter(data.evaluation.items()))
    (logits, there), scores = answered[name], {}
    is_part = any(counts[each] < len(sets[each]) for each in data.evaluation)
    if is_part and counts[name] >= LEAST_SCORED:
        scores = data.task.score(logits[there], np.asarray(dev["label"])[there])
    return AnswersRecord(
        file=answers.path.name,
        sha256=answers.sha256,
        rows=answers.rows,
        texts=len(answers.logits),
        answered=counts,
        scores=scores,
        notes=(_coverage(answers, counts, {each: len(part) for each, part in sets.items()}, scores), *answers.notes),
    )


def _coverage(
    answers: TeacherAnswers, counts: Mapping[str, int], rows: Mapping[str, int], scores: Mapping[str, float]
) -> str:
    """How many rows of each set have an answer, and what becomes of the others."""

    def share(name: str) -> str:
        return f"all {rows[name]:,}" if counts[name] == rows[name] else f"{counts[name]:,} of {rows[name]:,}"

    scored = [name for name in rows if name != "train"]
    left_out = "" if counts["train"] == rows["train"] else " (the others are left out)"
    score = next((f"{metric} {value:.4f} on those" for metric, value in scores.items()), "no score of the teacher")
    unscored = "" if all(counts[name] == rows[name] for name in scored) else f" ({score})"
    parts = [f"{share('train')} rows of train{left_out}", *(f"{share(name)} of {name}" for name in scored)]
    return f"{answers.path.name} answers {', '.join(parts)}{unscored}"
