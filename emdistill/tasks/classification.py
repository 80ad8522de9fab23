"""One of several classes."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from sklearn.metrics import f1_score, matthews_corrcoef

from emdistill.errors import listing
from emdistill.states import NO_CLASS
from emdistill.tasks.answers import probabilities
from emdistill.tasks.kind import (
    NUMBERED,
    Cell,
    LabelColumns,
    Logits,
    TaskKind,
    class_names,
    correlation,
    meaning,
    name_index,
    number,
    text_of,
    texts_of,
)
from emdistill.tasks.regression import are_scores
from emdistill.tasks.task import Task

SEPARATORS = re.compile("[,;|]")  # of labels in a text
WRITTEN_SCORE = re.compile(r"[-+]?\d+(?:\.\d+)?(?:,\d+)*\s?%?")  # 0,5 and 1,000 and 80 %
CUT_LIST = re.compile(r"[\[({].*(?:\.\.\.|…|'.*'|\".*\").*[\])}]?", re.DOTALL)
# How data frames, databases and (the number) transformers write that there is none.
ABSENT = {"-100", "nan", "NaN", "NA", "N/A", "n/a", "#N/A", "<NA>", "None", "null", "NULL"}


def _f1(logits: Logits, labels: NDArray[Any], task: Task) -> float:
    """F1 of the positive class."""
    positive = task.positive_index
    return float(f1_score(labels == positive, logits.argmax(axis=1) == positive, zero_division=0.0))


def _macro_f1(logits: Logits, labels: NDArray[Any], task: Task) -> float:
    return float(f1_score(labels, logits.argmax(axis=1), average="macro", zero_division=0.0))


def _look(name: str) -> str:
    """What people see of a name, and read it as: without case, widths, marks nobody sees, kinds of blanks, quotes."""
    marks = unicodedata.normalize("NFKC", name)
    seen = "".join(mark for mark in marks if mark.isspace() or unicodedata.category(mark) not in ("Cf", "Cc"))
    return meaning(" ".join(seen.casefold().split()).strip("\"'"))


def doubt(names: Sequence[str], column: str) -> str:
    """Why these may be no names of classes, or ''."""
    holds = f"column {column!r} holds"
    often = Counter(map(_look, names))
    if twins := [repr(name) for name in names if often[_look(name)] > 1]:
        return f"{holds} labels that may be one ({listing(twins)}), taken for different classes; write them alike if so"
    numbered = {"-1", "0"} <= {*names} and all(map(NUMBERED.fullmatch, names))
    no_label = ABSENT | ({"-1"} if numbered else set()) | (set() if "+" in names else {"-"})  # SNLI's is a dash
    if absent := [name for name in names if name in no_label]:
        mend = "if it says that there is no label, leave such rows out"
        return f"{holds} {absent[0]!r}, taken for a class; {mend}"
    if scores := [name for name in names if number(name) is None and WRITTEN_SCORE.fullmatch(name)]:
        return f"{holds} {scores[0]!r}, taken for a class; a score is written as 1234.5"
    if quoted := [name for name in names if name[:1] == name[-1:] == '"' and name[1:]]:
        return f"{holds} {quoted[0]!r}, taken for a class with its quotes; in a .csv file they would be none of it"
    if cut := [name for name in names if CUT_LIST.fullmatch(name)]:
        return f"{holds} {cut[0]!r}, taken for a class; a list that was cut short, or is none, cannot be read"
    return ""


class Classification(TaskKind):
    """A row has one of C classes; labels are class indices."""

    name = "classification"
    link = "softmax"
    problem_type = "single_label_classification"
    default_metrics = ("accuracy", "macro_f1")
    metrics: ClassVar = {
        "accuracy": lambda logits, labels, task: float((logits.argmax(axis=1) == labels).mean()),
        "f1": _f1,
        "macro_f1": _macro_f1,
        "matthews_corrcoef": lambda logits, labels, task: correlation(matthews_corrcoef, logits.argmax(axis=1), labels),
    }
    asks_for = "two classes"

    def fits(self, cells: Sequence[Cell]) -> bool:
        return not are_scores(cells) and not any(isinstance(cell, list | tuple | LabelColumns) for cell in cells)

    def label_names(self, cells: Sequence[Cell]) -> tuple[str, ...]:
        return class_names(texts_of(cells))

    def encoder(self, names: Sequence[str]) -> Callable[[Cell], int]:
        find = name_index(names)
        return lambda cell: find(text_of(cell))

    def absent(self, width: int) -> int:
        return NO_CLASS

    def written(self, label: Any, names: Sequence[str]) -> str:
        return names[int(label)]

    def permuted(self, label: Any, order: Sequence[int], width: int) -> int:
        return order[int(label)]

    def note(self, cells: Sequence[Cell], column: str) -> str:
        texts = set(texts_of(cells))
        parts_of = {text: {part.strip() for part in SEPARATORS.split(text)} for text in sorted(texts)}
        often = Counter(part for parts in parts_of.values() for part in parts)
        for text, parts in parts_of.items():
            if len(parts) > 1 and all(often[part] > 1 for part in parts):
                return (
                    f"column {column!r} holds {text!r}, taken for one class although its parts stand in others too; "
                    "several labels per row are --kind multi-label"
                )
        return doubt(class_names(list(texts)), column)

    def strata(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        return np.asarray(labels, dtype=np.int64)

    def decode(self, logits: Logits, examples: Dataset) -> NDArray[np.int64]:
        return np.asarray(logits.argmax(axis=1), dtype=np.int64)

    def constant_answers(self, labels: NDArray[Any], width: int) -> list[Logits]:
        guess = np.zeros((len(labels), width))
        guess[:, np.bincount(labels).argmax()] = 1.0  # the most frequent class
        return [guess]

    def answer_columns(self, names: Sequence[str]) -> tuple[str, ...]:
        return ("prediction", "probability")

    def answers(self, logits: Logits, names: Sequence[str], examples: Dataset) -> list[dict[str, Any]]:
        shares = probabilities(logits, self.link)
        return [
            {"prediction": names[int(index)], "probability": round(float(row[index]), 6)}
            for index, row in zip(shares.argmax(axis=-1), shares, strict=True)
        ]

    def summary(self, labels: Sequence[Any], gold: Sequence[Any], names: Sequence[str]) -> str:
        counts = Counter(int(label) for label in labels)
        shares = ", ".join(f"{name} {counts[index] / len(labels):.1%}" for index, name in enumerate(names))
        same = sum(int(label) == int(own) for label, own in zip(labels, gold, strict=True))
        return f"labelled by the teacher: {shares}; {same / len(labels):.1%} as the row they were made from"
