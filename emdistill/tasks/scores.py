"""Several scores per row: label columns of numbers, or, as --kind scores, lists or objects of numbers in a cell."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset, List, Value
from numpy.typing import NDArray

from emdistill.errors import shown
from emdistill.tasks.kind import (
    BadLabel,
    Cell,
    LabelColumns,
    Logits,
    TaskKind,
    name_index,
    number,
    numbers_of,
    shortest,
    text_of,
    texts_of,
)
from emdistill.tasks.regression import pearson, spearman


class Scores(TaskKind):
    """A row has C scores, of which some may be missing; labels are C numbers, NaN for a missing one."""

    name = "scores"
    link = "identity"
    problem_type = "regression"
    default_metrics = ("pearson", "spearman")
    metrics: ClassVar = {"pearson": pearson, "spearman": spearman}
    label_type = List(Value("float64"))
    asks_for = "two rows of different scores"

    def fits(self, cells: Sequence[Cell]) -> bool:
        return are_columns_of_scores(cells)

    def label_names(self, cells: Sequence[Cell]) -> tuple[str, ...]:
        """The columns', or an object's; of lists the numbers from 1 on."""
        names = dict.fromkeys(str(name) for cell in cells if isinstance(cell, Mapping) for name in cell)
        most = max((len(cell) for cell in cells if isinstance(cell, list | tuple)), default=1)
        return tuple(names) or tuple(str(place + 1) for place in range(most))

    def encoder(self, names: Sequence[str]) -> Callable[[Cell], list[float]]:
        find = name_index(names)

        def encode(cell: Cell) -> list[float]:
            if isinstance(cell, Mapping):
                named = {find(str(name)): value for name, value in cell.items()}
                values = [named.get(place) for place in range(len(names))]
            else:
                values = list(cell) if isinstance(cell, list | tuple) else [cell]
            if len(values) != len(names):
                raise BadLabel(f"{shown(cell)} is no list of {len(names)} numbers")
            label = [_score(name, value) for name, value in zip(names, values, strict=True)]
            if all(map(math.isnan, label)):
                raise BadLabel(f"there is no score, of {', '.join(names)}")
            return label

        return encode

    def absent(self, width: int) -> list[float]:
        return [math.nan] * width

    def written(self, label: Any, names: Sequence[str]) -> dict[str, float | None]:
        scores = [None if math.isnan(score) else shortest(score) for score in label]
        return dict(zip(names, scores, strict=True))

    def permuted(self, label: Any, order: Sequence[int], width: int) -> list[float]:
        scores = self.absent(width)
        for place, score in zip(order, label, strict=True):
            scores[place] = score
        return scores

    def note(self, cells: Sequence[Cell], column: str) -> str:
        return (
            f"the columns {column!r} hold numbers other than 0 and 1, taken for scores; "
            "if each is a label: --kind multi-label"
        )

    def decode(self, logits: Logits, examples: Dataset) -> NDArray[np.float64]:
        return np.asarray(logits, dtype=np.float64)

    def constant_answers(self, labels: NDArray[Any], width: int) -> list[Logits]:
        return [np.tile(_means(np.asarray(labels)), (len(labels), 1))]

    def answer_columns(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"score of {name}" for name in names)

    def answers(self, logits: Logits, names: Sequence[str], examples: Dataset) -> list[dict[str, Any]]:
        columns = self.answer_columns(names)
        return [{column: shortest(score) for column, score in zip(columns, row, strict=True)} for row in logits]

    def summary(self, labels: Sequence[Any], gold: Sequence[Any], names: Sequence[str]) -> str:
        distances = _means(np.abs(np.asarray(labels) - np.asarray(gold)))
        each = ", ".join(f"{distance:.2f} in {name}" for name, distance in zip(names, distances, strict=True))
        return f"scored by the teacher: on average {each} from the row they were made from"


def are_columns_of_scores(cells: Sequence[Cell]) -> bool:
    """Whether rows have several label columns, most of whose cells are numbers, and some neither 0 nor 1."""
    if not all(isinstance(cell, LabelColumns) for cell in cells):
        return False
    values = [value for cell in cells if isinstance(cell, LabelColumns) for value in cell.values()]
    numbers = numbers_of(values)
    return 2 * len(numbers) > len(texts_of(values)) and not set(numbers) <= {0.0, 1.0}


def _score(name: str, cell: Cell) -> float:
    """NaN for an empty cell, null, and how data frames write a missing number."""
    text = shown(cell) if isinstance(cell, list | tuple | dict) else text_of(cell)
    if text in ("", "nan", "NaN"):
        return math.nan
    if (value := number(text)) is None:
        raise BadLabel(f"the score {name!r} is {shown(cell)}, which is no number")
    return value


def _means(values: NDArray[Any]) -> NDArray[np.float64]:
    """The mean of each column [n, C] over its numbers; 0 where there is none."""
    there = ~np.isnan(values)
    return np.asarray(np.where(there, values, 0.0).sum(axis=0) / np.maximum(there.sum(axis=0), 1))
