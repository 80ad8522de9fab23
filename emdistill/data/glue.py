"""The GLUE tasks as values, and one reader for local GLUE folders and the hub's `nyu-mll/glue`.

Wang et al., GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding (ICLR 2019).
The files are tab separated, quotes are plain text. A label's index is its place in `Task.labels`, as on the hub.
"""

import logging
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from emdistill.data.data_sets import holds_data_set, is_data_set, load_splits
from emdistill.data.files import Columns, Examples, read_examples, split_examples, task_data
from emdistill.data.form import Form, Request
from emdistill.data.rows import BadRows, read_rows, tsv_cells
from emdistill.errors import DataError, listing, nearest, visible
from emdistill.tasks import KINDS, TaskKind
from emdistill.tasks.kind import whole_name
from emdistill.tasks.task import Task, TaskData

OWN = "for data of your own, name the file and leave out --task"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GlueTask:
    """A GLUE task, and the layout of its files and its hub configuration.

    task         its `text`, `text_pair` and `label` are the hub's columns, which new sentences use too
    folder       the folder's name in the official download; its lower-case letters and digits name the task
    columns      text, text pair and label in the official files
    header       the columns of files without a header line
    evaluation   (name in TaskData.evaluation, file, split on the hub)
    broken_rows  the official files hold rows that are torn apart; they are left out and counted in the log
    """

    task: Task
    folder: str
    columns: Columns
    header: tuple[str, ...] | None = None
    evaluation: tuple[tuple[str, str, str], ...] = (("dev", "dev.tsv", "validation"),)
    broken_rows: bool = False

    @property
    def words(self) -> dict[str, str]:
        """Index -> word: some of the official files write labels as words, others as indices."""
        return {str(index): word for index, word in enumerate(self.task.labels)}


def _glue(
    folder: str,
    file_columns: str,
    hub_columns: str,
    labels: str,
    *,
    description: str,
    metrics: str = "accuracy",
    kind: str = "classification",
    positive: str | None = None,
    **layout: Any,
) -> GlueTask:
    columns = _columns(hub_columns)
    task = Task(
        name=_plain(folder),
        kind=KINDS[kind],
        labels=tuple(labels.split()),
        metrics=tuple(metrics.split()),
        description=description,
        positive=positive,
        **columns._asdict(),
    )
    return GlueTask(task, folder, _columns(file_columns), **layout)


def _columns(names: str) -> Columns:
    """The columns of "text, label" or "text, text pair, label"."""
    text, *pair, label = names.split(", ")
    return Columns(text, pair[0] if pair else None, label)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


# Folder, the files' columns, the hub's columns, labels. `emdistill tasks` reads the descriptions from this source.
# fmt: off
GLUE: dict[str, GlueTask] = {
    "sst2": _glue("SST-2", "sentence, label", "sentence, label", "negative positive",
                  description="is this film review positive?"),
    "cola": _glue("CoLA", "sentence, label", "sentence, label", "unacceptable acceptable", metrics="matthews_corrcoef",
                  header=("source", "label", "mark", "sentence"), description="is this sentence grammatical?"),
    "mrpc": _glue("MRPC", "#1 String, #2 String, Quality", "sentence1, sentence2, label", "not_equivalent equivalent",
                  metrics="accuracy f1", positive="equivalent", description="do both sentences say the same?"),
    "qqp": _glue("QQP", "question1, question2, is_duplicate", "question1, question2, label", "not_duplicate duplicate",
                 metrics="accuracy f1", positive="duplicate", broken_rows=True,
                 description="do both questions ask the same?"),
    "stsb": _glue("STS-B", "sentence1, sentence2, score", "sentence1, sentence2, label", "", kind="regression",
                  metrics="pearson spearman", description="how similar are both sentences, from 0 to 5?"),
    "mnli": _glue("MNLI", "sentence1, sentence2, gold_label", "premise, hypothesis, label",
                  "entailment neutral contradiction",
                  evaluation=(("dev", "dev_matched.tsv", "validation_matched"),
                              ("mismatched", "dev_mismatched.tsv", "validation_mismatched")),
                  description="does the first sentence entail the second, contradict it, or neither?"),
    "qnli": _glue("QNLI", "question, sentence, label", "question, sentence, label", "entailment not_entailment",
                  description="does the sentence hold the question's answer?"),
    "rte": _glue("RTE", "sentence1, sentence2, label", "sentence1, sentence2, label", "entailment not_entailment",
                 description="does the first sentence entail the second?"),
    "wnli": _glue("WNLI", "sentence1, sentence2, label", "sentence1, sentence2, label", "not_entailment entailment",
                  description="is the second sentence, a pronoun replaced, entailed by the first?"),
}
# fmt: on


class GlueFolders(Form):
    """The official folders, and the hub's datasets of them."""

    tasks: ClassVar = {name: glue.task.description for name, glue in GLUE.items()}

    def kinds_of(self, task: str) -> tuple[TaskKind, ...]:
        return (GLUE[task].task.kind,)

    def known(self, task: str) -> Task:
        return GLUE[task].task

    def text_columns(self, task: Task) -> tuple[Columns, ...]:
        return (GLUE[task.name].columns,)

    def read(self, request: Request) -> TaskData:
        assert request.task is not None  # no data are known for GLUE's by themselves
        glue = GLUE[request.task]
        downloaded = Path(request.data, glue.task.name)  # from a hub dataset with a folder per task
        name = str(downloaded) if holds_data_set(downloaded) else request.data
        if is_data_set(name):
            sources = _sources_of_splits(glue, name, request.dev)
        else:
            sources = _folder_sources(glue, Path(request.data), request.dev)
        return task_data(glue.task, sources, varied=request.varied)


def _folder_sources(glue: GlueTask, data: Path, dev: Path | None) -> dict[str, Examples]:
    """Of a local task; train alone where the folder has no development set.

    data   the task's folder (glue/MRPC) or its parent (glue)
    dev    a file to use as development set instead of the folder's
    Raises DataError for a folder of another task, and for rows that cannot be used.
    """
    folder = _task_folder(glue, data)
    scored = {name: folder / file for name, file, _ in glue.evaluation if (folder / file).is_file()}
    paths = {"train": folder / "train.tsv", **({"dev": dev} if dev else scored)}
    return {name: _read_file(glue, path) for name, path in paths.items()}


def _sources_of_splits(glue: GlueTask, name: str, dev: Path | None) -> dict[str, Examples]:
    """Of a data set; the hub's has a configuration per task, as `nyu-mll/glue`."""
    splits = load_splits(name, glue.task.name)
    columns = Columns(glue.task.text, glue.task.text_pair, glue.task.label)

    def read(split: str) -> Examples:
        if split not in splits:
            raise DataError(f"there is no split {split!r}; there are: {listing(splits)}", file=name)
        return _in_words(glue, split_examples(f"{name} ({glue.task.name}, {split})", splits[split], columns))

    scored = {"dev": _read_file(glue, dev)} if dev else {part: read(split) for part, _, split in glue.evaluation}
    return {"train": read("train"), **scored}


def recognise(path: Path) -> GlueTask | None:
    """The GLUE task whose file this is, by its header, or by its cells where there is none."""
    cells = [cells for _, cells in islice(tsv_cells(path), 2)]
    if not cells:
        return None
    header, row = cells[0], cells[-1]
    cola = GLUE["cola"]
    if len(header) == 4 and header[1] in (*cola.words, *cola.task.labels):
        return cola
    fitting = [glue for glue in GLUE.values() if not glue.header and set(filter(None, glue.columns)) <= set(header)]
    if GLUE["wnli"] in fitting and len(row) == len(header):
        # RTE and WNLI share their header; RTE writes its labels as words, WNLI as numbers
        fitting.remove(GLUE["rte" if row[header.index("label")].strip().isdigit() else "wnli"])
    return max(fitting, key=lambda glue: len(list(filter(None, glue.columns))), default=None)


def glue_folders(folder: Path) -> list[str]:
    """The names of the GLUE tasks' folders in a folder."""
    return sorted(child.name for child in folder.iterdir() if child.is_dir() and _plain(child.name) in GLUE)


def _task_folder(glue: GlueTask, data: Path) -> Path:
    """The folder that holds train.tsv: `data`, or the task's folder in it."""
    if data.is_file():
        raise DataError(f"task {glue.task.name!r} is read from its folder; say --data {data.parent}/; {OWN}", file=data)
    if not data.is_dir():
        siblings = [child.name for child in data.parent.iterdir()] if data.parent.is_dir() else []
        raise DataError(f"there is no such folder.{nearest(data.name, siblings)}", file=data)
    if (data / "train.tsv").is_file():
        return data
    for name in glue_folders(data):
        if _plain(name) == glue.task.name:
            return data / name
    content = listing(sorted(child.name for child in data.iterdir())) or "nothing"
    missing = f"neither train.tsv nor {glue.folder}/train.tsv is in this folder"
    raise DataError(f"{missing}; it holds {content}; {OWN}", file=data)


def _read_file(glue: GlueTask, path: Path) -> Examples:
    read_rows(path, BadRows(path))  # refuses what is no file of rows
    task_of_file = recognise(path)
    if task_of_file is not glue:
        problem = f"this has not the columns of {glue.folder}; {OWN}"
        if task_of_file:
            problem = (
                f"this looks like {task_of_file.folder}, not like {glue.task.name}; say --task {task_of_file.task.name}"
            )
        raise DataError(problem, file=path)
    return _in_words(glue, read_examples(path, glue.columns, glue.header))


def _in_words(glue: GlueTask, examples: Examples) -> Examples:
    """The labels in words, without the torn rows of a task that has such."""
    if glue.broken_rows and (broken := examples.bad.problems):
        logger.warning(
            "%s: %d rows that are torn apart or empty are left out", visible(str(examples.source)), len(broken)
        )
        broken.clear()
    words = glue.words
    return replace(examples, label=[words.get(whole_name(str(cell).strip()), cell) for cell in examples.label])
