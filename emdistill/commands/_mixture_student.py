"""How a student of several tasks is born: the student of --student, with a head per task."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from emdistill.commands._mixture_tasks import OpenMixture
from emdistill.commands._one_task import Asked
from emdistill.config import RunConfig
from emdistill.models.encoder import tasks_of
from emdistill.models.multi_task import MultiTaskModel, TaskOutputs
from emdistill.models.task_head import HeadParts
from emdistill.runs.reading import reading_of
from emdistill.students import Student, student_kind
from emdistill.students.several_heads import with_heads
from emdistill.tasks.task import Task
from emdistill.teachers.opened import TeacherModel


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
