"""The rows on which teacher and student disagree most, by the link of their answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from emdistill.console import Table
from emdistill.runs.answers import Predictions
from emdistill.show.answer_statistics import Matrix, class_divergence, label_divergence, largest
from emdistill.show.charts import cut
from emdistill.show.contents import Contents, Section
from emdistill.show.sections.answers import logits_of, spans_of, tags_of
from emdistill.states import Link
from emdistill.tasks import find_kind

MOST_SENTENCES = 20
MOST_LETTERS = 500
MOST_WORDS = 6  # of a sentence
HEADING = "Where student and teacher disagree most"
HEADINGS = ("sentence", "gold", "teacher", "student", "disagreement", "row of dev")
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


def disagreement(contents: Contents) -> Section | None:
    """None where the answers of both were not recorded."""
    task, predictions = contents.run.task, contents.answers
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
    assert predictions.teacher is not None
    sides = zip(predictions.teacher, predictions.student, strict=True)
    distances = np.array([class_divergence(teacher.T, student.T).sum() for teacher, student in sides])
    teacher, student = spans_of(predictions).values()

    def written(answer: tuple[str, float]) -> str:
        return f"{cut(answer[0], MOST_LETTERS) or 'no answer'} ({answer[1]:.2f})"

    def gold(row: int) -> str:
        texts = ((predictions.pairs[row] or "")[int(start) : int(end)] for start, end in predictions.labels[row])
        return "\n".join(dict.fromkeys(texts)) or "no answer"

    lines = [
        [
            _sentences(predictions.texts[row], predictions.pairs[row]), gold(row),
            written(teacher[row]), written(student[row]), f"{distances[row]:.2f}", str(row),
        ]
        for row in largest(distances, MOST_SENTENCES)
        if distances[row] >= LEAST_SHOWN
    ]  # fmt: skip
    same = sum(one == other for (one, _), (other, _) in zip(teacher, student, strict=True))
    sentence = f"They give the same answer to {same:,} of {len(predictions):,} questions."
    measure = f"{DISAGREEMENTS['softmax'].measure}, summed over the answer's start and end"
    table = Table(["question and text", *HEADINGS[1:]], lines, words=range(len(HEADINGS)))
    return Section(HEADING, {"sentence": sentence, "measure": measure, "table": table})


def words_section(predictions: Predictions, labels: Sequence[str]) -> Section:
    """How often words get the same tag, and the sentences that have the words of the largest distances."""
    assert predictions.teacher is not None
    sides = zip(predictions.teacher, predictions.student, strict=True)
    distances = [class_divergence(teacher, student) for teacher, student in sides]
    of_rows = np.array([of_words.max() for of_words in distances])
    lines = [
        [*_tags(predictions, row, distances[row], labels), f"{of_rows[row]:.2f}", str(row)]
        for row in largest(of_rows, MOST_SENTENCES)
        if of_rows[row] >= LEAST_SHOWN
    ]
    teacher, student = (logits.argmax(axis=1) for logits in logits_of(predictions).values())
    sentence = f"They give the same tag to {(teacher == student).sum():,} of {len(teacher):,} words."
    measure = f"of the word on which they differ most, {DISAGREEMENTS['softmax'].measure}"
    table = Table([*HEADINGS], lines, words=range(len(HEADINGS)))
    return Section(HEADING, {"sentence": sentence, "measure": measure, "table": table})


def _tags(predictions: Predictions, row: int, distances: Matrix, labels: Sequence[str]) -> list[str]:
    """A sentence, and the gold, the teacher's and the student's tags of its words that both tag otherwise."""
    assert predictions.teacher is not None
    assert predictions.words is not None
    teacher, student = predictions.teacher[row], predictions.student[row]
    differ = np.flatnonzero(teacher.argmax(axis=1) != student.argmax(axis=1))[:MOST_WORDS]
    places = differ if len(differ) else np.array([distances.argmax()])
    text = predictions.texts[row]
    gold = tags_of(predictions.labels[row], labels)
    words = [text[slice(*predictions.words[row][place])] for place in places]
    columns = [
        [gold[place] for place in places],
        *([_one_class(logits[place], labels) for place in places] for logits in (teacher, student)),
    ]
    tags = ["\n".join(f"{word}: {tag}" for word, tag in zip(words, column, strict=True)) for column in columns]
    return [cut(text, MOST_LETTERS), *tags]


def disagreement_section(predictions: Predictions, labels: Sequence[str], link: Link) -> Section:
    """A sentence on how often they agree, and the rows of the largest distances."""
    kind, (teacher, student) = DISAGREEMENTS[link], logits_of(predictions).values()
    distances = kind.distance(teacher, student)
    if kind.same is None:
        sentence = f"Over the {len(predictions):,} rows they differ by {distances.mean():.3f} in the mean."
    else:
        same = kind.same(teacher, student).sum()
        sentence = f"They give the same answer on {same:,} of {len(predictions):,} rows."
    lines = [
        [
            _sentences(predictions.texts[row], predictions.pairs[row]),
            kind.gold(predictions.labels[row], labels),
            kind.answer(teacher[row], labels),
            kind.answer(student[row], labels),
            f"{distances[row]:.2f}",
            str(row),
        ]
        for row in largest(distances, MOST_SENTENCES)
        if distances[row] >= LEAST_SHOWN
    ]
    table = Table([*HEADINGS], lines, words=range(len(HEADINGS)))
    values = {"sentence": sentence, "measure": kind.measure, "table": table}
    return Section(HEADING, values)


def _one_class(logits: Row, labels: Sequence[str]) -> str:
    """'good (0.93)'."""
    return _labelled(softmax(logits), labels)[int(logits.argmax())]


def _several(logits: Row, labels: Sequence[str]) -> str:
    """'toxic (0.93), insult (0.71)'; where none holds, the likeliest: 'none; toxic (0.31)'."""
    names = _labelled(expit(logits), labels)
    return ", ".join(compress(names, logits > 0)) or f"none; {names[int(logits.argmax())]}"


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
        lambda teacher, student: np.abs(teacher - student)[:, 0],
        None,
        "|teacher − student|",
        lambda logits, labels: f"{logits[0]:#.3g}",
        lambda score, labels: f"{score:g}",
    ),
}


def _sentences(*texts: str | None) -> str:
    return "\n".join(cut(text, MOST_LETTERS) for text in texts if text is not None)
