"""The one entry point to data: GLUE, a user's files or a hub dataset become TaskData."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import ClassLabel, Dataset
from numpy.typing import NDArray

from emdistill.config import CommonConfig
from emdistill.data.compressed import plain_path
from emdistill.data.files import Columns, Examples, hub_examples, hub_sets, is_hub_name, read_examples, to_dataset
from emdistill.data.glue import glue_folders, glue_task, read_glue, read_glue_from_hub, recognise
from emdistill.data.messages import MESSAGES, read_messages
from emdistill.data.mixture_file import is_mixture
from emdistill.data.rows import SUFFIXES, data_file
from emdistill.data.squad import SPAN_KINDS, is_squad, span_task
from emdistill.data.squad import TASKS as SPAN_TASKS
from emdistill.data.tagged import TASKS as TAGGED_TASKS
from emdistill.data.tagged import is_tagged, tagged_file, tagged_hub, tagged_task
from emdistill.data.unlabelled import Seen, hashes_of_rows, hashes_of_texts
from emdistill.errors import ConfigError, DataError
from emdistill.files import sha256
from emdistill.tasks import KINDS, TaskKind, find_kind
from emdistill.tasks.task import Task, TaskData

DEV_SHARE = 0.1
DEV_AT_MOST = 2_000


def read_data(config: CommonConfig) -> TaskData:
    """The task and examples that a run learns from and is scored on.

    Raises as read_task_data does, and DataError for a development set that is the training file.
    """
    data = read_task_data(
        config.data,
        task=config.task,
        text=config.text,
        text_pair=config.text_pair,
        label=config.label,
        dev=config.dev,
        kind=config.kind,
    )
    return apart(data, config.dev)


def read_task_data(
    data: str,
    *,
    task: str | None = None,
    text: str = "text",
    text_pair: str | None = None,
    label: str = "label",
    dev: str | None = None,
    kind: str | None = None,
    seed: int = 42,
    evaluating: bool = False,
) -> TaskData:
    """A task and its checked examples; without a development set a tenth of train is held out as one.

    data        a GLUE or WNUT-17 folder (with `task`), a CSV, TSV, JSONL, Parquet or CoNLL file, a hub dataset, or
                'messages'
    dev         a file
    kind        a name in KINDS; None: found from the labels
    evaluating  the data are only scored on, so their labels may all be the same
    Raises ConfigError for an unknown or missing task or kind, DataError for data that cannot be used.
    """
    if is_mixture(data):
        raise ConfigError(f"{data} lists several tasks, which `emdistill distill` learns; name the data of one task")
    kind_named = None if kind is None else find_kind(kind)
    if MESSAGES.name in (task, data):
        if dev is not None:
            raise ConfigError(f"--dev {dev}: the task {MESSAGES.name} has a development set; leave out --dev")
        return read_messages()
    columns = Columns(text, text_pair, label)
    dev_file = None if dev is None else Path(dev)
    is_spans = kind_named in SPAN_KINDS or (kind is None and task is None and is_squad(data))
    is_tagging = kind_named is KINDS["tagging"] or (kind is None and task is None and is_tagged(data))
    if task in TAGGED_TASKS:
        task_data = tagged_task(task, data, dev_file)
    elif task in SPAN_TASKS or (is_spans and task is None):
        task_data = span_task(data, columns, dev_file, from_hub=is_hub_name(data), task=task, kind=kind_named)
    elif is_tagging and task is None:
        if is_hub_name(data):
            task_data = tagged_hub(data, columns, dev_file)
        else:
            task_data = tagged_file(data, columns, dev_file, varied=not evaluating)
    elif task is None:
        task_data = _read_own(data, columns, dev_file, kind_named, varied=not evaluating)
    else:
        glue = glue_task(task)
        if kind_named not in (None, glue.task.kind):
            raise ConfigError(f"--kind {kind}: {glue.task.name} is a {glue.task.kind.name} task; leave out --kind")
        from_hub = is_hub_name(data)
        task_data = read_glue_from_hub(glue, data, dev_file) if from_hub else read_glue(glue, Path(data), dev_file)
    return task_data if "dev" in task_data.evaluation else _with_held_out_dev(task_data, seed)


def apart(data: TaskData, dev: str | None) -> TaskData:
    """With a note on rows of the file `dev` that are learned from too; DataError where it is the training file."""
    if dev is None:
        return data
    if [file.sha256 for file in data.files].count(sha256(Path(dev))) > 1:
        mend = "leave out --dev, and a part of the training rows is held out instead, or name another file"
        raise DataError(f"--dev is the training file: what is learned from would be scored on; {mend}", file=dev)
    rows = data.evaluation["dev"]
    common = int(Seen(hashes_of_rows([data.train])).has(hashes_of_texts(rows)).sum())
    if not common:
        return data
    note = f"{common:,} of the {len(rows):,} rows of {dev} stand in train as well (case and punctuation apart)"
    return replace(data, notes=(*data.notes, f"{note}, so its scores flatter; leave them out of one of the two"))


def _with_held_out_dev(data: TaskData, seed: int) -> TaskData:
    train, dev = hold_out(data.train, data.task, DEV_SHARE, seed, DEV_AT_MOST)
    how = "at random" if data.task.kind.strata(data.task.gold(train)) is None else "stratified by label"
    held_out = (
        f"no development set was given: {len(dev):,} of the {len(data.train):,} training examples "
        f"are held out as one ({how}, seed {seed})"
    )
    return replace(data, train=train, evaluation={"dev": dev, **data.evaluation}, held_out=held_out)


def hold_out(dataset: Dataset, task: Task, share: float, seed: int, at_most: int) -> tuple[Dataset, Dataset]:
    """(rest, held out), both in the dataset's order; the same seed gives the same cut.

    Classes keep their shares; one of two examples or more has at least one on each side, where `at_most` allows it.
    Rows of scores are drawn at random.
    Raises DataError where there is nothing to cut, ConfigError for a share outside (0, 1).
    """
    if not 0 < share < 1 or at_most < 1:
        raise ConfigError(f"a share of {share} (at most {at_most}) cannot be held out; it must lie between 0 and 1")
    if len(dataset) < 2:
        raise DataError(f"task {task.name!r}: {len(dataset)} examples cannot be cut in two; give a development set")
    count = max(1, min(round(share * len(dataset)), at_most))
    shuffled = np.random.default_rng(seed).permutation(len(dataset))
    strata = task.kind.strata(task.gold(dataset))
    if strata is None:
        chosen = shuffled[:count]
    else:
        strata = strata[shuffled]
        sizes = _held_out_sizes(np.bincount(strata), count, at_most)
        chosen = np.concatenate([shuffled[strata == index][:size] for index, size in enumerate(sizes)])
    if len(chosen) == 0:
        raise DataError(
            f"task {task.name!r} has one example per class, so none can be held out; give a development set"
        )
    rest = np.setdiff1d(shuffled, chosen)
    return dataset.select(rest), dataset.select(np.sort(chosen))


def _held_out_sizes(counts: NDArray[np.int64], total: int, at_most: int) -> NDArray[np.int64]:
    """How many of each class: in proportion by the largest remainder, at least one, never all."""
    exact = total * counts / counts.sum()
    most = np.maximum(counts - 1, 0)
    sizes: NDArray[np.int64] = np.clip(np.floor(exact).astype(np.int64), np.minimum(1, most), most)
    while sizes.sum() < min(total, int(most.sum())):
        sizes[np.where(sizes < most, exact - sizes, -np.inf).argmax()] += 1
    while sizes.sum() > at_most:
        # a class loses its one example only where no other has more
        spare = sizes > 1 if (sizes > 1).any() else sizes > 0
        sizes[np.where(spare, sizes - exact, -np.inf).argmax()] -= 1
    return sizes


class _Own(NamedTuple):
    """A user's data before its task is known; `labels` are the classes that a hub dataset names."""

    name: str
    train: Examples
    dev: Examples | None
    labels: tuple[str, ...] = ()


def _read_own(data: str, columns: Columns, dev: Path | None, kind: TaskKind | None, *, varied: bool) -> TaskData:
    """Train gives kind and label names; dev must use the same."""
    own = _from_hub(data, columns, dev) if is_hub_name(data) else _from_files(Path(data), columns, dev)
    train, cells = own.train, own.train.label
    if not cells:
        train.bad.check()
    notes = []
    if kind is None:
        fitting = [kind for kind in KINDS.values() if kind.fits(cells)]
        # classes that a hub dataset names are no scores
        fitting = [kind for kind in fitting if not own.labels or kind is not KINDS["regression"]]
        kind = next(iter(fitting), KINDS["classification"])
        notes = [note] if (note := kind.note(cells, columns.label)) else []
    labels = kind.label_names(cells)
    labels = own.labels if own.labels and labels else labels
    if kind.link != "identity" and len(labels) > 100 and 2 * len(labels) > len(cells):
        problem = f"column {columns.label!r} holds {len(labels)} different labels in {len(cells)} rows"
        raise DataError(f"{problem}; is it the label, or are these scores (--kind regression)?", file=train.source)
    task = Task(name=own.name, kind=kind, labels=labels, metrics=kind.metrics_of(labels), **columns._asdict())
    splits = {"train": train} if own.dev is None else {"train": train, "dev": own.dev}
    evaluation = {name: to_dataset(examples, task, varied=varied) for name, examples in splits.items()}
    if kind.link != "identity" and not labels:
        raise DataError(f"no row has a label in column {columns.label!r}", file=train.source)
    sources = {name: examples.source for name, examples in splits.items()}
    files = [data_file(path, len(evaluation[name])) for name, path in sources.items() if isinstance(path, Path)]
    return TaskData(task, evaluation.pop("train"), evaluation, tuple(files), notes=tuple(notes))


def _from_files(path: Path, columns: Columns, dev: Path | None) -> _Own:
    if path.is_dir():
        raise _folder_without_task(path)
    train = read_examples(path, columns)
    return _Own(plain_path(path).stem, train, None if dev is None else read_examples(dev, columns))


def _from_hub(name: str, columns: Columns, dev: Path | None) -> _Own:
    sets = hub_sets(name)
    train = hub_examples(*sets["train"], columns)
    dev_examples = None
    if dev is not None:
        dev_examples = read_examples(dev, columns)
    elif "dev" in sets:
        dev_examples = hub_examples(*sets["dev"], columns)
    feature = sets["train"][1].features.get(columns.label)
    feature = feature if isinstance(feature, ClassLabel) else getattr(feature, "feature", None)
    labels = tuple(feature.names) if isinstance(feature, ClassLabel) else ()
    return _Own(name.rpartition("/")[2], train, dev_examples, labels)


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
