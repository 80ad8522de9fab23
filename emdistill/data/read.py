"""The one entry point to data: GLUE, a user's files or a hub dataset become TaskData."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset
from numpy.typing import NDArray

from emdistill.config import CommonConfig
from emdistill.data.docstrings import DOCSTRINGS, read_docstrings
from emdistill.data.files import (
    Columns,
    Examples,
    hub_rows,
    load_hub,
    read_examples,
    to_dataset,
)
from emdistill.data.glue import glue_folders, glue_task, read_glue, read_glue_from_hub, recognise
from emdistill.data.rows import SUFFIXES, BadRows, data_file, read_rows
from emdistill.errors import ConfigError, DataError
from emdistill.tasks import KINDS, TaskKind, find_kind
from emdistill.tasks.kind import Cell
from emdistill.tasks.task import Task, TaskData

DEV_SHARE = 0.1
DEV_AT_MOST = 2_000
_DEV_SPLITS = ("validation", "dev")


def read_data(config: CommonConfig) -> TaskData:
    """The task and examples that a configuration names; errors as read_task_data."""
    return read_task_data(
        config.data,
        task=config.task,
        text=config.text,
        text_pair=config.text_pair,
        label=config.label,
        dev=config.dev,
        kind=config.kind,
    )


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

    data   a GLUE folder (with `task`), a CSV, TSV, JSONL or Parquet file, the name of a hub dataset, or 'docstrings'
    dev    a file; kind   a name in KINDS, where what the labels are shall not be found from them
    evaluating   the data are only scored on, so their labels may all be the same
    Raises ConfigError for an unknown or missing task or kind, DataError for everything in the data that cannot be used.
    """
    kind_named = None if kind is None else find_kind(kind)
    if DOCSTRINGS.name in (task, data):
        return read_docstrings()
    columns = Columns(text, text_pair, label)
    dev_file = None if dev is None else Path(dev)
    if task is None:
        found = _read_own(data, columns, dev_file, kind_named, varied=not evaluating)
    else:
        glue = glue_task(task)
        if kind_named not in (None, glue.task.kind):
            raise ConfigError(f"--kind {kind}: {glue.task.name} is a {glue.task.kind.name} task; leave out --kind")
        if _is_hub_name(data):
            found = read_glue_from_hub(glue, data, dev_file)
        else:
            found = read_glue(glue, Path(data), dev_file)
    if "dev" in found.evaluation:
        return found
    return _with_held_out_dev(found, seed)


def _with_held_out_dev(data: TaskData, seed: int) -> TaskData:
    train, dev = hold_out(data.train, data.task, DEV_SHARE, seed, DEV_AT_MOST)
    stratified = data.task.kind.strata(np.asarray(train["label"])) is not None
    how = "stratified by label" if stratified else "at random"
    return replace(
        data,
        train=train,
        evaluation={"dev": dev, **data.evaluation},
        held_out=f"no development set was given: {len(dev):,} of the {len(data.train):,} training examples "
        f"are held out as one ({how}, seed {seed})",
    )


def hold_out(dataset: Dataset, task: Task, share: float, seed: int, at_most: int) -> tuple[Dataset, Dataset]:
    """(rest, held out), both in the dataset's order; the same seed gives the same cut.

    Classes keep their shares, and each has at least one example held out and one left, where it has two and `at_most`
    allows it; scores are drawn at random.
    Raises DataError where there is nothing to cut, ConfigError for a share outside (0, 1).
    """
    if not 0 < share < 1 or at_most < 1:
        raise ConfigError(f"a share of {share} (at most {at_most}) cannot be held out; it must lie between 0 and 1")
    if len(dataset) < 2:
        raise DataError(f"task {task.name!r}: {len(dataset)} examples cannot be cut in two; give a development set")
    wanted = max(1, min(round(share * len(dataset)), at_most))
    shuffled = np.random.default_rng(seed).permutation(len(dataset))
    strata = task.kind.strata(np.asarray(dataset["label"][:]))
    if strata is None:
        chosen = shuffled[:wanted]
    else:
        strata = strata[shuffled]
        sizes = _held_out_sizes(np.bincount(strata), wanted, at_most)
        chosen = np.concatenate([shuffled[strata == index][:size] for index, size in enumerate(sizes)])
    if len(chosen) == 0:
        raise DataError(f"task {task.name!r} has one example a class, so none can be held out; give a development set")
    rest = np.setdiff1d(shuffled, chosen)
    return dataset.select(rest), dataset.select(np.sort(chosen))


def _held_out_sizes(counts: NDArray[np.int64], wanted: int, at_most: int) -> NDArray[np.int64]:
    """How many of each class: in proportion by the largest remainder, at least one, never all."""
    exact = wanted * counts / counts.sum()
    most = np.maximum(counts - 1, 0)
    sizes: NDArray[np.int64] = np.clip(np.floor(exact).astype(np.int64), np.minimum(1, most), most)
    while sizes.sum() < min(wanted, int(most.sum())):
        sizes[np.where(sizes < most, exact - sizes, -np.inf).argmax()] += 1
    while sizes.sum() > at_most:
        # a class keeps its one example as long as another has more than one
        spare = sizes > 1 if (sizes > 1).any() else sizes > 0
        sizes[np.where(spare, sizes - exact, -np.inf).argmax()] -= 1
    return sizes


# ------------------------------------------------------------------------------------- data of the user's own


def _read_own(data: str, columns: Columns, dev: Path | None, kind: TaskKind | None, *, varied: bool) -> TaskData:
    path = Path(data)
    if path.is_dir():
        raise _folder_without_task(path)
    if _is_hub_name(data):
        return _read_own_from_hub(data, columns, dev, kind)
    bad = BadRows(path)
    examples = read_examples(path, read_rows(path, bad), columns, bad)
    read = _own_task_data(path.stem, columns, examples, bad, _read_dev(dev, columns), kind, varied=varied)
    return replace(read, files=(data_file(path, len(read.train)), *read.files))


def _read_dev(path: Path | None, columns: Columns) -> tuple[Examples, BadRows] | None:
    if path is None:
        return None
    bad = BadRows(path)
    return read_examples(path, read_rows(path, bad), columns, bad), bad


def _read_own_from_hub(name: str, columns: Columns, dev: Path | None, kind: TaskKind | None) -> TaskData:
    splits = load_hub(name)
    if "train" not in splits:
        raise DataError(f"there is no split 'train'; there are: {', '.join(splits)}", file=name)

    def read(split: str) -> tuple[Examples, BadRows]:
        source = f"{name} ({split})"
        bad = BadRows(source)
        return read_examples(source, hub_rows(splits[split], columns.label), columns, bad), bad

    train, bad = read("train")
    dev_split = next((split for split in _DEV_SPLITS if split in splits), None)
    dev_examples = _read_dev(dev, columns) if dev or dev_split is None else read(dev_split)
    feature = splits["train"].features.get(columns.label)
    feature = feature if isinstance(feature, ClassLabel) else getattr(feature, "feature", None)
    names = tuple(feature.names) if isinstance(feature, ClassLabel) else None
    return _own_task_data(name.rpartition("/")[2], columns, train, bad, dev_examples, kind, names)


def _own_task_data(
    name: str,
    columns: Columns,
    train: Examples,
    bad: BadRows,
    dev: tuple[Examples, BadRows] | None,
    kind: TaskKind | None,
    names: tuple[str, ...] | None = None,
    *,
    varied: bool = True,
) -> TaskData:
    """Finds kind and label names in train; dev must use the same."""
    if not train.label:
        bad.check()
    notes = []
    if kind is None:
        kind = _kind_of(train.label, named=names is not None)
        notes = [note] if (note := kind.note(train.label, columns.label)) else []
    labels = kind.label_names(train.label)
    labels = names if names and labels else labels
    if len(labels) > 100 and 2 * len(labels) > len(train.label):
        problem = f"column {columns.label!r} holds {len(labels)} different labels in {len(train.label)} rows"
        raise DataError(f"{problem}; is it the label, or are these scores (--kind regression)?", file=train.source)
    task = Task(
        name=name,
        kind=kind,
        labels=labels,
        metrics=kind.default_metrics,
        **columns._asdict(),
    )
    train_dataset = to_dataset(train, task, bad, varied=varied)
    if dev is None:
        return TaskData(task, train_dataset, {}, notes=tuple(notes))
    dev_dataset = to_dataset(dev[0], task, dev[1], varied=varied)
    path = Path(dev[0].source)
    files = (data_file(path, len(dev_dataset)),) if path.is_file() else ()
    return TaskData(task, train_dataset, {"dev": dev_dataset}, files, notes=tuple(notes))


def _kind_of(cells: Sequence[Cell], *, named: bool) -> TaskKind:
    """The kind that fits labels written like these; classes that a hub dataset names are no scores."""
    fitting = [kind for kind in KINDS.values() if kind.fits(cells)]
    if named and fitting == [KINDS["regression"]]:
        fitting = []
    return next(iter(fitting), KINDS["classification"])


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


def _is_hub_name(data: str) -> bool:
    """'name' or 'owner/name', where that is no existing path and no file's name."""
    named = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", data)
    return bool(named) and not Path(data).exists() and Path(data).suffix.lower() not in (*SUFFIXES, ".txt")
