import random

import numpy as np
import pytest

from emdistill.tasks.spans import (
    AnswerScore,
    answer_score,
    best_span,
    joined_windows,
    normalised,
    squad_scores,
    words_of_answer,
)
from emdistill.tasks.windows import Window

WORDS = [
    "the",
    "a",
    "an",
    "The",
    "Ada",
    "met",
    "ada,",
    "U.S.",
    "us",
    "10–4",
    "—",
    "…",
    "x-y",
    "don't",
    "dont",
    "Ü",
    "'s",
]


def questions(seed: int, none: float) -> tuple[list[str], list[list[str]]]:
    """Random answers, and one to three gold answers each; none: the share of questions without any."""
    draw = random.Random(seed)

    def text() -> str:
        return draw.choice([" ", "  "]).join(draw.choices(WORDS, k=draw.randint(1, 5)))

    gold = [[] if draw.random() < none else [text() for _ in range(draw.randint(1, 3))] for _ in range(500)]
    answers = [draw.choice([*texts, *(f"{one} {text()}" for one in texts), "", text()]) for texts in gold]
    return answers, gold


@pytest.mark.parametrize(
    ("seed", "exact_match", "f1"),
    [
        (0, 37.4, 56.16191253191252),
        (1, 38.0, 55.94134976134976),
    ],
)
def test_scores_are_those_of_squad_v1(seed: int, exact_match: float, f1: float) -> None:
    """Values of the official evaluate-v1.1.py on these answers, every digit."""
    scores = squad_scores(*questions(seed, none=0))
    assert scores["has_answer"] == scores["all"]
    assert (100 * scores["all"].exact_match, 100 * scores["all"].f1) == pytest.approx((exact_match, f1), abs=1e-11)


@pytest.mark.parametrize(
    ("seed", "exact_match", "f1", "has_answer", "no_answer"),
    [
        (0, 39.0, 56.89251859251864, 57.02948073637733, 56.578947368421055),
        (1, 35.4, 53.45487401487406, 55.81915128133615, 47.55244755244755),
    ],
)
def test_scores_are_those_of_squad_v2(
    seed: int, exact_match: float, f1: float, has_answer: float, no_answer: float
) -> None:
    """Values of the official evaluate-v2.0.py on these answers: exact, f1, HasAns_f1, NoAns_f1."""
    scores = squad_scores(*questions(seed, none=0.3))
    found = (scores["all"].exact_match, scores["all"].f1, scores["has_answer"].f1, scores["no_answer"].f1)
    assert [100 * value for value in found] == pytest.approx([exact_match, f1, has_answer, no_answer], abs=1e-11)
    assert scores["has_answer"].answers + scores["no_answer"].answers == scores["all"].answers == 500


def test_an_answer_is_compared_without_case_articles_and_marks() -> None:
    assert normalised(" The  U.S., a (big)  one—An") == "us big one—"
    assert answer_score("the Tower, in Paris", ["Paris", "Eiffel Tower"]) == (0, 0.5, 1)
    assert answer_score("a tower", ["Tower!"]) == (1, 1, 1)
    assert answer_score("", [], some_unanswerable=True) == (1, 1, 1)
    assert answer_score("x", [], some_unanswerable=True) == (0, 0, 1)
    with pytest.raises(ValueError, match="no questions"):
        squad_scores([], [])
    assert squad_scores(["a"], [["b"]])["all"] == AnswerScore(0, 0, 1)


@pytest.mark.parametrize("seed", range(30))
def test_the_best_span_is_that_of_all_spans(seed: int) -> None:
    draw = np.random.default_rng(seed)
    words, longest = int(draw.integers(1, 30)), int(draw.integers(1, 40))
    start, end = draw.integers(-3, 3, (2, words)).astype(np.float32)  # many ties
    every = [
        (-(start[first] + end[last]), first, last)
        for first in range(words)
        for last in range(first, min(words, first + longest))
    ]
    score, first, last = min(every)
    assert best_span(start, end, longest) == (-score, first, last)


def test_the_words_of_an_answer() -> None:
    words = [(0, 3), (4, 8), (8, 9)]
    assert words_of_answer(words, 4, 8) == (1, 1)
    assert words_of_answer(words, 2, 9) == (0, 2)
    assert words_of_answer(words, 3, 4) is None


def test_windows_are_joined_at_their_cores() -> None:
    """Against the definition, word by word, in float64."""
    draw = np.random.default_rng(0)
    windows = [Window(0, 0, 3, 4), Window(2, 3, 5, 6)]
    logits = [draw.normal(size=(5, 2)), 40 + draw.normal(size=(5, 2))]
    shares = [np.log(np.exp(each) / np.exp(each).sum(axis=0)) for each in logits]
    joined = joined_windows(logits, windows)
    assert joined.shape == (1 + 5, 2)
    np.testing.assert_allclose(joined[1:4], shares[0][1:4], rtol=1e-12)
    np.testing.assert_allclose(joined[4:], shares[1][2:4], rtol=1e-12)
    least = min(shares, key=lambda each: each[0].sum())
    np.testing.assert_allclose(joined[0], least[0], rtol=1e-12)


def test_one_window_is_its_softmax() -> None:
    logits = np.random.default_rng(1).normal(size=(7, 2))
    joined = joined_windows([logits], [Window(0, 0, 6, 6)])
    np.testing.assert_allclose(np.exp(joined).sum(axis=0), 1, rtol=1e-12)
    np.testing.assert_allclose(joined - joined[0], logits - logits[0], rtol=1e-9)
