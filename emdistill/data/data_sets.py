"""Data sets as the package `datasets` keeps them: on the hub, or in a folder that it has saved or downloaded."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import datasets
import pyarrow
from datasets import Dataset
from datasets.exceptions import DatasetsError

from emdistill.data.arrow_files import ROWS_AT_ONCE
from emdistill.data.compressed import plain_path
from emdistill.data.rows import SUFFIXES, Row
from emdistill.errors import DataError
from emdistill.hub import asked_once, nearest_here

PARQUET = ("*.parquet", "data/*.parquet")  # where the parts of a downloaded data set stand
SAVED = ("dataset_info.json", "dataset_dict.json")  # in a folder that save_to_disk() has written
# What the package raises for damaged folders, beside what it means to.
UNREADABLE = (
    OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, DatasetsError, pyarrow.ArrowException,
)  # fmt: skip


def is_hub_name(data: str) -> bool:
    """'name' or 'owner/name', where that is no existing path and no file's name."""
    named = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", data)
    return bool(named) and not Path(data).exists() and plain_path(Path(data)).suffix.lower() not in (*SUFFIXES, ".txt")


def is_data_set(data: str) -> bool:
    """Whether `load_splits` reads it: a name on the hub, or a folder that holds a data set."""
    return is_hub_name(data) or holds_data_set(Path(data))


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    return any((folder / name).is_file() for name in SAVED)


def holds_data_set(folder: Path) -> bool:
    """Whether `save_to_disk` wrote a folder, or it has the Parquet files of a data set."""
    return is_saved(folder) or any(any(folder.glob(place)) for place in PARQUET)


def load_splits(name: str, config: str | None = None) -> dict[str, Dataset]:
    """The splits of a data set, by name; no remote code is run.

    config   of a hub dataset that has several
    Raises DataError where it cannot be had.
    """
    folder = Path(name)
    try:
        splits = _splits_of_folder(folder) if folder.is_dir() else _splits_of_hub(name, config)
        return {split: rows.with_format(None) for split, rows in splits.items()}
    except UNREADABLE as error:
        problem = f"`datasets` cannot read what is in this folder ({type(error).__name__}: {error})"
        if not folder.is_dir():
            problem = f"there is no such file or folder here, and the hub gives no such dataset ({error})."
            problem += nearest_here(name)
        raise DataError(problem, file=name) from error


def _splits_of_folder(folder: Path) -> dict[str, Dataset]:
    if not is_saved(folder):
        return dict(datasets.load_dataset(str(folder)))
    saved = datasets.load_from_disk(str(folder))
    splits = dict(saved) if isinstance(saved, dict) else {"train": saved}
    for split in splits.values():
        split.data.table.validate(full=True)
    return splits


def _splits_of_hub(name: str, config: str | None) -> dict[str, Dataset]:
    with asked_once():
        return dict(datasets.load_dataset(name) if config is None else datasets.load_dataset(name, config))


def train_and_dev(name: str) -> dict[str, tuple[str, Dataset]]:
    """'train' and, where there is one, 'dev' of a data set: what messages call the split, and its rows.

    Raises DataError as load_splits, and where there is no split 'train'.
    """
    splits = load_splits(name)
    if "train" not in splits:
        raise DataError(f"there is no split 'train'; there are: {', '.join(splits)}", file=name)
    dev = next((split for split in ("validation", "dev") if split in splits), None)
    chosen = {"train": "train"} | ({} if dev is None else {"dev": dev})
    return {part: (f"{name} ({split})", splits[split]) for part, split in chosen.items()}


def split_rows(split: Dataset) -> Iterator[Row]:
    """The rows of a data set's split, counted from 1."""
    return (Row(line, cells) for line, cells in enumerate(split, start=1))


def digest(split: Dataset) -> str:
    """SHA-256 of a split's rows, as Arrow writes them."""
    hashed = hashlib.sha256()
    for rows in split.with_format("arrow").iter(ROWS_AT_ONCE):
        for batch in rows.combine_chunks().to_batches():
            hashed.update(batch.serialize())
    return hashed.hexdigest()
