"""How right and how sure the answers are, by their link: classes, several labels per row, scores, spans."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.metrics import confusion_matrix

from emdistill.console import Table
from emdistill.runs.answers import Predictions
from emdistill.runs.distillation import Distillation
from emdistill.show import answer_charts
from emdistill.show.answer_statistics import Bins, Matrix, calibration_error, largest, reliability_bins
from emdistill.show.page import Chart, Part, Row, Section, Small
from emdistill.states import NO_CLASS, Link
from emdistill.tasks import find_kind
from emdistill.tasks.answers import flat
from emdistill.tasks.multi_label import rightness
from emdistill.tasks.regression import pearson, spearman
from emdistill.tasks.span_answers import answered
from emdistill.tasks.spans import answer_score
from emdistill.tasks.tags import OUTSIDE, EntityScore, entity_scores, find_scheme

MOST_CLASSES = 20
MOST_POINTS = 800
QUESTION_WORDS = frozenset(["what", "who", "whom", "whose", "when", "where", "which", "why", "how"])
OTHER = "others"

RIGHTNESS = ("precision", "recall", "F1")
AT_HALF = "a label is given where its probability is above one half; 0 where it is never given, or never there"
SURELY = ("Confidence", "How many answers are given how surely.")

NO_GOLD = Small("None of them has a gold label, so there is nothing that the answers could be compared with.")

Parts = list[Part | None]


def answers(run: Distillation) -> Section | None:
    """None for raw text, and for a run that has not been scored."""
    task, predictions = run.task, run.predictions
    if task is None or (predictions is None and not run.student_scores):
        return None
    if predictions is None:
        hint = (
            "The answers to each row were not kept: the command below with `--overwrite` keeps them, and this page "
            "then shows calibration, confusion and disagreement."
        )
        return Section("Answers", [Small(hint)])
    heading, make = ANSWERS[find_kind(task.kind).link]
    rows = Small(f"On the {len(predictions):,} rows of the development set.")
    return Section(heading, [rows, *make(predictions, task.labels)])


def classes(predictions: Predictions, labels: Sequence[str]) -> Parts:
    """The reliability diagram with both calibration errors, and a confusion matrix for each model.

    Of words that have tags also the scores of each type of entities.
    """
    gold = flat(predictions.labels).astype(np.int64)
    logits = {name: values[gold != NO_CLASS] for name, values in logits_of(predictions).items()}
    gold = gold[gold != NO_CLASS]
    if not len(gold):
        return [NO_GOLD]
    chosen = {name: values.argmax(axis=1) for name, values in logits.items()}
    bins = {
        name: reliability_bins(softmax(values, axis=1).max(axis=1), chosen[name] == gold)
        for name, values in logits.items()
    }
    places, names = _frequent(gold, labels)
    of = "rows" if predictions.words is None else "words"
    matrices = []
    for name, answer in chosen.items():
        counts = confusion_matrix(places[gold], places[answer], labels=range(len(names)))
        figure = answer_charts.confusion_heatmap(names, counts, of)
        matrices.append(Chart(f"Confusion: {name}", figure, f"Shares of each gold label's {of}."))
    binned = "Answers are binned by their probability"
    cut = f"The {MOST_CLASSES - 1} most frequent of {len(labels)} classes; the rest together."
    return [
        None if predictions.words is None else entity_table(predictions, labels),
        Small(cut) if len(names) < len(labels) else None,
        calibration(bins, binned, "a model is surer than it is right", of),
        Row(matrices),
    ]


def entity_table(predictions: Predictions, labels: Sequence[str]) -> Table | None:
    """Precision, recall and F1 of each type of entities; None where the tags spell none."""
    if find_scheme(labels) is None:
        return None
    gold = [tags_of(row, labels) for row in predictions.labels]
    scores = [
        entity_scores(gold, [tags_of(row.argmax(axis=1), labels) for row in rows])
        for rows in predictions.models.values()
    ]
    counts = Counter({type_: score.support for of_model in scores for type_, score in of_model.items()})
    absent = EntityScore(0.0, 0.0, 0.0, 0)  # of a type that one model never answers
    lines = [
        (type_, count, [value for of_model in scores for value in of_model.get(type_, absent)[:3]])
        for type_, count in counts.most_common()
    ]
    caption = "an entity is right where its type, its first and its last word are"
    return _table("entities", "there are", predictions, RIGHTNESS, lines, caption)


def tags_of(row: NDArray[Any], labels: Sequence[str]) -> list[str]:
    """The names of tags; of a word without one, that of a word outside of entities."""
    return [labels[int(tag)] if tag >= 0 else OUTSIDE for tag in row]


def several_labels(predictions: Predictions, labels: Sequence[str]) -> Parts:
    """Precision, recall and F1 of each label, and the calibration over all pairs of a row and a label."""
    gold, logits = predictions.labels > 0.5, logits_of(predictions)
    places = largest(gold.sum(axis=0).astype(np.float64), MOST_CLASSES)
    lines = [
        (
            labels[at],
            int(own.sum()),
            [score for values in logits.values() for score in rightness(own, values[:, at] > 0)],
        )
        for at in places
        for own in [gold[:, at]]
    ]
    bins = {name: reliability_bins(expit(values), gold) for name, values in logits.items()}
    binned = "All pairs of a row and a label are binned by the label's probability"
    given = ("Probabilities", "How many labels are given which probability.")
    cut = f"The {MOST_CLASSES} most frequent of {len(labels)} labels."
    return [
        _table("label", "rows\nthat have it", predictions, RIGHTNESS, lines, AT_HALF),
        Small(cut) if len(places) < len(labels) else None,
        calibration(bins, binned, "labels hold less often than said", "labels of rows", given),
    ]


def scores(predictions: Predictions, labels: Sequence[str]) -> Parts:
    """Predicted against gold scores, and how the errors are spread.

    Of several scores a table of them all, and these charts of the one that the student correlates with least.
    """
    gold, logits = predictions.labels.reshape(len(predictions), -1), logits_of(predictions)
    columns: dict[str, tuple[Matrix, dict[str, Matrix]]] = {
        name: (gold[rows, place], {model: values[rows, place] for model, values in logits.items()})
        for place, (name, rows) in enumerate(zip(labels or ("score",), ~np.isnan(gold).T, strict=True))
        if rows.any()
    }
    if not columns:
        return [NO_GOLD]
    worst = min(columns, key=lambda name: pearson(columns[name][1]["student"][:, None], columns[name][0]))
    lines = [
        (name, len(own), [value for answers in of_models.values() for value in _correctness(answers, own)])
        for name, (own, of_models) in columns.items()
    ]
    caption, metrics = "|error| is the mean over these rows", ("Pearson", "Spearman", "|error|")
    note = f"The charts are of {worst!r}, with which the student's answers correlate least."
    several: Parts = [
        _table("score", "rows\nthat have it", predictions, metrics, lines, caption), Small(note),
    ]  # fmt: skip
    return [*(several if labels else []), _one_score(*columns[worst])]


def _correctness(answers: Matrix, gold: Matrix) -> tuple[float, float, float]:
    """Pearson's and Spearman's correlation, and the mean distance."""
    column = answers[:, None]
    return pearson(column, gold), spearman(column, gold), float(np.abs(answers - gold).mean())


def _one_score(gold: Matrix, predicted: Mapping[str, Matrix]) -> Row:
    """The charts of one score; gold, and each model's answers: [rows]."""
    rows = len(gold)
    places = np.unique(np.linspace(0, rows - 1, min(MOST_POINTS, rows)).round().astype(int))
    sample = {name: values[places].tolist() for name, values in predicted.items()}
    figure = answer_charts.predicted_against_gold(sample, gold[places].tolist())
    thinned = "" if len(places) == rows else f"{len(places):,} rows, evenly chosen."
    errors = {name: values - gold for name, values in predicted.items()}
    spread = ", ".join(f"{name} {values.mean():+.3g} ± {values.std():.3g}" for name, values in errors.items())
    spreads = Chart("Errors", answer_charts.error_histogram(errors), f"Mean error ± standard deviation: {spread}.")
    return Row([Chart("Predicted against gold", figure, thinned), spreads])


def spans(predictions: Predictions, labels: Sequence[str]) -> Parts:
    """Exact match and F1 by how the question begins, and how often an answer of some probability matches."""
    gold, answers = gold_spans(predictions), spans_of(predictions)
    some_unanswerable = not all(gold)
    scores = {
        name: np.array(
            [
                answer_score(answer, texts, some_unanswerable=some_unanswerable)[:2]
                for (answer, _), texts in zip(of_model, gold, strict=True)
            ]
        )
        for name, of_model in answers.items()
    }
    words = (re.findall(r"\w+", text.lower()) for text in predictions.texts)
    begins = np.array([next((word for word in question if word in QUESTION_WORDS), OTHER) for question in words])
    lines = [
        (begin, count, [value for of_model in scores.values() for value in of_model[begins == begin].mean(axis=0)])
        for begin, count in Counter(begins.tolist()).most_common()
    ]
    bins = {
        name: reliability_bins(np.array([share for _, share in answers[name]]), of_model[:, 0] > 0)
        for name, of_model in scores.items()
    }
    binned = "Answers are binned by the probability of their start times that of their end"
    caption, metrics = "by the question's first such word", ("exact match", "F1")
    return [
        _table("question", "there are", predictions, metrics, lines, caption),
        calibration(bins, binned, "a model is surer than it matches"),
    ]


def gold_spans(predictions: Predictions) -> list[list[str]]:
    """The texts that answer each row; none where it has no answer."""
    return [
        [(text or "")[int(start) : int(end)] for start, end in answers]
        for text, answers in zip(predictions.pairs, predictions.labels, strict=True)
    ]


def spans_of(predictions: Predictions) -> dict[str, list[tuple[str, float]]]:
    """The answers of each model and their probabilities, '' for none where some text has none."""
    assert predictions.words is not None
    always = all(len(label) for label in predictions.labels)
    answers: dict[str, list[tuple[str, float]]] = {}
    for name, logits in predictions.models.items():
        answers[name] = []
        for text, words, row in zip(predictions.pairs, predictions.words, logits, strict=True):
            span, share = answered(words, row, always=always)
            answers[name].append(("" if span is None else (text or "")[slice(*span)], share))
    return answers


ANSWERS: dict[Link, tuple[str, Callable[[Predictions, Sequence[str]], Parts]]] = {
    "softmax": ("Calibration and confusion", classes),
    "sigmoid": ("Labels and calibration", several_labels),
    "identity": ("Scores and errors", scores),
    "positions": ("Answers and calibration", spans),
}


def logits_of(predictions: Predictions) -> dict[str, Matrix]:
    """Logits [A, C] of all answers by model."""
    return {name: flat(values).astype(np.float64) for name, values in predictions.models.items()}


def calibration(
    bins: Mapping[str, Bins], binned: str, below: str, of: str = "rows", given: tuple[str, str] = SURELY
) -> Row:
    """The reliability diagram, and how many answers are given with which probability (its title and caption)."""
    errors = ", ".join(f"{name} {calibration_error(values):.3f}" for name, values in bins.items())
    caption = f"Expected calibration error: {errors}. {binned}; below the diagonal {below}."
    title, meaning = given
    reliability = Chart("Calibration", answer_charts.reliability(bins), caption)
    return Row([reliability, Chart(title, answer_charts.confidence_bars(bins, of), meaning)])


Line = tuple[str, int, Sequence[float]]


def _table(
    name: str, count: str, predictions: Predictions, metrics: Sequence[str], lines: Iterable[Line], caption: str
) -> Table:
    """Lines of a name, how many there are, and these metrics of each model, under these headings."""
    columns = [f"{model}\n{metric}" for model in predictions.models for metric in metrics]
    forms = [".3g" if column.endswith("|error|") else ".3f" for column in columns]
    cells = [
        [name, f"{number:,}", *(f"{value:{form}}" for value, form in zip(values, forms, strict=True))]
        for name, number, values in lines
    ]
    return Table([name, count, *columns], cells, caption=caption)


def _frequent(gold: NDArray[np.int64], labels: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """The new place of each class, and the classes' names, where those beyond the most frequent ones are one."""
    if len(labels) <= MOST_CLASSES:
        return np.arange(len(labels)), list(labels)
    frequent = sorted(largest(np.bincount(gold, minlength=len(labels)).astype(np.float64), MOST_CLASSES - 1))
    places = np.full(len(labels), len(frequent))
    places[frequent] = np.arange(len(frequent))
    return places, [*(labels[index] for index in frequent), "all others"]
