"""Any of several labels: label columns of 0 and 1, lists in a cell, or names separated by `|` (else `;`, else commas).

A list names the row's labels, or, where all lists have one length and hold nothing but 0 and 1, has a number per label.
An empty list says that a row has no label; null within a list says nothing, and is refused.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeGuard

import numpy as np
from datasets import Dataset, List, Value
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from emdistill.errors import listing, shown
from emdistill.tasks.answers import probabilities
from emdistill.tasks.classification import doubt
from emdistill.tasks.kind import (
    BadLabel,
    Cell,
    LabelColumns,
    Logits,
    TaskKind,
    class_names,
    name_index,
    plain_name,
    text_of,
    texts_of,
    truth,
)
from emdistill.tasks.scores import are_columns_of_scores
from emdistill.tasks.task import Task


def rightness(gold: NDArray[np.bool_], given: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Precision, recall and F1 of a label that is there [n] and given [n]; 0 where undefined."""
    scores = precision_recall_fscore_support(gold, given, average="binary", pos_label=True, zero_division=0.0)
    return float(scores[0]), float(scores[1]), float(scores[2])


def _micro_f1(logits: Logits, labels: NDArray[Any], task: Task) -> float:
    return rightness((labels > 0.5).ravel(), (logits > 0).ravel())[2]


def _macro_f1(logits: Logits, labels: NDArray[Any], task: Task) -> float:
    return _mean_over_labels(lambda gold, scores: rightness(gold, scores > 0)[2], logits, labels)


def _mean_average_precision(logits: Logits, labels: NDArray[Any], task: Task) -> float:
    """The mean area under precision and recall."""
    return _mean_over_labels(average_precision_score, logits, labels)


def _mean_over_labels(measure: Callable[..., Any], logits: Logits, labels: NDArray[Any]) -> float:
    """The mean of measure(gold [n], logits [n]) over the labels that occur."""
    columns = zip((labels > 0.5).T, logits.T, strict=True)
    values = [measure(gold, scores) for gold, scores in columns if gold.any()]
    return float(np.mean(values)) if values else 0.0


SEPARATORS = "|;,"  # of the labels in a text; the first that is met


class MultiLabel(TaskKind):
    """A row has any of C labels, or none; labels are C numbers, 0 or 1."""

    name = "multi-label"
    link = "sigmoid"
    problem_type = "multi_label_classification"
    default_metrics = ("micro_f1", "macro_f1", "mean_average_precision")
    metrics: ClassVar = {
        "micro_f1": _micro_f1,
        "macro_f1": _macro_f1,
        "mean_average_precision": _mean_average_precision,
    }
    label_type = List(Value("float32"))
    asks_for = "two different sets of labels"

    def fits(self, cells: Sequence[Cell]) -> bool:
        several = any(isinstance(cell, list | tuple | LabelColumns) for cell in cells)
        return several and not are_columns_of_scores(cells)

    def label_names(self, cells: Sequence[Cell]) -> tuple[str, ...]:
        if columns := dict.fromkeys(str(name) for cell in cells if isinstance(cell, Mapping) for name in cell):
            return tuple(columns)
        if width := _numbers_per_row(cells):
            return tuple(f"LABEL_{place}" for place in range(width))
        separator = _separator(cells)
        return class_names(texts_of([part for cell in cells for part in _parts(cell, separator)]))

    def encoder(self, names: Sequence[str]) -> Callable[[Cell], list[float]]:
        find = name_index(names)
        known = set(map(plain_name, names))

        def places(cell: Cell) -> list[int]:
            if isinstance(cell, Mapping):
                are_set = {find(str(name)): _is_set(str(name), value) for name, value in cell.items()}
                silent = [name for place, name in enumerate(names) if place not in are_set]
                if silent and not isinstance(cell, LabelColumns):
                    raise BadLabel(f"{shown(cell)} says nothing of {listing(silent)}; write 0 or 1 for each label")
                return [place for place, is_set in are_set.items() if is_set]
            if not {"0", "1"} <= known and _is_number_per_label(cell, len(names)):
                return [place for place, value in enumerate(cell) if value]
            if isinstance(cell, list | tuple):
                return [find(_name(part)) for part in cell]
            # One name may hold a comma; names that are known apart do not.
            whole = isinstance(cell, str) and plain_name(cell.strip()) in known
            parts = [cell] if whole else _parts(cell, _separator([cell]))
            return [find(name) for part in parts if (name := text_of(part))]

        def encode(cell: Cell) -> list[float]:
            label = [0.0] * len(names)
            for place in places(cell):
                label[place] = 1.0
            return label

        return encode

    def absent(self, width: int) -> list[float]:
        return [math.nan] * width

    def written(self, label: Any, names: Sequence[str]) -> list[str]:
        return [name for name, value in zip(names, label, strict=True) if value > 0.5]

    def permuted(self, label: Any, order: Sequence[int], width: int) -> list[float]:
        counted = [0.0] * width
        for place, value in zip(order, label, strict=True):
            counted[place] = value
        return counted

    def note(self, cells: Sequence[Cell], column: str) -> str:
        how = ", each a list of 0 and 1, a number per label" if _numbers_per_row(cells) else ""
        several = f"column {column!r} holds several labels per row{how}: a multi-label task"
        return "; ".join(filter(None, (several, doubt(self.label_names(cells), column))))

    def strata(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """The rarest label of each row; rows without one are a stratum of their own."""
        chosen = np.asarray(labels).reshape(len(labels), -1) > 0.5
        if not chosen.shape[1]:  # of rows that are scored alone, none of which has a label
            return np.zeros(len(labels), dtype=np.int64)
        counts = np.where(chosen, chosen.sum(axis=0), len(labels) + 1)
        return np.asarray(np.where(chosen.any(axis=1), counts.argmin(axis=1), chosen.shape[1]), dtype=np.int64)

    def decode(self, logits: Logits, examples: Dataset) -> NDArray[np.float64]:
        return (logits > 0).astype(np.float64)

    def constant_answers(self, labels: NDArray[Any], width: int) -> list[Logits]:
        """The k most frequent labels for every row, for every k."""
        order = np.argsort(-labels.mean(axis=0), kind="stable")
        guesses = []
        for count in range(1, width + 1):
            guess = np.full((len(labels), width), -1.0)
            guess[:, order[:count]] = 1.0
            guesses.append(guess)
        return guesses

    def answer_columns(self, names: Sequence[str]) -> tuple[str, ...]:
        return ("prediction", *(f"probability of {name}" for name in names))

    def answers(self, logits: Logits, names: Sequence[str], examples: Dataset) -> list[dict[str, Any]]:
        chances = probabilities(logits, self.link)
        columns = self.answer_columns(names)
        return [
            {
                columns[0]: _as_text(self.written(row, names)),
                **{column: round(float(chance), 6) for column, chance in zip(columns[1:], row, strict=True)},
            }
            for row in chances
        ]

    def summary(self, labels: Sequence[Any], gold: Sequence[Any], names: Sequence[str]) -> str:
        answers, own = np.asarray(labels), np.asarray(gold)
        shares = ", ".join(f"{name} {share:.1%}" for name, share in zip(names, answers.mean(axis=0), strict=True))
        return f"labelled by the teacher: {shares}; {(answers == own).mean():.1%} as the row they were made from"


def _as_text(labels: Sequence[str]) -> str:
    """Labels as a text that is read back: in JSON where there is none, or a name holds what would separate it."""
    is_plain = labels and not any(mark in name for name in labels for mark in SEPARATORS)
    return SEPARATORS[0].join(labels) if is_plain else json.dumps(labels, ensure_ascii=False)


def _separator(cells: Sequence[Cell]) -> str:
    used = (mark for mark in SEPARATORS if any(isinstance(cell, str) and mark in cell for cell in cells))
    return next(used, SEPARATORS[-1])


def _parts(cell: Cell, separator: str) -> Sequence[Cell]:
    """The labels in a cell that is a list, or a text of names."""
    if isinstance(cell, str):
        return cell.split(separator)
    return cell if isinstance(cell, list | tuple) else [cell]


def _numbers_per_row(cells: Sequence[Cell]) -> int:
    """The length of all lists, where cells are nothing but lists of a number per label; else 0."""
    width = len(cells[0]) if cells and isinstance(cells[0], list | tuple) else 0
    return width if all(_is_number_per_label(cell, width) for cell in cells) else 0


def _is_number_per_label(cell: Cell, width: int) -> TypeGuard[Sequence[float]]:
    """Whether it is a list of `width` numbers, each 0 or 1."""
    if not isinstance(cell, list | tuple) or len(cell) != width or width < 2:
        return False
    return all(isinstance(value, int | float) and value in (0, 1) for value in cell)


def _name(part: Cell) -> str:
    """The label that stands in a list of labels."""
    if isinstance(part, list | tuple | dict):
        raise BadLabel(f"{shown(part)} stands in the list of labels and is no name; entities are --kind tagging")
    if not (text := text_of(part)):
        raise BadLabel(f"{shown(part)} stands in the list of labels; leave it out: [] says that a row has none")
    if isinstance(part, float) and not part.is_integer():
        raise BadLabel(f"{text} stands in the list of labels; a list of scores is --kind scores")
    return text


def _is_set(column: str, value: Cell) -> bool:
    """Whether the label of this column is set in a row."""
    if not (text := text_of(value)):
        raise BadLabel(f"there is no label in column {column!r}")
    if (is_set := truth(text)) is None:
        raise BadLabel(f"column {column!r} holds {text!r}; a label's own column holds 0 or 1")
    return is_set
