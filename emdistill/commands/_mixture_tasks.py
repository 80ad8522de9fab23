"""The tasks of a mixture, each with its data and its teacher, and their student, with a head per task."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emdistill.commands._one_task import Asked
from emdistill.config import RunConfig, as_option
from emdistill.data.mixture_file import Mixture, MixtureTask
from emdistill.data.read import read_data
from emdistill.data.teacher_answers import is_answers_file
from emdistill.errors import ConfigError
from emdistill.files import sha256
from emdistill.models.encoder import tasks_of
from emdistill.models.multi_task import MultiTaskModel, TaskOutputs
from emdistill.models.task_head import HeadParts
from emdistill.processes import process_count
from emdistill.runs.baseline_record import baseline_names
from emdistill.runs.describe import student_hashes
from emdistill.runs.reading import reading_of
from emdistill.students import Student, student_kind
from emdistill.students.several_heads import with_heads
from emdistill.tasks.task import Task
from emdistill.teachers.open_teacher import input_hashes, open_teacher
from emdistill.teachers.opened import TeacherModel
from emdistill.training.splits import check_max_length

# Options of one task's data: of several, the file says them.
OF_A_TASK = (
    "task", "text", "text_pair", "label", "dev", "kind", "augmented", "unlabelled", "unlabelled_rows", "labelled_share",
)  # fmt: skip


@dataclass(frozen=True)
class OpenMixture:
    """What a mixture file says, and its tasks."""

    mixture: Mixture
    tasks: list[Asked]

    @property
    def notes(self) -> list[str]:
        """What a reader of the data must know, a line each."""
        return [f"note: {asked.name}: {note}" for asked in self.tasks for note in asked.data.notes]

    def hashes(self, config: RunConfig) -> dict[str, str]:
        """SHA-256 of all that a run of this configuration reads, by name."""
        students = student_hashes(config)
        hashes = {"mixture": sha256(Path(config.data)), **students}
        for asked in self.tasks:
            own = input_hashes(under(config, asked), asked.teacher, asked.data)
            hashes |= {f"{asked.name}/{name}": digest for name, digest in own.items() if name not in students}
        return hashes


def under(config: RunConfig, asked: Asked) -> RunConfig:
    """The configuration of a task with the method of another one."""
    return replace(
        asked.config, **{name: getattr(config, name) for name in ("method", "mapping", "objective", "training")}
    )


def open_mixture(config: RunConfig, mixture: Mixture) -> OpenMixture:
    """Every task with its data and its teacher; raises an EmdistillError for what cannot be used."""
    return OpenMixture(mixture, [_asked(config, entry) for entry in mixture.tasks])


def born(config: RunConfig, opened: OpenMixture) -> tuple[MultiTaskModel, Any]:
    """The student of --student, born from --teacher, with a head per task.

    Where it keeps its teacher's layers, each head begins as its own teacher's, else fresh.
    """
    mixture, tasks = opened.mixture, opened.tasks
    student, tokenizer = _body(config, tasks)
    keeps = student_kind(config.student) in ("layer-count", "layer-list") and config.student_source is None
    parts = HeadParts(mixture.private, mixture.gate, mixture.label_embedding)
    outputs = {asked.name: _outputs(asked, parts, config.max_length) for asked in tasks}
    teachers = {asked.name: asked.teacher.classifier.model for asked in tasks if keeps and asked.teacher.classifier}
    return with_heads(student, tokenizer, outputs, teachers, seed=config.seed), tokenizer


def _body(config: RunConfig, tasks: Sequence[Asked]) -> Student:
    """The encoder as a student of --teacher: of the task that it teaches, so that importance can be measured on it."""
    options: Any = {"seed": config.seed, "birth": config.student_birth, "embedding_rank": config.embedding_rank}
    for asked in tasks:
        if config.teacher == asked.config.teacher and config.head in (None, asked.config.head):
            return asked.teacher.student(asked.task, sample=asked.sample, **options)
    heads = tasks_of(config.teacher)
    teacher = TeacherModel(replace(config, head=config.head or next(iter(heads), None)))
    kind, labels = teacher.model.kind, teacher.model.labels
    task = Task("its own", kind, kind.names_of(labels), kind.default_metrics)
    return teacher.student(task, **options)


def _outputs(asked: Asked, parts: HeadParts, max_length: int) -> TaskOutputs:
    task = asked.task
    return TaskOutputs(
        task.labels, task.kind.problem_type, task.kind.head, asked.entry.layer, parts, reading_of(task, max_length)
    )


def check_options(config: RunConfig) -> None:
    """Raise ConfigError for options that are one task's, or that several tasks do not go with."""
    usual = RunConfig(teacher="", output="")
    given = [as_option(name) for name in OF_A_TASK if getattr(config, name) != getattr(usual, name)]
    if given:
        raise ConfigError(f"{', '.join(given)}: of several tasks, {config.data} says it for each; write it there")
    if process_count() > 1:
        raise ConfigError(
            f"--data {config.data}: several tasks are learned in one process only, and {process_count()} train here; "
            "start it without torchrun or accelerate launch"
        )
    if config.training.get("tokens_per_batch"):
        raise ConfigError("--training.tokens_per_batch: batches of several tasks are counted in rows; leave it out")
    if "labels" in (names := baseline_names(config.baselines)):
        raise ConfigError(
            f"--baselines {config.baselines}: labels alone is a run of its own where tasks are several, with --method "
            f"hard-labels; name the others: --baselines {','.join(name for name in names if name != 'labels')}"
        )
    if is_answers_file(config.teacher):
        raise ConfigError(
            f"--teacher {config.teacher} is a file of answers; name the encoder whose layers the student keeps, and "
            f"the file in {config.data}"
        )


def _asked(config: RunConfig, entry: MixtureTask) -> Asked:
    """Task, data and teacher of one entry of the file."""
    own = replace(config, **{"rows": config.rows, "head": None, **entry.options})
    if own.head is None and not is_answers_file(own.teacher) and entry.name in tasks_of(own.teacher):
        own = replace(own, head=entry.name)
    teacher, data = open_teacher(own, read_data(own))
    if isinstance(teacher, TeacherModel):
        check_max_length(config.max_length, teacher.model.model)
    return Asked(own, data, teacher, entry)
