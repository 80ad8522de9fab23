"""A report's parts on answers: calibration and confusion, errors of scores, and the rows of most disagreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from emdistill.runs.answers import Predictions
from emdistill.show.answer_charts import (
    confidence_bars,
    confusion_heatmap,
    error_histogram,
    predicted_against_gold,
    reliability,
)
from emdistill.show.answer_statistics import (
    calibration_error,
    confusion,
    largest,
    log_probabilities,
    reliability_bins,
    symmetric_divergence,
)
from emdistill.show.charts import STUDENT, TEACHER
from emdistill.show.page import Block, Chart, Part, Row, Table, Text

COLOURS = {"teacher": TEACHER, "student": STUDENT}
MOST_CLASSES = 20
MOST_POINTS = 800
MOST_SENTENCES = 20
MOST_LETTERS = 500
ERROR_BINS = 40


def class_part(found: Predictions, labels: Sequence[str]) -> Part:
    """The reliability diagram with both calibration errors, and a confusion matrix for each model."""
    gold = found.labels.astype(np.int64)
    logs = {name: log_probabilities(logits) for name, logits in _logits(found).items()}
    bins = {name: reliability_bins(np.exp(values), gold) for name, values in logs.items()}
    errors = ", ".join(f"{name} {calibration_error(values):.3f}" for name, values in bins.items())
    calibration = Chart(
        "Calibration",
        reliability([(name, COLOURS[name], [bin for bin in found if bin[2]]) for name, found in bins.items()]),
        f"Expected calibration error: {errors}. Answers are binned by their probability; below the diagonal a model is "
        f"surer than it is right.",
    )
    counts = [(name, COLOURS[name], [rows for _, _, rows in found]) for name, found in bins.items()]
    confidence = Chart("Confidence", confidence_bars(counts), "How many answers are given how surely.")
    kept, names = _frequent(gold, labels)
    charts = [
        Chart(
            f"Confusion: {name}",
            confusion_heatmap(names, confusion(kept[gold], kept[values.argmax(axis=1)], len(names))),
            "Shares of each gold label's rows.",
        )
        for name, values in logs.items()
    ]
    blocks: list[Block] = [Text(_said_rows(found), "small"), Row([calibration, confidence]), Row(charts)]
    if len(names) < len(labels):
        blocks.append(
            Text(f"The {MOST_CLASSES - 1} most frequent of {len(labels)} classes; the rest together.", "small")
        )
    return Part("Calibration and confusion", blocks)


def score_part(found: Predictions) -> Part:
    """Predicted against gold scores, and how the errors are spread."""
    gold = found.labels
    scores = {name: logits[:, 0].astype(np.float64) for name, logits in _logits(found).items()}
    places = np.unique(np.linspace(0, len(found) - 1, min(MOST_POINTS, len(found))).round().astype(int))
    points = [(name, COLOURS[name], _rounded(values[places])) for name, values in scores.items()]
    errors = {name: values - gold for name, values in scores.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(errors.values())), bins=ERROR_BINS)
    spread = ", ".join(f"{name} {values.mean():+.3g} ± {values.std():.3g}" for name, values in errors.items())
    counts = [(name, COLOURS[name], np.histogram(values, bins=edges)[0].tolist()) for name, values in errors.items()]
    thinned = "" if len(places) == len(found) else f"{len(places):,} rows, evenly chosen."
    charts = [
        Chart("Predicted against gold", predicted_against_gold(points, _rounded(gold[places])), thinned),
        Chart("Errors", error_histogram(counts, _rounded(edges)), f"Mean error ± standard deviation: {spread}."),
    ]
    return Part("Scores and errors", [Text(_said_rows(found), "small"), Row(charts)])


def disagreement_part(found: Predictions, labels: Sequence[str]) -> Part:
    """The rows on which teacher and student disagree most; the measure is said above them."""
    if labels:
        teacher, student = (log_probabilities(logits) for logits in _logits(found).values())
        distances = symmetric_divergence(teacher, student)
        same = int((teacher.argmax(axis=1) == student.argmax(axis=1)).sum())
        said = (
            f"They give the same answer on {same:,} of {len(found):,} rows. Disagreement: KL(teacher ‖ student) + "
            f"KL(student ‖ teacher) of their probabilities, in nats."
        )
    else:
        distances = np.abs(found.teacher[:, 0].astype(np.float64) - found.student[:, 0])
        said = f"Disagreement: |teacher − student|; over all {len(found):,} rows {distances.mean():.3f} in the mean."
    lines = [
        [
            _sentences(found.texts[row], found.pairs[row]),
            labels[int(found.labels[row])] if labels else f"{found.labels[row]:g}",
            *(_answer(logits[row], labels) for logits in _logits(found).values()),
            f"{distances[row]:.2f}",
            str(row),
        ]
        for row in largest(distances, MOST_SENTENCES)
        if distances[row] > 0
    ]
    headings = ("sentence", "gold", "teacher", "student", "disagreement", "row of dev")
    return Part("Where student and teacher disagree most", [Text(said), Table(headings, lines, text=True)])


def _logits(found: Predictions) -> Mapping[str, NDArray[np.float32]]:
    return {"teacher": found.teacher, "student": found.student}


def _said_rows(found: Predictions) -> str:
    return f"On the {len(found):,} rows of the development set."


def _frequent(gold: NDArray[np.int64], labels: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """The new place of each class, and the classes' names, where those beyond the most frequent ones are one."""
    if len(labels) <= MOST_CLASSES:
        return np.arange(len(labels)), list(labels)
    kept = sorted(largest(np.bincount(gold, minlength=len(labels)).astype(np.float64), MOST_CLASSES - 1))
    places = np.full(len(labels), len(kept))
    places[kept] = np.arange(len(kept))
    return places, [*(labels[index] for index in kept), "all others"]


def _sentences(text: str, pair: str | None) -> str:
    return "\n".join(
        part if len(part) <= MOST_LETTERS else part[: MOST_LETTERS - 1] + "…"
        for part in (text, pair)
        if part is not None
    )


def _answer(logits: NDArray[np.float32], labels: Sequence[str]) -> str:
    """'good (.93)'; a score by itself."""
    if not labels:
        return f"{logits[0]:#.3g}"
    probabilities = np.exp(log_probabilities(logits[None]))[0]
    best = int(probabilities.argmax())
    return f"{labels[best]} ({probabilities[best]:.2f})"


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
