"""How right and how sure the answers are, by their link: classes, several labels per row, scores, spans."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from emdistill.console import Table
from emdistill.runs.answers import Predictions
from emdistill.show import answer_charts
from emdistill.show.answer_statistics import Bins, Matrix, calibration_error, largest, reliability_bins
from emdistill.show.contents import Contents, Section
from emdistill.show.page import Chart
from emdistill.states import NO_CLASS, Link
from emdistill.tasks import find_kind
from emdistill.tasks.answers import flat
from emdistill.tasks.regression import pearson, spearman
from emdistill.tasks.span_answers import answered
from emdistill.tasks.spans import answer_score
from emdistill.tasks.tags import OUTSIDE, EntityScore, entity_scores, find_scheme

MOST_CLASSES = 20
MOST_POINTS = 800
QUESTION_WORDS = frozenset(["what", "who", "whom", "whose", "when", "where", "which", "why", "how"])
OTHER = "others"

Values = dict[str, Any]


def answers(contents: Contents) -> Section | None:
    """None for raw text, and for a run that has not been scored."""
    task, predictions = contents.run.task, contents.answers
    if task is None or (predictions is None and not contents.run.student_scores):
        return None
    heading, values = "Answers", {"rows": 0, "charts": [], "notes": [], "table": None}
    if predictions is not None:
        heading, make = ANSWERS[find_kind(task.kind).link]
        values |= {"rows": len(predictions)} | make(predictions, task.labels)
    return Section(heading, values)


def classes(predictions: Predictions, labels: Sequence[str]) -> Values:
    """The reliability diagram with both calibration errors, and a confusion matrix for each model.

    Of words that have tags also the scores of each type of entities.
    """
    gold, logits = flat(predictions.labels).astype(np.int64), logits_of(predictions)
    logits, gold = {name: values[gold != NO_CLASS] for name, values in logits.items()}, gold[gold != NO_CLASS]
    chosen = {name: values.argmax(axis=1) for name, values in logits.items()}
    bins = {
        name: reliability_bins(softmax(values, axis=1).max(axis=1), chosen[name] == gold)
        for name, values in logits.items()
    }
    places, names = _frequent(gold, labels)
    matrices = []
    for name, answer in chosen.items():
        counts = confusion_matrix(places[gold], places[answer], labels=range(len(names)))
        figure = answer_charts.confusion_heatmap(names, counts)
        matrices.append(Chart(f"Confusion: {name}", figure, "Shares of each gold label's rows."))
    calibration = _calibration(bins, "Answers are binned by their probability", "a model is surer than it is right")
    of = "rows" if predictions.words is None else "words"
    figure = answer_charts.confidence_bars(bins, of)
    confidence = Chart("Confidence", figure, "How many answers are given how surely.")
    cut = f"The {MOST_CLASSES - 1} most frequent of {len(labels)} classes; the rest together."
    table = None if predictions.words is None else entity_table(predictions, labels)
    return {
        "table": table,
        "charts": [[calibration, confidence], matrices],
        "notes": [cut] * (len(names) < len(labels)),
    }


def entity_table(predictions: Predictions, labels: Sequence[str]) -> Table | None:
    """Precision, recall and F1 of each type of entities; None where the tags spell none."""
    if find_scheme(labels) is None:
        return None
    models = {"teacher": predictions.teacher, "student": predictions.student}
    gold = [tags_of(row, labels) for row in predictions.labels]
    scores = {
        name: entity_scores(gold, [tags_of(row.argmax(axis=1), labels) for row in rows])
        for name, rows in models.items()
        if rows is not None
    }
    counts = {type_: score.support for of_model in scores.values() for type_, score in of_model.items()}
    absent = EntityScore(0.0, 0.0, 0.0, 0)  # of a type that one model never answers
    columns = [f"{name}\n{metric}" for name in scores for metric in ("precision", "recall", "F1")]
    lines = [
        [type_, f"{count:,}", *(f"{value:.3f}" for each in scores.values() for value in each.get(type_, absent)[:3])]
        for type_, count in sorted(counts.items(), key=lambda item: -item[1])
    ]
    caption = "an entity is right where its type, its first and its last word are"
    return Table(["entities", "there are", *columns], lines, caption=caption)


def tags_of(row: NDArray[Any], labels: Sequence[str]) -> list[str]:
    """The names of tags; of a word without one, that of a word outside of entities."""
    return [labels[int(tag)] if tag >= 0 else OUTSIDE for tag in row]


def several_labels(predictions: Predictions, labels: Sequence[str]) -> Values:
    """Precision, recall and F1 of each label, and the calibration over all pairs of a row and a label."""
    gold, logits = predictions.labels > 0.5, logits_of(predictions)
    columns = [
        column
        for values in logits.values()
        for column in precision_recall_fscore_support(gold, values > 0, average=None, zero_division=0.0)[:3]
    ]
    places = largest(gold.sum(axis=0).astype(np.float64), MOST_CLASSES)
    metrics = [f"{name}\n{metric}" for name in logits for metric in ("precision", "recall", "F1")]
    table = Table(
        ["label", "rows\nthat have it", *metrics],
        [[labels[at], f"{gold[:, at].sum():,}", *(f"{column[at]:.3f}" for column in columns)] for at in places],
        caption="a label is given where its probability is above one half; 0 where it is never given, or never there",
    )
    bins = {name: reliability_bins(expit(values), gold) for name, values in logits.items()}
    calibration = _calibration(
        bins, "All pairs of a row and a label are binned by the label's probability", "labels hold less often than said"
    )
    figure = answer_charts.confidence_bars(bins, "labels of rows")
    confidence = Chart("Probabilities", figure, "How many labels are given which probability.")
    cut = f"The {MOST_CLASSES} most frequent of {len(labels)} labels."
    return {"table": table, "charts": [[calibration, confidence]], "notes": [cut] * (len(places) < len(labels))}


def scores(predictions: Predictions, labels: Sequence[str]) -> Values:
    """Predicted against gold scores, and how the errors are spread.

    Of several scores a table of them all, and these charts of the one that the student correlates with least.
    """
    columns = _score_columns(predictions, labels or ("score",))
    worst = min(columns, key=lambda name: pearson(columns[name][1]["student"][:, None], columns[name][0]))
    charts = _one_score(*columns[worst])
    if not labels:
        return charts
    lines = [
        [name, f"{len(gold):,}", *(cell for values in of_models.values() for cell in _correctness(values, gold))]
        for name, (gold, of_models) in columns.items()
    ]
    models = columns[worst][1]
    metrics = [f"{model}\n{metric}" for model in models for metric in ("Pearson", "Spearman", "|error|")]
    table = Table(["score", "rows\nthat have it", *metrics], lines, caption="|error| is the mean over these rows")
    note = f"The charts are of {worst!r}, with which the student's answers correlate least."
    return charts | {"table": table, "notes": [note]}


def _score_columns(predictions: Predictions, names: Sequence[str]) -> dict[str, tuple[Matrix, dict[str, Matrix]]]:
    """Name -> (gold, answers by model) of each score, over the rows [n] that have it; without those that none has."""
    gold, logits = predictions.labels.reshape(len(predictions), -1), logits_of(predictions)
    there = ~np.isnan(gold)
    return {
        name: (gold[rows, place], {model: values[rows, place] for model, values in logits.items()})
        for place, (name, rows) in enumerate(zip(names, there.T, strict=True))
        if rows.any()
    }


def _correctness(answers: Matrix, gold: Matrix) -> list[str]:
    """Pearson's and Spearman's correlation, and the mean distance."""
    correlations = (measure(answers[:, None], gold) for measure in (pearson, spearman))
    return [*(f"{value:.3f}" for value in correlations), f"{np.abs(answers - gold).mean():.3g}"]


def _one_score(gold: Matrix, predicted: Mapping[str, Matrix]) -> Values:
    """The charts of one score; gold, and each model's answers: [rows]."""
    rows = len(gold)
    places = np.unique(np.linspace(0, rows - 1, min(MOST_POINTS, rows)).round().astype(int))
    sample = {name: values[places].tolist() for name, values in predicted.items()}
    figure = answer_charts.predicted_against_gold(sample, gold[places].tolist())
    thinned = "" if len(places) == rows else f"{len(places):,} rows, evenly chosen."
    errors = {name: values - gold for name, values in predicted.items()}
    spread = ", ".join(f"{name} {values.mean():+.3g} ± {values.std():.3g}" for name, values in errors.items())
    spreads = Chart("Errors", answer_charts.error_histogram(errors), f"Mean error ± standard deviation: {spread}.")
    return {"charts": [[Chart("Predicted against gold", figure, thinned), spreads]]}


def spans(predictions: Predictions, labels: Sequence[str]) -> Values:
    """Exact match and F1 by how the question begins, and how often an answer of some probability matches."""
    texts = _texts_and(predictions, predictions.labels)
    gold = [[text[int(start) : int(end)] for start, end in answers] for text, answers in texts]
    found = spans_of(predictions)
    some_unanswerable = not all(gold)
    scores = {
        name: [
            answer_score(answer, texts, some_unanswerable=some_unanswerable)
            for (answer, _), texts in zip(answers, gold, strict=True)
        ]
        for name, answers in found.items()
    }
    words = (re.findall(r"\w+", text.lower()) for text in predictions.texts)
    begins = [next((word for word in question if word in QUESTION_WORDS), OTHER) for question in words]
    lines = []
    for begin, count in Counter(begins).most_common():
        rows = [row for row, own in enumerate(begins) if own == begin]
        means = [np.mean([of_model[row][:2] for row in rows], axis=0) for of_model in scores.values()]
        lines.append([begin, f"{count:,}", *(f"{value:.3f}" for mean in means for value in mean)])
    columns = [f"{name}\n{metric}" for name in scores for metric in ("exact match", "F1")]
    bins = {
        name: reliability_bins(np.array([share for _, share in found[name]]), np.array([s[0] > 0 for s in of_model]))
        for name, of_model in scores.items()
    }
    binned = "Answers are binned by the probability of their start times that of their end"
    calibration = _calibration(bins, binned, "a model is surer than it matches")
    confidence = Chart("Confidence", answer_charts.confidence_bars(bins), "How many answers are given how surely.")
    return {
        "table": Table(["question", "there are", *columns], lines, caption="by the question's first such word"),
        "charts": [[calibration, confidence]],
    }


def spans_of(predictions: Predictions) -> dict[str, list[tuple[str, float]]]:
    """The answers of each model and their probabilities, '' for none where some text has none."""
    assert predictions.words is not None
    always = all(len(label) for label in predictions.labels)
    models = {"teacher": predictions.teacher, "student": predictions.student}
    found: dict[str, list[tuple[str, float]]] = {}
    for name, logits in models.items():
        if logits is not None:
            rows = zip(predictions.words, logits, strict=True)
            answers = [answered(words, row, always=always) for words, row in rows]
            texts = _texts_and(predictions, answers)
            found[name] = [("" if span is None else text[slice(*span)], share) for text, (span, share) in texts]
    return found


def _texts_and(predictions: Predictions, of_rows: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """The texts in which answers stand, each with something of its row."""
    return zip((text or "" for text in predictions.pairs), of_rows, strict=True)


ANSWERS: dict[Link, tuple[str, Callable[[Predictions, Sequence[str]], Values]]] = {
    "softmax": ("Calibration and confusion", classes),
    "sigmoid": ("Labels and calibration", several_labels),
    "identity": ("Scores and errors", scores),
    "positions": ("Answers and calibration", spans),
}


def logits_of(predictions: Predictions) -> dict[str, Matrix]:
    """Logits [A, C] of all answers by model; the student's alone where the teacher's are absent."""
    logits = {"teacher": predictions.teacher, "student": predictions.student}
    return {name: flat(values).astype(np.float64) for name, values in logits.items() if values is not None}


def _calibration(bins: Mapping[str, Bins], binned: str, below: str) -> Chart:
    errors = ", ".join(f"{name} {calibration_error(values):.3f}" for name, values in bins.items())
    caption = f"Expected calibration error: {errors}. {binned}; below the diagonal {below}."
    return Chart("Calibration", answer_charts.reliability(bins), caption)


def _frequent(gold: NDArray[np.int64], labels: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """The new place of each class, and the classes' names, where those beyond the most frequent ones are one."""
    if len(labels) <= MOST_CLASSES:
        return np.arange(len(labels)), list(labels)
    frequent = sorted(largest(np.bincount(gold, minlength=len(labels)).astype(np.float64), MOST_CLASSES - 1))
    places = np.full(len(labels), len(frequent))
    places[frequent] = np.arange(len(frequent))
    return places, [*(labels[index] for index in frequent), "all others"]
