"""Rows of a user's own, a text and a label each: files and hub datasets."""

from pathlib import Path
from typing import NamedTuple

from datasets import ClassLabel

from emdistill.data.compressed import plain_path
from emdistill.data.files import Examples, hub_examples, hub_sets, is_hub_name, read_examples, to_dataset
from emdistill.data.form import Form, Request
from emdistill.data.glue import glue_folders, recognise
from emdistill.data.rows import SUFFIXES, data_file
from emdistill.errors import ConfigError, DataError
from emdistill.tasks import KINDS
from emdistill.tasks.task import Task, TaskData

DIFFERENT, OF_ROWS = 100, 1 / 2  # more different labels than this, in number and per row, are hardly classes


class OwnRows(Form):
    """Rows of a text, or two, and a label; the kind of task shows in the labels, and train gives their names."""

    def read(self, request: Request) -> TaskData:
        columns, kind = request.columns, request.kind
        own = (_from_hub if is_hub_name(request.data) else _from_files)(request)
        train, cells = own.train, own.train.label
        if not cells:
            train.bad.check()
        notes = []
        if kind is None:
            # classes that a hub dataset names are no scores
            fitting = [each for each in KINDS.values() if each.fits(cells) and (each.named or not own.labels)]
            kind = next(iter([*fitting, *KINDS.values()]))
            notes = [note] if (note := kind.note(cells, columns.label)) else []
        labels = kind.label_names(cells)
        labels = own.labels if own.labels and labels else labels
        if kind.link != "identity" and len(labels) > max(DIFFERENT, OF_ROWS * len(cells)):
            problem = f"column {columns.label!r} holds {len(labels)} different labels in {len(cells)} rows"
            raise DataError(f"{problem}; is it the label, or are these scores (--kind regression)?", file=train.source)
        task = Task(own.name, kind, labels, kind.metrics_of(labels), *columns)
        splits = {"train": train} if own.dev is None else {"train": train, "dev": own.dev}
        sets = {name: to_dataset(examples, task, varied=request.varied) for name, examples in splits.items()}
        if kind.link != "identity" and not labels:
            raise DataError(f"no row has a label in column {columns.label!r}", file=train.source)
        sources = {name: examples.source for name, examples in splits.items()}
        files = [data_file(path, len(sets[name])) for name, path in sources.items() if isinstance(path, Path)]
        return TaskData(task, sets.pop("train"), sets, tuple(files), notes=tuple(notes))


class _Own(NamedTuple):
    """A user's rows before their task is known; `labels` are the classes that a hub dataset names."""

    name: str
    train: Examples
    dev: Examples | None
    labels: tuple[str, ...] = ()


def _from_files(request: Request) -> _Own:
    path, columns, dev = Path(request.data), request.columns, request.dev
    if path.is_dir():
        raise _folder_without_task(path)
    train = read_examples(path, columns)
    return _Own(plain_path(path).stem, train, None if dev is None else read_examples(dev, columns))


def _from_hub(request: Request) -> _Own:
    name, columns = request.data, request.columns
    sets = hub_sets(name)
    train = hub_examples(*sets["train"], columns)
    dev = None
    if request.dev is not None:
        dev = read_examples(request.dev, columns)
    elif "dev" in sets:
        dev = hub_examples(*sets["dev"], columns)
    feature = sets["train"][1].features.get(columns.label)
    feature = feature if isinstance(feature, ClassLabel) else getattr(feature, "feature", None)
    labels = tuple(feature.names) if isinstance(feature, ClassLabel) else ()
    return _Own(name.rpartition("/")[2], train, dev, labels)


def _folder_without_task(folder: Path) -> Exception:
    train = folder / "train.tsv"
    glue = recognise(train) if train.is_file() else None
    if glue:
        mend = f"say --task {glue.task.name}; if it is data of your own, name the file: --data {train}"
        return ConfigError(f"{folder} looks like the GLUE task {glue.folder}; {mend}")
    if folders := glue_folders(folder):
        return ConfigError(f"{folder} holds the GLUE tasks {', '.join(folders)}; say which one with --task")
    mend = f"name one file ({', '.join(SUFFIXES)}), and the development set's with --dev"
    return DataError(f"this is a folder; {mend}", file=folder)
