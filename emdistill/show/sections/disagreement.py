"""The rows on which teacher and student disagree most, by the link of their answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from emdistill.console import Table
from emdistill.runs.answers import Predictions
from emdistill.runs.distillation import Distillation
from emdistill.show.answer_statistics import Matrix, class_divergence, label_divergence, largest
from emdistill.show.charts import cut
from emdistill.show.page import Section, Text
from emdistill.show.sections.answers import gold_spans, logits_of, spans_of, tags_of
from emdistill.states import Link
from emdistill.tasks import find_kind

MOST_SENTENCES = 20
MOST_LETTERS = 500
MOST_WORDS = 6  # of a sentence
HEADING = "Where student and teacher disagree most"
NONE = "no answer"
LEAST_SHOWN = 0.005  # less is 0.00 in the table

Row = NDArray[np.floating]


@dataclass(frozen=True)
class Disagreement:
    """How far apart two answers are, and how an answer and a label are written.

    distance  of teacher's and student's logits [rows, C], per row
    same      whether both give the same answer, per row; None for scores
    measure   what the distance is, in words
    answer, gold   of one row's logits [C], and of its label
    """

    distance: Callable[[Row, Row], Matrix]
    same: Callable[[Row, Row], Matrix] | None
    measure: str
    answer: Callable[[Row, Sequence[str]], str]
    gold: Callable[[Row, Sequence[str]], str]


def disagreement(run: Distillation) -> Section | None:
    """None where the answers of both were not recorded."""
    task, predictions = run.task, run.predictions
    if task is None or predictions is None or predictions.teacher is None:
        return None
    link = find_kind(task.kind).link
    if link == "positions":
        return spans_section(predictions)
    if predictions.words is not None:
        return words_section(predictions, task.labels)
    return disagreement_section(predictions, task.labels, link)


def spans_section(predictions: Predictions) -> Section:
    """How often both answer a question alike, and the questions whose ends they place most differently."""
    sides = zip(*predictions.models.values(), strict=True)
    distances = np.array([class_divergence(teacher.T, student.T).sum() for teacher, student in sides])
    teacher, student = spans_of(predictions).values()
    gold = gold_spans(predictions)

    def cells(row: int) -> list[str]:
        answers = [f"{cut(text, MOST_LETTERS) or NONE} ({share:.2f})" for text, share in (teacher[row], student[row])]
        return [_sentences(predictions, row), "\n".join(dict.fromkeys(gold[row])) or NONE, *answers]

    same = sum(one == other for (one, _), (other, _) in zip(teacher, student, strict=True))
    sentence = f"They give the same answer to {same:,} of {len(predictions):,} questions."
    measure = f"{DISAGREEMENTS['softmax'].measure}, summed over the answer's start and end"
    return _section(sentence, measure, distances, cells, first="question and text")


def words_section(predictions: Predictions, labels: Sequence[str]) -> Section:
    """How often words get the same tag, and the sentences that have the words of the largest distances."""
    assert predictions.words is not None
    places, sides = predictions.words, list(zip(*predictions.models.values(), strict=True))
    distances = [class_divergence(teacher, student) for teacher, student in sides]

    def cells(row: int) -> list[str]:
        """The sentence, and the gold, the teacher's and the student's tags of its words that both tag otherwise."""
        text, (teacher, student) = predictions.texts[row], sides[row]
        differ = np.flatnonzero(teacher.argmax(axis=1) != student.argmax(axis=1))[:MOST_WORDS]
        shown = differ if len(differ) else [distances[row].argmax()]
        gold = tags_of(predictions.labels[row], labels)
        columns = [
            [gold[place] for place in shown],
            *([_one_class(logits[place], labels) for place in shown] for logits in (teacher, student)),
        ]
        words = [text[slice(*places[row][int(place)])] for place in shown]
        tags = ["\n".join(map(": ".join, zip(words, column, strict=True))) for column in columns]
        return [cut(text, MOST_LETTERS), *tags]

    teacher, student = (logits.argmax(axis=1) for logits in logits_of(predictions).values())
    sentence = f"They give the same tag to {(teacher == student).sum():,} of {len(teacher):,} words."
    measure = f"of the word on which they differ most, {DISAGREEMENTS['softmax'].measure}"
    return _section(sentence, measure, np.array([of_words.max() for of_words in distances]), cells)


def disagreement_section(predictions: Predictions, labels: Sequence[str], link: Link) -> Section:
    """A sentence on how often they agree, and the rows of the largest distances."""
    kind, (teacher, student) = DISAGREEMENTS[link], logits_of(predictions).values()
    distances = kind.distance(teacher, student)
    if kind.same is None:
        sentence = f"Over the {len(predictions):,} rows they differ by {distances.mean():.3f} in the mean."
    else:
        same = kind.same(teacher, student).sum()
        sentence = f"They give the same answer on {same:,} of {len(predictions):,} rows."

    def cells(row: int) -> list[str]:
        answers = [kind.answer(logits[row], labels) for logits in (teacher, student)]
        return [_sentences(predictions, row), kind.gold(predictions.labels[row], labels), *answers]

    several = ", of several scores the largest" if link == "identity" and len(labels) > 1 else ""
    return _section(sentence, kind.measure + several, distances, cells)


def _section(
    sentence: str, measure: str, distances: Matrix, cells: Callable[[int], list[str]], first: str = "sentence"
) -> Section:
    """The sentence, and the cells of the rows of the largest distances."""
    lines = [
        [*cells(row), f"{distances[row]:.2f}", str(row)]
        for row in largest(distances, MOST_SENTENCES)
        if distances[row] >= LEAST_SHOWN
    ]
    headings = [first, "gold", "teacher", "student", "disagreement", "row of dev"]
    table = Table(headings, lines, words=range(len(headings))) if lines else None
    return Section(HEADING, [Text(f"{sentence} Disagreement: {measure}." if lines else sentence), table])


def _sentences(predictions: Predictions, row: int) -> str:
    texts = (predictions.texts[row], predictions.pairs[row])
    return "\n".join(cut(text, MOST_LETTERS) for text in texts if text is not None)


def _one_class(logits: Row, labels: Sequence[str]) -> str:
    """'good (0.93)'."""
    return _labelled(softmax(logits), labels)[int(logits.argmax())]


def _several(logits: Row, labels: Sequence[str]) -> str:
    """'toxic (0.93), insult (0.71)'; where none holds, the likeliest: 'none; toxic (0.31)'."""
    names = _labelled(expit(logits), labels)
    return ", ".join(compress(names, logits > 0)) or f"none; {names[int(logits.argmax())]}"


def _scores(scores: Row, names: Sequence[str], form: str) -> str:
    """'3.50'; of several 'valence 3.50, arousal –', where one is missing."""
    written = ["–" if np.isnan(score) else f"{score:{form}}" for score in np.atleast_1d(scores)]
    named = zip(names, written, strict=True) if names else ((score,) for score in written)
    return ", ".join(map(" ".join, named))


def _labelled(probabilities: Row, labels: Sequence[str]) -> list[str]:
    return [f"{label} ({probability:.2f})" for label, probability in zip(labels, probabilities, strict=True)]


DISAGREEMENTS: dict[Link, Disagreement] = {
    "softmax": Disagreement(
        class_divergence,
        lambda teacher, student: teacher.argmax(axis=1) == student.argmax(axis=1),
        "KL(teacher ‖ student) + KL(student ‖ teacher) of their probabilities, in nats",
        _one_class,
        lambda label, labels: labels[int(label)],
    ),
    "sigmoid": Disagreement(
        label_divergence,
        lambda teacher, student: ((teacher > 0) == (student > 0)).all(axis=1),
        "KL(teacher ‖ student) + KL(student ‖ teacher), in nats, summed over the labels",
        _several,
        lambda gold, labels: ", ".join(compress(labels, gold > 0.5)) or "none",
    ),
    "identity": Disagreement(
        lambda teacher, student: np.abs(teacher - student).max(axis=1),
        None,
        "|teacher − student|",
        lambda logits, labels: _scores(logits, labels, "#.3g"),
        lambda scores, labels: _scores(scores, labels, "g"),
    ),
}
