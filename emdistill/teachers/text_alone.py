"""Teacher and text alone: a task whose labels are the teacher's own answers, so that scores are agreement with it."""

from itertools import islice
from pathlib import Path

import torch
from datasets import Dataset

from emdistill.config import RunConfig
from emdistill.data.compressed import plain_path
from emdistill.data.files import Columns
from emdistill.data.labels import as_the_model_counts
from emdistill.data.read import find_task, hold_out, read_task_data
from emdistill.data.rows import data_file
from emdistill.data.unlabelled import every_nth_text, sources, unlabelled_text
from emdistill.errors import ConfigError, DataError, listing
from emdistill.models.encoder import load_tokenizer
from emdistill.models.teacher import Teacher
from emdistill.runs.reading import recall_reading
from emdistill.tasks import find_kind
from emdistill.tasks.answers import check_finite
from emdistill.tasks.columns import columns_of
from emdistill.tasks.task import ANSWERED, DataFile, Task, TaskData
from emdistill.training.evaluate import predict_logits
from emdistill.training.splits import HELD_OUT_SEED

EVERY, AT_MOST, LEAST = 5, 4000, 20


def answered_text(config: RunConfig, teacher: Teacher) -> TaskData:
    """A fifth of the unlabelled text, at most 4000 texts, with the teacher's answers for labels; half of it is scored.

    With --dev, whose labels are gold, all of it is learned from, and dev is scored.
    Raises ConfigError where there is no text either, DataError for text or a dev that cannot be used.
    """
    if config.unlabelled is None:
        raise ConfigError(
            "there is nothing to learn from: name labelled rows with --data, text without labels with --unlabelled, "
            "or both"
        )
    columns = Columns(config.text, config.text_pair, config.label)
    task = task_of_text(config.unlabelled, teacher, columns, config.task, config.kind)
    scored: dict[str, Dataset] = {}
    files: tuple[DataFile, ...] = ()
    if config.dev is not None:
        scored["dev"] = read_dev(config.dev, task)
        files = (data_file(Path(config.dev), len(scored["dev"])),)
    text = unlabelled_text(config.unlabelled, task, columns, Path(config.output), None)
    texts = list(islice(every_nth_text(text, EVERY, scored.values()), AT_MOST))
    if len(texts) < LEAST:
        problem = f"a fifth of it are {len(texts)} texts, and at least {LEAST} are needed to score on; give more of it"
        raise DataError(problem, file=config.unlabelled)
    answered = answered_by(teacher, texts, task, config)
    if scored:
        note = f"no labelled rows were given: {len(answered):,} texts have the teacher's answers for labels"
        return TaskData(task, answered, scored, files, notes=(note,))
    train, held_out = hold_out(answered, task, 0.5, HELD_OUT_SEED, AT_MOST)
    said = (
        f"no labels were given: {len(train):,} texts have the teacher's answers for labels, and so have "
        f"{len(held_out):,} others that are held out; all scores are agreement with the teacher"
    )
    return TaskData(task, train, {ANSWERED: held_out}, held_out=said)


def task_of_text(names: str, teacher: Teacher, columns: Columns, task: str | None, kind: str | None) -> Task:
    """The task that --task or --kind name, or the one that the teacher was trained for; `names` is --unlabelled."""
    asked = teacher.kind if kind is None else find_kind(kind)
    if task is not None:
        form, name = find_task(task)
        if asked not in (kinds := form.kinds_of(name)):
            raise ConfigError(
                f"--task {task} asks for {listing(each.name for each in kinds)}, and not for {asked.name}"
            )
        if known := form.known(name):
            return known
    return Task(
        name=plain_path(Path(sources(names)[0])).stem,
        kind=asked,
        labels=asked.names_of(teacher.labels),
        metrics=asked.metrics_of(teacher.labels),
        words=recall_reading(teacher.model).words,
        **columns._asdict(),
    )


def read_dev(dev: str, task: Task) -> Dataset:
    """The rows of --dev, labels and all, counted as the task counts them; raises DataError and TeacherError."""
    data = read_task_data(
        dev, dev=dev, kind=task.kind.name, evaluating=True, text=task.text, text_pair=task.text_pair, label=task.label
    )
    teacher = f"{dev}: the teacher"
    return as_the_model_counts(data, task.labels, task.kind, model=teacher, some=True).evaluation["dev"]


def answered_by(teacher: Teacher, texts: list[tuple[str, ...]], task: Task, config: RunConfig) -> Dataset:
    """Rows of these texts, with the teacher's answers for labels."""
    teacher.to(torch.accelerator.current_accelerator() or "cpu")
    rows = task.rows_of_text(columns_of(texts))
    logits = predict_logits(teacher.model, load_tokenizer(config.teacher), rows, max_length=config.max_length)
    check_finite(logits)
    answers = [answer.tolist() for answer in task.kind.decode(logits, rows)]
    return rows.add_column("label", answers, feature=task.kind.label_type)
