"""How right and how sure the answers are, by their link: classes, several labels per row, scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from emdistill.console import Table
from emdistill.runs.answers import Predictions
from emdistill.show.answer_charts import (
    confidence_bars,
    confusion_heatmap,
    error_histogram,
    predicted_against_gold,
    reliability,
)
from emdistill.show.answer_statistics import Bins, calibration_error, largest, reliability_bins
from emdistill.show.charts import STUDENT, TEACHER
from emdistill.show.contents import Contents, Section
from emdistill.show.page import Chart
from emdistill.states import Link
from emdistill.tasks import find_kind

COLOURS = {"teacher": TEACHER, "student": STUDENT}
MOST_CLASSES = 20
MOST_POINTS = 800
ERROR_BINS = 40

Values = dict[str, Any]


def answers(contents: Contents) -> Section | None:
    """None for raw text, and for a run that has not been scored."""
    task, given = contents.run.task, contents.answers
    if task is None or (given is None and not contents.run.student_scores):
        return None
    if given is None:
        return Section("Answers", {"rows": 0, "charts": [], "notes": [], "table": None})
    heading, make = ANSWERS[find_kind(task.kind).link]
    return Section(heading, {"rows": len(given), "notes": [], "table": None} | make(given, task.labels))


def classes(given: Predictions, labels: Sequence[str]) -> Values:
    """The reliability diagram with both calibration errors, and a confusion matrix for each model."""
    gold = given.labels.astype(np.int64)
    chosen = {name: logits.argmax(axis=1) for name, logits in logits_of(given).items()}
    bins = {
        name: reliability_bins(softmax(logits.astype(np.float64), axis=1).max(axis=1), chosen[name] == gold)
        for name, logits in logits_of(given).items()
    }
    kept, names = _frequent(gold, labels)
    matrices = [
        Chart(
            f"Confusion: {name}",
            confusion_heatmap(names, confusion_matrix(kept[gold], kept[answer], labels=range(len(names)))),
            "Shares of each gold label's rows.",
        )
        for name, answer in chosen.items()
    ]
    calibration = _calibration(bins, "Answers are binned by their probability", "a model is surer than it is right")
    confidence = Chart("Confidence", _counts(bins, "rows"), "How many answers are given how surely.")
    cut = f"The {MOST_CLASSES - 1} most frequent of {len(labels)} classes; the rest together."
    return {
        "charts": [[calibration, confidence], matrices],
        "notes": [cut] if len(names) < len(labels) else [],
    }


def several_labels(given: Predictions, labels: Sequence[str]) -> Values:
    """Precision, recall and F1 of each label, and the calibration over all pairs of a row and a label."""
    gold = given.labels > 0.5
    columns = []
    for logits in logits_of(given).values():
        precision, recall, f1, _ = precision_recall_fscore_support(gold, logits > 0, average=None, zero_division=0.0)
        columns += [precision, recall, f1]
    shown = largest(gold.sum(axis=0).astype(np.float64), MOST_CLASSES)
    table = Table(
        [
            "label",
            "rows\nthat have it",
            *(f"{name}\n{metric}" for name in COLOURS for metric in ("precision", "recall", "F1")),
        ],
        [
            [labels[place], f"{gold[:, place].sum():,}", *(f"{column[place]:.3f}" for column in columns)]
            for place in shown
        ],
        caption="a label is given where its probability is above one half; 0 where it is never given, or never there",
    )
    bins = {name: reliability_bins(expit(logits.astype(np.float64)), gold) for name, logits in logits_of(given).items()}
    calibration = _calibration(
        bins, "All pairs of a row and a label are binned by the label's probability", "labels hold less often than said"
    )
    confidence = Chart("Probabilities", _counts(bins, "labels of rows"), "How many labels are given which probability.")
    cut = f"The {MOST_CLASSES} most frequent of {len(labels)} labels."
    return {
        "table": table,
        "charts": [[calibration, confidence]],
        "notes": [cut] if len(shown) < len(labels) else [],
    }


def scores(given: Predictions, labels: Sequence[str]) -> Values:
    """Predicted against gold scores, and how the errors are spread."""
    gold = given.labels
    predicted = {name: logits[:, 0].astype(np.float64) for name, logits in logits_of(given).items()}
    places = np.unique(np.linspace(0, len(given) - 1, min(MOST_POINTS, len(given))).round().astype(int))
    points = [(name, COLOURS[name], _rounded(values[places])) for name, values in predicted.items()]
    errors = {name: values - gold for name, values in predicted.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(errors.values())), bins=ERROR_BINS)
    spread = ", ".join(f"{name} {values.mean():+.3g} ± {values.std():.3g}" for name, values in errors.items())
    counts = [(name, COLOURS[name], np.histogram(values, bins=edges)[0].tolist()) for name, values in errors.items()]
    thinned = "" if len(places) == len(given) else f"{len(places):,} rows, evenly chosen."
    against = Chart("Predicted against gold", predicted_against_gold(points, _rounded(gold[places])), thinned)
    spreads = Chart("Errors", error_histogram(counts, _rounded(edges)), f"Mean error ± standard deviation: {spread}.")
    return {"charts": [[against, spreads]]}


ANSWERS: dict[Link, tuple[str, Callable[[Predictions, Sequence[str]], Values]]] = {
    "softmax": ("Calibration and confusion", classes),
    "sigmoid": ("Labels and calibration", several_labels),
    "identity": ("Scores and errors", scores),
}


def logits_of(given: Predictions) -> Mapping[str, NDArray[np.float32]]:
    """Logits [rows, C] by model."""
    return {"teacher": given.teacher, "student": given.student}


def _calibration(bins: Mapping[str, Bins], binned: str, below: str) -> Chart:
    errors = ", ".join(f"{name} {calibration_error(values):.3f}" for name, values in bins.items())
    models = [(name, COLOURS[name], [each for each in values if each[2]]) for name, values in bins.items()]
    caption = f"Expected calibration error: {errors}. {binned}; below the diagonal {below}."
    return Chart("Calibration", reliability(models), caption)


def _counts(bins: Mapping[str, Bins], y: str) -> Mapping[str, Any]:
    return confidence_bars(
        [(name, COLOURS[name], [count for _, _, count in values]) for name, values in bins.items()], y
    )


def _frequent(gold: NDArray[np.int64], labels: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """The new place of each class, and the classes' names, where those beyond the most frequent ones are one."""
    if len(labels) <= MOST_CLASSES:
        return np.arange(len(labels)), list(labels)
    kept = sorted(largest(np.bincount(gold, minlength=len(labels)).astype(np.float64), MOST_CLASSES - 1))
    places = np.full(len(labels), len(kept))
    places[kept] = np.arange(len(kept))
    return places, [*(labels[index] for index in kept), "all others"]


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
