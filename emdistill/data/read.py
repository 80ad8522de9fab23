"""The one entry point to data: GLUE, a user's files or a data set become TaskData."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from emdistill.config import CommonConfig
from emdistill.data.files import Columns
from emdistill.data.form import Form, Request
from emdistill.data.glue import GlueFolders
from emdistill.data.messages import MESSAGES, Messages
from emdistill.data.mixture_file import is_mixture
from emdistill.data.own_rows import OwnRows
from emdistill.data.squad import Squad
from emdistill.data.tagged import Tagged
from emdistill.data.text_hashes import Seen, hashes_of_rows, hashes_of_texts
from emdistill.errors import ConfigError, DataError, nearest
from emdistill.files import sha256
from emdistill.tasks import TaskKind, find_kind
from emdistill.tasks.task import Task, TaskData

OWN_ROWS = OwnRows()
FORMS: tuple[Form, ...] = (GlueFolders(), Messages(), Tagged(), Squad(), OWN_ROWS)

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

    data        a GLUE or WNUT-17 folder (with `task`), a CSV, TSV, JSONL, Parquet or CoNLL file, a data set, or
                'messages'
    dev         a file
    kind        a name in KINDS; None: found from the labels
    evaluating  the data are only scored on, so their labels may all be the same
    Raises ConfigError for an unknown or missing task or kind, DataError for data that cannot be used.
    """
    if is_mixture(data):
        raise ConfigError(f"{data} lists several tasks, which `emdistill distill` learns; name the data of one task")
    request = Request(
        data,
        Columns(text, text_pair, label),
        None if dev is None else Path(dev),
        MESSAGES.name if data == MESSAGES.name and task is None else task,
        None if kind is None else find_kind(kind),
        varied=not evaluating,
    )
    task_data = _read(request)
    return task_data if "dev" in task_data.evaluation else _with_held_out_dev(task_data, seed)


def _read(request: Request) -> TaskData:
    """By the form of the task that is named, else of the kind, else the one that the data show."""
    if request.task is not None:
        form, task = find_task(request.task)
        kinds = form.kinds_of(task)
        if request.kind is not None and request.kind not in kinds:
            raise ConfigError(f"--kind {request.kind.name}: {task} is a task of {kinds[0].name}; leave out --kind")
        return form.read(replace(request, task=task))
    form = form_shown(request.data) if request.kind is None else form_of(request.kind)
    return form.read(request)


def find_task(name: str) -> tuple[Form, str]:
    """The form of a public task, and its name; 'SST-2', 'sst_2' and 'sst2' alike.

    Raises ConfigError for an unknown one, with the nearest name.
    """
    forms = {task: form for form in FORMS for task in form.tasks}
    plain = name.lower().replace("-", "").replace("_", "")
    if plain not in forms:
        raise ConfigError(f"there is no task {name!r}; there are: {', '.join(forms)}.{nearest(name, forms)}")
    return forms[plain], plain


def form_of(kind: TaskKind) -> Form:
    """The form that data of a kind of task come in."""
    return next((form for form in FORMS if kind in form.kinds), OWN_ROWS)


def form_of_task(task: Task) -> Form:
    """That of the public task of its name, else of its kind."""
    own = (form for form in FORMS if task.name in form.tasks and task.kind in form.kinds_of(task.name))
    return next(own, form_of(task.kind))


def form_shown(data: str) -> Form:
    """The form that data show by themselves; rows of a text and a label where they show none."""
    return next((form for form in FORMS if form.recognises(data)), OWN_ROWS)


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
    kind = data.task.kind
    how = "at random" if kind.strata(data.task.gold(train)) is None else "stratified by label"
    how = "by whole texts" if kind.held_together else how
    held_out = (
        f"no development set was given: {len(dev):,} of the {len(data.train):,} training examples "
        f"are held out as one ({how}, seed {seed})"
    )
    return replace(data, train=train, evaluation={"dev": dev, **data.evaluation}, held_out=held_out)


def hold_out(dataset: Dataset, task: Task, share: float, seed: int, at_most: int) -> tuple[Dataset, Dataset]:
    """(rest, held out), both in the dataset's order; the same seed gives the same cut.

    Classes keep their shares; one of two examples or more has at least one on each side, where `at_most` allows it.
    Rows of scores are drawn at random, and questions by whole texts (TaskKind.held_together).
    Raises DataError where there is nothing to cut, ConfigError for a share outside (0, 1).
    """
    if not 0 < share < 1 or at_most < 1:
        raise ConfigError(f"a share of {share} (at most {at_most}) cannot be held out; it must lie between 0 and 1")
    if len(dataset) < 2:
        raise DataError(f"task {task.name!r}: {len(dataset)} examples cannot be cut in two; give a development set")
    count = max(1, min(round(share * len(dataset)), at_most))
    shuffled = np.random.default_rng(seed).permutation(len(dataset))
    strata, together = task.kind.strata(task.gold(dataset)), task.kind.held_together
    if together and (values := dataset.unique(together))[1:]:
        chosen = _whole_groups(dataset[together], values, count, seed)
    elif strata is None:
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


def _whole_groups(column: Sequence[str], values: Sequence[str], count: int, seed: int) -> NDArray[np.int64]:
    """The rows of some of the column's values, at most `count`, or one value's."""
    number = {value: place for place, value in enumerate(values)}
    groups = np.array([number[value] for value in column])
    order = np.random.default_rng(seed).permutation(len(values))
    sizes = np.bincount(groups)[order].cumsum()
    return np.flatnonzero(np.isin(groups, order[: max(1, int((sizes <= count).sum()))]))


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
