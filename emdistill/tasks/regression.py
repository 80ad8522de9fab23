"""A score per row."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset, Value
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr

from emdistill.errors import shown
from emdistill.tasks.kind import BadLabel, Cell, Logits, TaskKind, correlation, number, numbers_of, shortest, text_of
from emdistill.tasks.task import Task

MOST_DISTINCT_CLASSES = 20  # more different whole numbers than this are scores


def pearson(logits: Logits, labels: NDArray[Any], task: Task | None = None) -> float:
    """Pearson's correlation, of several scores the mean of theirs."""
    return _mean_over_scores(lambda x, y: pearsonr(x, y)[0], logits, labels)


def spearman(logits: Logits, labels: NDArray[Any], task: Task | None = None) -> float:
    """Spearman's rank correlation, of several scores the mean of theirs."""
    return _mean_over_scores(lambda x, y: spearmanr(x, y)[0], logits, labels)


def _mean_over_scores(measure: Callable[..., Any], logits: Logits, labels: NDArray[Any]) -> float:
    """The mean of measure(answers, labels) over the columns [n, C], each over the rows that have its label.

    labels   [n], or [n, C]; NaN: none. A column without labels does not count.
    """
    columns = zip(logits.T.astype(np.float64), labels.reshape(len(labels), -1).T, strict=True)
    known = [(answers[there], gold[there]) for answers, gold in columns if (there := ~np.isnan(gold)).any()]
    return float(np.mean([correlation(measure, answers, gold) for answers, gold in known])) if known else 0.0


class Regression(TaskKind):
    """A row has a score; labels are finite numbers, and there is one logit."""

    name = "regression"
    link = "identity"
    problem_type = "regression"
    default_metrics = ("pearson", "spearman")
    metrics: ClassVar = {"pearson": pearson, "spearman": spearman}
    label_type = Value("float64")
    named = False
    asks_for = "two different scores"

    def fits(self, cells: Sequence[Cell]) -> bool:
        return are_scores(cells)

    def label_names(self, cells: Sequence[Cell]) -> tuple[str, ...]:
        return ()

    def encoder(self, names: Sequence[str]) -> Callable[[Cell], float]:
        def encode(cell: Cell) -> float:
            text = text_of(cell)
            if text.casefold() in ("", "nan"):
                raise BadLabel(f"there is no label ({shown(cell)})")
            value = number(text)
            if value is None:
                problem = f"label {text!r} is no number, but the labels are scores"
                raise BadLabel(f"{problem} (if they are classes: --kind classification)")
            return value

        return encode

    def written(self, label: Any, names: Sequence[str]) -> float:
        return shortest(label)

    def note(self, cells: Sequence[Cell], column: str) -> str:
        numbers = numbers_of(cells)
        if not numbers or not all(value.is_integer() for value in numbers):
            return ""
        return (
            f"column {column!r} holds {len(set(numbers))} different whole numbers, taken for scores; "
            "if they are classes: --kind classification"
        )

    def decode(self, logits: Logits, examples: Dataset) -> NDArray[np.float64]:
        return logits[:, 0].astype(np.float64)

    def constant_answers(self, labels: NDArray[Any], width: int) -> list[Logits]:
        return [np.full((len(labels), width), labels.mean())]

    def answer_columns(self, names: Sequence[str]) -> tuple[str, ...]:
        return ("prediction",)

    def answers(self, logits: Logits, names: Sequence[str], examples: Dataset) -> list[dict[str, Any]]:
        return [{"prediction": shortest(value)} for value in logits[:, 0]]

    def summary(self, labels: Sequence[Any], gold: Sequence[Any], names: Sequence[str]) -> str:
        distance = np.mean([abs(label - own) for label, own in zip(labels, gold, strict=True)])
        return f"scored by the teacher: on average {distance:.2f} from the row they were made from"


def are_scores(cells: Sequence[Cell]) -> bool:
    """Whether most labels are numbers, of which some are not whole or more than 20 differ."""
    numbers = numbers_of(cells)
    if 2 * len(numbers) <= len(cells):
        return False
    return not (all(value.is_integer() for value in numbers) and len(set(numbers)) <= MOST_DISTINCT_CLASSES)
