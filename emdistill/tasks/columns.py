"""A column of examples as one array, in memory that the array alone decides."""

from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import DTypeLike, NDArray

AT_ONCE = 4096


def column(examples: Dataset, name: str, dtype: DTypeLike | None = None) -> NDArray[Any]:
    """[rows] or [rows, C].

    Read part by part: where rows are a selection, datasets makes an object of 600 bytes for each that is read at once.
    """
    parts = [np.asarray(part[name], dtype) for part in examples.select_columns(name).iter(AT_ONCE)]
    return np.concatenate(parts) if parts else np.empty(0, dtype)
