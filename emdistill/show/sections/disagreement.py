"""The rows on which teacher and student disagree most, by the link of their answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from emdistill.console import Table
from emdistill.runs.answers import Predictions
from emdistill.show.answer_statistics import Matrix, class_divergence, label_divergence, largest
from emdistill.show.contents import Contents, Section
from emdistill.show.sections.answers import logits_of
from emdistill.states import Link
from emdistill.tasks import find_kind

MOST_SENTENCES = 20
MOST_LETTERS = 500
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
    """None where the answers were not kept."""
    task, given = contents.run.task, contents.answers
    if task is None or given is None:
        return None
    return disagreement_section(given, task.labels, find_kind(task.kind).link)


def disagreement_section(given: Predictions, labels: Sequence[str], link: Link) -> Section:
    """A sentence on how often they agree, and the rows of the largest distances."""
    kind = DISAGREEMENTS[link]
    distances = kind.distance(given.teacher, given.student)
    if kind.same is None:
        sentence = f"Over the {len(given):,} rows they differ by {distances.mean():.3f} in the mean."
    else:
        same = int(kind.same(given.teacher, given.student).sum())
        sentence = f"They give the same answer on {same:,} of {len(given):,} rows."
    lines = [
        [
            _sentences(given.texts[row], given.pairs[row]),
            kind.gold(given.labels[row], labels),
            *(kind.answer(logits[row], labels) for logits in logits_of(given).values()),
            f"{distances[row]:.2f}",
            str(row),
        ]
        for row in largest(distances, MOST_SENTENCES)
        if distances[row] >= LEAST_SHOWN
    ]
    headings = ["sentence", "gold", "teacher", "student", "disagreement", "row of dev"]
    table = Table(headings, lines, words=range(len(headings)))
    return Section(
        "Where student and teacher disagree most", {"sentence": sentence, "measure": kind.measure, "table": table}
    )


def _one_class(logits: Row, labels: Sequence[str]) -> str:
    """'good (0.93)'."""
    probabilities = softmax(np.asarray(logits, dtype=np.float64))
    best = int(probabilities.argmax())
    return f"{labels[best]} ({probabilities[best]:.2f})"


def _several(logits: Row, labels: Sequence[str]) -> str:
    """'toxic (0.93), insult (0.71)'; where none holds, the likeliest: 'none; toxic (0.31)'."""
    probabilities = expit(np.asarray(logits, dtype=np.float64))
    given = [f"{labels[place]} ({probabilities[place]:.2f})" for place in map(int, np.flatnonzero(logits > 0))]
    best = int(probabilities.argmax())
    return ", ".join(given) or f"none; {labels[best]} ({probabilities[best]:.2f})"


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
        lambda held, labels: ", ".join(labels[place] for place in map(int, np.flatnonzero(held > 0.5))) or "none",
    ),
    "identity": Disagreement(
        lambda teacher, student: np.abs(teacher[:, 0].astype(np.float64) - student[:, 0]),
        None,
        "|teacher − student|",
        lambda logits, labels: f"{logits[0]:#.3g}",
        lambda score, labels: f"{score:g}",
    ),
}


def _sentences(text: str, pair: str | None) -> str:
    return "\n".join(
        part if len(part) <= MOST_LETTERS else part[: MOST_LETTERS - 1] + "…"
        for part in (text, pair)
        if part is not None
    )
