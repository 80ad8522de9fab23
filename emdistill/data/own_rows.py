"""Rows of a user's own, a text and a label each: files and data sets."""

from pathlib import Path
from typing import NamedTuple

from emdistill.data.compressed import plain_path
from emdistill.data.data_sets import is_data_set, train_and_dev
from emdistill.data.files import Examples, read_examples, split_examples, task_data
from emdistill.data.form import Form, Request
from emdistill.data.glue import glue_folders, recognise
from emdistill.data.rows import AS_ONE, SUFFIXES
from emdistill.errors import ConfigError, DataError
from emdistill.tasks import KINDS
from emdistill.tasks.task import Task, TaskData

DIFFERENT, OF_ROWS = 100, 1 / 2  # more different labels than this, in number and per row, are hardly classes


class OwnRows(Form):
    """Rows of a text, or two, and a label; the kind of task shows in the labels, and train gives their names."""

    def read(self, request: Request) -> TaskData:
        columns, kind = request.columns, request.kind
        own = (_from_data_set if is_data_set(request.data) else _from_files)(request)
        train, cells = own.sources["train"], own.sources["train"].label
        if not cells:
            train.bad.check()
        notes = []
        if kind is None:
            # classes that their source names are no scores
            fitting = [each for each in KINDS.values() if each.fits(cells) and (each.named or not train.named)]
            kind = next(iter([*fitting, *KINDS.values()]))
            notes = [note] if (note := kind.note(cells, columns.label)) else []
        labels = kind.label_names(cells)
        labels = train.named if train.named and labels else labels
        if kind.link != "identity" and len(labels) > max(DIFFERENT, OF_ROWS * len(cells)):
            problem = f"column {columns.label!r} holds {len(labels)} different labels in {len(cells)} rows"
            raise DataError(f"{problem}; is it the label, or are these scores (--kind regression)?", file=train.source)
        notes += filter(None, dict.fromkeys(map(_note_on_quotes, own.sources.values())))
        task = Task(own.name, kind, labels, kind.metrics_of(labels), *columns)
        data = task_data(task, own.sources, notes, varied=request.varied)
        if kind.link != "identity" and not labels and request.varied:
            raise DataError(f"no row has a label in column {columns.label!r}", file=train.source)
        return data


class _Own(NamedTuple):
    """A user's rows before their task is known."""

    name: str
    sources: dict[str, Examples]


def _from_files(request: Request) -> _Own:
    path = Path(request.data)
    if path.is_dir():
        _refuse_folder(path)
    files = {"train": path} | ({} if request.dev is None else {"dev": request.dev})
    return _Own(plain_path(path).stem, {part: read_examples(file, request.columns) for part, file in files.items()})


def _from_data_set(request: Request) -> _Own:
    name, columns = request.data, request.columns
    sets = train_and_dev(name)
    sources = {"train": split_examples(*sets["train"], columns)}
    if request.dev is not None:
        sources["dev"] = read_examples(request.dev, columns)
    elif "dev" in sets:
        sources["dev"] = split_examples(*sets["dev"], columns)
    return _Own(Path(name).name, sources)


def _note_on_quotes(examples: Examples) -> str:
    """Where texts of a .tsv file have the quotes that pandas, and whatever writes CSV, puts around them; or ''."""
    if plain_path(Path(examples.source)).suffix.lower() != ".tsv":
        return ""
    lines = [line for line, text in zip(examples.lines, examples.texts["text"], strict=True) if _is_quoted(text)]
    if not lines:
        return ""
    return (
        f"{examples.source}: {len(lines):,} texts are quoted as in CSV, the first on line {lines[0]}; in .tsv these "
        "quotes are taken as text: if they are none of it, save the file as .csv, with commas"
    )


def _is_quoted(text: str) -> bool:
    """Whether a text stands in quotes, and each quote within is doubled."""
    inner = text[1:-1]
    return text[:1] == text[-1:] == '"' and '""' in inner and '"' not in inner.replace('""', "")


def _refuse_folder(folder: Path) -> None:
    train = folder / "train.tsv"
    glue = recognise(train) if train.is_file() else None
    if glue:
        mend = f"say --task {glue.task.name}; if it is data of your own, name the file: --data {train}"
        raise ConfigError(f"{folder} looks like the GLUE task {glue.folder}; {mend}")
    if folders := glue_folders(folder):
        raise ConfigError(f"{folder} holds the GLUE tasks {', '.join(folders)}; say which one with --task")
    mend = f"name one file ({', '.join(SUFFIXES)}), and the development set's with --dev"
    raise DataError(f"this is a folder; {mend}; {AS_ONE}", file=folder)
