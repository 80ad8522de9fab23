"""The GLUE tasks as values, and one reader for local GLUE folders and the hub's `nyu-mll/glue`.

Wang et al., GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding (ICLR 2019).
The files are tab separated, quotes are plain text. A label's index is its place in `Task.labels`, as on the hub.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset

from emdistill.data.files import Columns, Examples, hub_rows, load_hub, read_examples, to_dataset
from emdistill.data.rows import BadRows, Row, data_file, read_rows, tsv_cells
from emdistill.errors import ConfigError, DataError, listing, nearest
from emdistill.tasks import KINDS
from emdistill.tasks.task import DataFile, Task, TaskData

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GlueTask:
    """A GLUE task, and how its files and its hub configuration are laid out.

    task         its `text`, `text_pair` and `label` are the hub's columns, those that new sentences use too
    folder       the folder's name in the official download; its lower-case letters and digits name the task
    columns      text, text pair and label in the official files
    header       the columns of files that have no header line
    evaluation   name in TaskData.evaluation -> (file, split on the hub)
    broken_rows  the official files hold rows that are torn apart; they are left out and counted in the log
    """

    task: Task
    folder: str
    columns: Columns
    header: tuple[str, ...] | None = None
    evaluation: tuple[tuple[str, str, str], ...] = (("dev", "dev.tsv", "validation"),)
    broken_rows: bool = False

    @property
    def label_index(self) -> dict[str, int]:
        """Labels are written as words in some of the official files, as indices in others."""
        words = {word: index for index, word in enumerate(self.task.labels)}
        return words | {str(index): index for index in range(len(self.task.labels))}


def _glue(
    name: str,
    labels: str,
    metrics: str,
    file_columns: str,
    folder: str,
    columns: Columns,
    *,
    description: str,
    kind: str = "classification",
    positive: str | None = None,
    **layout: Any,
) -> GlueTask:
    text, *pair, label = file_columns.split(", ")
    task = Task(
        name=name,
        kind=KINDS[kind],
        labels=tuple(labels.split()),
        metrics=tuple(metrics.split()),
        text=columns.text,
        text_pair=columns.text_pair,
        label=columns.label,
        description=description,
        positive=positive,
    )
    return GlueTask(task, folder, Columns(text, pair[0] if pair else None, label), **layout)


_SENTENCE = Columns("sentence", None, "label")
_SENTENCES = Columns("sentence1", "sentence2", "label")

# fmt: off
GLUE: dict[str, GlueTask] = {
    "sst2": _glue(
        "sst2", "negative positive", "accuracy", "sentence, label",
        "SST-2", _SENTENCE,
        description="is this film review positive?",
    ),
    "cola": _glue(
        "cola", "unacceptable acceptable", "matthews_corrcoef", "sentence, label",
        "CoLA", _SENTENCE,
        description="is this sentence grammatical?", header=("source", "label", "mark", "sentence"),
    ),
    "mrpc": _glue(
        "mrpc", "not_equivalent equivalent", "accuracy f1", "#1 String, #2 String, Quality",
        "MRPC", _SENTENCES, positive="equivalent",
        description="do both sentences say the same?",
    ),
    "qqp": _glue(
        "qqp", "not_duplicate duplicate", "accuracy f1", "question1, question2, is_duplicate",
        "QQP", Columns("question1", "question2", "label"), positive="duplicate",
        description="do both questions ask the same?", broken_rows=True,
    ),
    "stsb": _glue(
        "stsb", "", "pearson spearman", "sentence1, sentence2, score",
        "STS-B", _SENTENCES,
        description="how similar are both sentences, from 0 to 5?", kind="regression",
    ),
    "mnli": _glue(
        "mnli", "entailment neutral contradiction", "accuracy", "sentence1, sentence2, gold_label",
        "MNLI", Columns("premise", "hypothesis", "label"),
        description="does the first sentence entail the second, contradict it, or neither?",
        evaluation=(
            ("dev", "dev_matched.tsv", "validation_matched"),
            ("mismatched", "dev_mismatched.tsv", "validation_mismatched"),
        ),
    ),
    "qnli": _glue(
        "qnli", "entailment not_entailment", "accuracy", "question, sentence, label",
        "QNLI", Columns("question", "sentence", "label"),
        description="does the sentence hold the question's answer?",
    ),
    "rte": _glue(
        "rte", "entailment not_entailment", "accuracy", "sentence1, sentence2, label",
        "RTE", _SENTENCES,
        description="does the first sentence entail the second?",
    ),
    "wnli": _glue(
        "wnli", "not_entailment entailment", "accuracy", "sentence1, sentence2, label",
        "WNLI", _SENTENCES,
        description="is the second sentence, a pronoun replaced, entailed by the first?",
    ),
}
# fmt: on


def glue_task(name: str) -> GlueTask:
    """The task of that name, 'SST-2', 'sst_2' and 'sst2' alike. Raises ConfigError with the nearest name."""
    if _plain(name) not in GLUE:
        raise ConfigError(f"there is no task {name!r}; there are: {', '.join(GLUE)}.{nearest(name, GLUE)}")
    return GLUE[_plain(name)]


def read_glue(glue: GlueTask, data: Path, dev: Path | None = None) -> TaskData:
    """A local GLUE task; `evaluation` is empty where the folder has no development set.

    data   the task's folder (glue/MRPC) or the folder that holds it (glue)
    dev    a file to use as development set instead of the folder's
    Raises DataError for a folder of another task, and for rows that cannot be used.
    """
    folder = _task_folder(glue, data)
    files = {"dev": dev} if dev else {name: folder / file for name, file, _ in glue.evaluation}
    if dev is None:
        files = {name: path for name, path in files.items() if path.is_file()}
    train, train_file = _read_file(glue, folder / "train.tsv")
    read = {name: _read_file(glue, path) for name, path in files.items()}
    evaluation = {name: dataset for name, (dataset, _) in read.items()}
    return TaskData(glue.task, train, evaluation, (train_file, *(file for _, file in read.values())))


def read_glue_from_hub(glue: GlueTask, name: str, dev: Path | None = None) -> TaskData:
    """A GLUE task from a hub dataset with one configuration a task, such as `nyu-mll/glue`."""
    splits = load_hub(name, glue.task.name)

    def read(split: str) -> Dataset:
        if split not in splits:
            raise DataError(f"there is no split {split!r}; there are: {listing(splits)}", file=name)
        source = f"{name} ({glue.task.name}, {split})"
        return _dataset(glue, source, hub_rows(splits[split], glue.task.label), _hub_columns(glue), BadRows(source))

    if dev:
        dataset, file = _read_file(glue, dev)
        return TaskData(glue.task, read("train"), {"dev": dataset}, (file,))
    return TaskData(glue.task, read("train"), {name: read(split) for name, _, split in glue.evaluation})


def _hub_columns(glue: GlueTask) -> Columns:
    return Columns(glue.task.text, glue.task.text_pair, glue.task.label)


def recognise(path: Path) -> GlueTask | None:
    """The GLUE task whose file this is, told by the header, or by the cells where there is none."""
    cells = [cells for _, cells in islice(tsv_cells(path), 2)]
    if not cells:
        return None
    header, row = cells[0], cells[-1]
    cola = GLUE["cola"]
    if cola.header and len(header) == len(cola.header) and header[1] in cola.label_index:
        return cola
    fitting = [glue for glue in GLUE.values() if not glue.header and set(filter(None, glue.columns)) <= set(header)]
    if GLUE["wnli"] in fitting and len(row) == len(header):
        # RTE and WNLI share their header; RTE writes its labels as words, WNLI as numbers
        written = row[header.index("label")].strip()
        fitting.remove(GLUE["rte" if written.isdigit() else "wnli"])
    return max(fitting, key=lambda glue: len(list(filter(None, glue.columns))), default=None)


def glue_folders(folder: Path) -> list[str]:
    """The names of the GLUE tasks' folders in a folder."""
    return sorted(child.name for child in folder.iterdir() if child.is_dir() and _plain(child.name) in GLUE)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _task_folder(glue: GlueTask, data: Path) -> Path:
    """The folder that holds train.tsv: `data`, or the task's folder in it."""
    if data.is_file():
        folder = f"{data.parent}/"
        raise DataError(f"task {glue.task.name!r} is read from its folder; say --data {folder}", file=data)
    if not data.is_dir():
        siblings = [child.name for child in data.parent.iterdir()] if data.parent.is_dir() else []
        raise DataError(f"there is no such folder.{nearest(data.name, siblings)}", file=data)
    if (data / "train.tsv").is_file():
        return data
    for name in glue_folders(data):
        if _plain(name) == glue.task.name:
            return data / name
    found = listing(sorted(child.name for child in data.iterdir())) or "nothing"
    missing = f"neither train.tsv nor {glue.folder}/train.tsv is in this folder"
    raise DataError(f"{missing}; it holds {found}", file=data)


def _read_file(glue: GlueTask, path: Path) -> tuple[Dataset, DataFile]:
    bad = BadRows(path)
    rows = read_rows(path, bad, glue.header)
    found = recognise(path)
    if found is not glue:
        looks = f"looks like {found.folder}" if found else f"has not the columns of {glue.folder}"
        mend = f"say --task {found.task.name}" if found else "for data of your own, name the file and leave out --task"
        raise DataError(f"this {looks}, you asked for {glue.task.name}; {mend}", file=path)
    dataset = _dataset(glue, path, rows, glue.columns, bad)
    return dataset, data_file(path, len(dataset))


def _dataset(glue: GlueTask, source: str | Path, rows: Iterator[Row], columns: Columns, bad: BadRows) -> Dataset:
    examples: Examples = read_examples(source, rows, columns, bad)
    if glue.broken_rows and bad.problems:
        logger.warning("%s: %d rows that are torn apart or empty are left out", source, len(bad.problems))
        bad = BadRows(source)
    return to_dataset(examples, glue.task, bad, glue.label_index)
