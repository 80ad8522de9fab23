"""How a student of several tasks is born: the student of --student, with a head per task."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.commands._teachers import OpenTeacher, TeacherModel
from emdistill.config import RunConfig
from emdistill.data.mixture_file import Mixture, MixtureTask
from emdistill.models.encoder import class_with_head, tasks_of
from emdistill.models.multi_task import MultiTaskModel, TaskOutputs, build_task_model, head_end, share
from emdistill.models.task_head import HeadParts, LabelEmbedding, TaskHead
from emdistill.runs.reading import reading_of
from emdistill.students import Student, student_kind
from emdistill.tasks.task import Task, TaskData
from emdistill.training.splits import sample_batches


@dataclass(frozen=True)
class Asked:
    """One task of the mixture with its data and its teacher, as a distillation of it alone would have them."""

    entry: MixtureTask
    config: RunConfig
    data: TaskData
    teacher: OpenTeacher

    @property
    def name(self) -> str:
        """Of the task, and of its head."""
        return self.entry.name

    @property
    def task(self) -> Task:
        """What is asked."""
        return self.data.task


def born(config: RunConfig, mixture: Mixture, tasks: Sequence[Asked]) -> tuple[MultiTaskModel, PreTrainedTokenizerBase]:
    """The student of --student, born from --teacher, with a head per task.

    Where it keeps its teacher's layers, each head begins as its own teacher's, else fresh.
    """
    student, tokenizer = _body(config, tasks)
    keeps = student_kind(config.student) in ("layer-count", "layer-list") and config.student_source is None
    parts = HeadParts(mixture.private, mixture.gate, mixture.label_embedding)
    outputs = {asked.name: _outputs(asked, parts, config.max_length) for asked in tasks}
    models = {}
    for number, asked in enumerate(tasks):
        answers = outputs[asked.name]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed + number)
            model = build_task_model(class_with_head(student.config, answers.head), student.config, answers)
        share(model, student)
        if keeps:
            _begin_as_the_teachers(model, asked.teacher)
        _begin_as_words(model, asked, student, tokenizer)
        models[asked.name] = model
    return MultiTaskModel(models, outputs), tokenizer


def _body(config: RunConfig, tasks: Sequence[Asked]) -> Student:
    """The encoder as a student of --teacher: of the task that it teaches, so that importance can be measured on it."""
    for asked in tasks:
        if config.teacher == asked.config.teacher and config.head in (None, asked.config.head):
            sample = partial(
                sample_batches, asked.data,
                select=config.select, max_length=config.max_length, rows=asked.config.rows,
            )  # fmt: skip
            birth: OpenTeacher = asked.teacher
            return birth.student(asked.task, sample=sample, **_options(config))
    heads = tasks_of(config.teacher)
    teacher = TeacherModel(replace(config, head=config.head or next(iter(heads), None)))
    kind, labels = teacher.model.kind, teacher.model.labels
    task = Task("its own", kind, () if kind.link == "identity" else labels, kind.default_metrics)
    return teacher.student(task, **_options(config))


def _options(config: RunConfig) -> dict[str, object]:
    return {"seed": config.seed, "birth": config.student_birth, "embedding_rank": config.embedding_rank}


def _outputs(asked: Asked, parts: HeadParts, max_length: int) -> TaskOutputs:
    task = asked.task
    return TaskOutputs(
        task.labels, task.kind.problem_type, task.kind.head, asked.entry.layer, parts, reading_of(task, max_length)
    )


def _begin_as_the_teachers(model: PreTrainedModel, teacher: OpenTeacher) -> None:
    """A head begins as its teacher's, where they are of one size."""
    if teacher.classifier is None:
        return
    own, theirs = head_end(model), head_end(teacher.classifier.model)
    if not isinstance(theirs, nn.Linear):
        return
    if isinstance(own, nn.Linear) and own.weight.shape == theirs.weight.shape:
        own.load_state_dict(theirs.state_dict())
    elif isinstance(own, TaskHead) and own.width == theirs.in_features:
        own.begin_as(theirs)


def _begin_as_words(
    model: PreTrainedModel, asked: Asked, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Label embeddings begin as the mean of the words of each label's name; of a score, of the task's."""
    head = head_end(model)
    words: Tensor = student.get_input_embeddings().get_parameter("weight").detach()
    if not isinstance(head, TaskHead) or not isinstance(head.output, LabelEmbedding) or words.shape[1] != head.width:
        return
    names = [name.replace("_", " ") for name in asked.task.labels or (asked.name,)]
    ids = [tokenizer(name, add_special_tokens=False)["input_ids"] for name in names]
    head.output.begin_as(torch.stack([words[each].mean(dim=0) if each else words.mean(dim=0) for each in ids]))
