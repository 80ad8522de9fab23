"""Columns of examples: their texts, and a column as one array, in memory that the array alone decides."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import DTypeLike, NDArray

AT_ONCE = 4096
TEXTS = ("text", "text_pair")


def column(examples: Dataset, name: str, dtype: DTypeLike | None = None) -> NDArray[Any]:
    """[rows] or [rows, C].

    Read part by part: where rows are a selection, datasets makes an object of 600 bytes for each that is read at once.
    """
    parts = [np.asarray(part[name], dtype) for part in examples.select_columns(name).iter(AT_ONCE)]
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def text_columns(rows: Dataset | Mapping[str, list[Any]]) -> list[Sequence[str]]:
    """The column of the texts, or the two of pairs; of a Dataset nothing is read yet."""
    names = rows.column_names if isinstance(rows, Dataset) else rows
    return [rows[name] for name in TEXTS if name in names]


def columns_of(texts: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Texts, or pairs, as the columns `text` and `text_pair`."""
    return dict(zip(TEXTS, map(list, zip(*texts, strict=True)), strict=False))
