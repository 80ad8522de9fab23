"""Sentences whose words have tags as the data of a task: a user's files, a hub dataset, WNUT-17's folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value

from emdistill.data.compressed import plain_path
from emdistill.data.files import Columns, hub_sets
from emdistill.data.rows import data_file
from emdistill.data.tagged_files import TaggedExamples, hub_tagged, notes_on_tags, read_tagged, read_wnut17
from emdistill.errors import DataError
from emdistill.tasks import KINDS
from emdistill.tasks.kind import BadLabel
from emdistill.tasks.tagging import MARKS, SPACES
from emdistill.tasks.task import Task, TaskData

SUFFIXES = (".conll", ".conllu", ".iob", ".bio")  # of files that hold nothing else
TASKS = {"wnut17": "which words of a message name a person, a place, a group …?"}
_DEFAULT = Columns()


def is_tagged(data: str) -> bool:
    """Whether a file can hold nothing but tagged words, by its name."""
    return plain_path(Path(data)).suffix.lower() in SUFFIXES


def tagged_task(name: str, data: str, dev: Path | None) -> TaskData:
    """One of TASKS, from the folder of its official files."""
    sources = read_wnut17(Path(data), dev)
    return _task_data(sources, name=name, description=TASKS[name])


def tagged_file(data: str, columns: Columns, dev: Path | None, *, varied: bool) -> TaskData:
    """A file, and its development set; varied: refuse tags that are all the same."""
    sources = {"train": read_tagged(Path(data), columns)} | ({"dev": read_tagged(dev, columns)} if dev else {})
    return _task_data(sources, name=plain_path(Path(data)).stem, columns=columns, varied=varied)


def tagged_hub(name: str, columns: Columns, dev: Path | None) -> TaskData:
    """A hub dataset, its development set `dev` or its own."""
    sets = hub_sets(name)
    if dev is not None:
        sets.pop("dev", None)
    sources = {part: hub_tagged(*rows, columns) for part, rows in sets.items()}
    if dev is not None:
        sources["dev"] = read_tagged(dev, columns)
    return _task_data(sources, name=name.rpartition("/")[2], columns=columns)


def _task_data(
    sources: Mapping[str, TaggedExamples],
    *,
    name: str,
    description: str = "",
    columns: Columns = _DEFAULT,
    varied: bool = True,
) -> TaskData:
    """Train gives the tags and how plain text is cut into words; the other sets must use the same tags."""
    kind, train = KINDS["tagging"], sources["train"]
    labels = kind.label_names([sentence.tags for sentence in train.sentences])
    joined = all(
        sentence.text == " ".join(sentence.text[start:end] for start, end in sentence.words)
        for sentence in train.sentences
    )
    task = Task(
        name, kind, labels, kind.metrics_of(labels), columns.text, None, columns.label, description,
        words=SPACES if joined else MARKS,
    )  # fmt: skip
    sets = {part: _dataset(examples, task, varied=varied) for part, examples in sources.items()}
    files = [
        data_file(examples.source, len(sets[part]))
        for part, examples in sources.items()
        if isinstance(examples.source, Path)
    ]
    notes = tuple(dict.fromkeys(note for examples in sources.values() for note in notes_on_tags(examples)))
    return TaskData(task, sets.pop("train"), sets, tuple(files), notes=notes)


def _dataset(examples: TaggedExamples, task: Task, *, varied: bool) -> Dataset:
    """The sentences with their tags as indices; raises DataError with the line of a tag that the task does not have."""
    encode = task.kind.encoder(task.labels)
    columns: dict[str, list[Any]] = {"text": [], "words": [], "label": []}
    for line, text, words, tags in examples.sentences:
        try:
            row = (text, words, encode(tags))
        except BadLabel as error:
            examples.bad.add(line, str(error))
            continue
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
    examples.bad.check()
    if varied and len({tag for tags in columns["label"] for tag in tags}) < 2:
        problem = f"every word has the tag {task.labels[columns['label'][0][0]]!r}; at least two tags are needed"
        raise DataError(problem, file=examples.source)
    features = {"text": Value("string"), **task.kind.columns, "label": task.kind.label_type}
    return Dataset.from_dict(columns, features=Features(features))
