"""Answers that are spans of a text: which span a model's logits mean, and its exact match and F1 as SQuAD has them.

Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text (EMNLP 2016); Know What You Don't Know
(ACL 2018), for questions without an answer. Their answer is ''.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emdistill.tasks.windows import Window

LONGEST_ANSWER = 30  # words
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class BestSpan(NamedTuple):
    """The sum of its start's and its end's logit, and its first and last word."""

    score: float
    first: int
    last: int


class AnswerScore(NamedTuple):
    """What an answer is worth: exact match, 0 or 1, and F1 of its words; for several, their means and number."""

    exact_match: float
    f1: float
    answers: int = 1


def normalised(answer: str) -> str:
    """An answer as it is compared: small letters, no ASCII punctuation, no articles, single blanks."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def answer_score(answer: str, gold: Sequence[str], *, some_unanswerable: bool = False) -> AnswerScore:
    """The best score over the gold answers, each number for itself.

    gold                empty: the question has no answer
    some_unanswerable   by the rules of SQuAD v2: gold answers of articles and punctuation alone do not count, and an
                        empty answer is worth 1 where there is none
    """
    if some_unanswerable:
        gold = [text for text in gold if normalised(text)] or [""]
    words = normalised(answer).split()
    golden = [normalised(text).split() for text in gold]
    both_empty = 1.0 if some_unanswerable else 0.0
    exact = max((float(words == other) for other in golden), default=0.0)
    return AnswerScore(exact, max((_f1(words, other, both_empty) for other in golden), default=0.0))


def _f1(words: list[str], gold: list[str], both_empty: float) -> float:
    """Words count as often as they occur."""
    if not words and not gold:
        return both_empty
    shared = (Counter(words) & Counter(gold)).total()
    if not shared:
        return 0.0
    precision, recall = shared / len(words), shared / len(gold)
    return 2 * precision * recall / (precision + recall)


def squad_scores(answers: Sequence[str], gold: Sequence[Sequence[str]]) -> dict[str, AnswerScore]:
    """The mean scores of all questions as "all", and of those that have an answer and those that have none.

    SQuAD's official figures are a hundred times these: v1.1's where every question has an answer, else v2's.
    Raises ValueError for no questions.
    """
    if not gold:
        raise ValueError("there are no questions to score")
    some_unanswerable = not all(gold)
    scores = [
        answer_score(answer, texts, some_unanswerable=some_unanswerable)
        for answer, texts in zip(answers, gold, strict=True)
    ]
    means = {"all": _mean(scores)}
    for name, wanted in (("has_answer", True), ("no_answer", False)):
        of_part = [score for score, texts in zip(scores, gold, strict=True) if bool(texts) == wanted]
        means |= {name: _mean(of_part)} if of_part else {}
    return means


def _mean(scores: Sequence[AnswerScore]) -> AnswerScore:
    count = len(scores)
    return AnswerScore(sum(s.exact_match for s in scores) / count, sum(s.f1 for s in scores) / count, count)


def best_span(start: NDArray[Any], end: NDArray[Any], longest: int = LONGEST_ANSWER) -> BestSpan:
    """The span first..last with the largest start[first] + end[last]; of equal ones the first in reading order.

    start, end   logits of the words of a text, [W], at least one
    longest      words of a span at most
    All spans are looked at: O(W · longest).
    """
    ends = np.full(len(start) + longest - 1, -np.inf)
    ends[: len(end)] = end
    scores = np.asarray(start, np.float64)[:, None] + np.lib.stride_tricks.sliding_window_view(ends, longest)
    first, length = np.unravel_index(scores.argmax(), scores.shape)
    return BestSpan(float(scores[first, length]), int(first), int(first + length))


def words_of_answer(words: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int] | None:
    """The first and the last word that share a character with start..end; None where no word does."""
    touched = [place for place, (first, behind) in enumerate(words) if first < end and behind > start]
    return (touched[0], touched[-1]) if touched else None


def joined_windows(logits: Sequence[NDArray[Any]], windows: Sequence[Window]) -> NDArray[np.float64]:
    """The logits [1 + W, 2] of a text's words from those of its windows; row 0 stands for no answer.

    logits    per window [1 + words, 2]: of no answer, then of the window's words, for start and end
    windows   whose cores tile the text
    Each window's become logarithms of probabilities, so that windows compare; a word's are those of the window whose
    core it is in. No answer is as likely as in the window that most believes in one.
    """
    shares = [log_softmax(np.asarray(each, dtype=np.float64)) for each in logits]
    none = min((each[0] for each in shares), key=lambda pair: float(pair.sum()))
    cores = [
        each[1 + window.core_first - window.first : 1 + window.core_end - window.first]
        for each, window in zip(shares, windows, strict=True)
    ]
    return np.concatenate([none[None], *cores])


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the first axis."""
    shifted = logits - logits.max(axis=0)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=0)))
