"""A question on a text, whose answer is a span of the text: SQuAD. Where some texts have no answer: SQuAD v2.

Answers stand at words, whatever the tokenizer: a word has a logit for the answer's start, at its first piece, and one
for its end, at its last piece; the first token of all stands for no answer. Both are softmaxes over the words of what
is read at once. A long text is read in overlapping windows, with the question in each; of one that does not hold the
whole answer, no answer is the label.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset, List, Value
from numpy.typing import NDArray
from torch import Tensor, stack

from emdistill.errors import ConfigError, shown
from emdistill.states import ANSWERS, ENDS, NO_ANSWER, NO_CLASS, WINDOW
from emdistill.tasks.answers import ragged
from emdistill.tasks.features import Feature, Pieces, Reader, Side, reader_of
from emdistill.tasks.kind import BadLabel, Cell, Logits, Metric, TaskKind
from emdistill.tasks.spans import (
    LONGEST_ANSWER,
    AnswerScore,
    BestSpan,
    answer_score,
    best_span,
    joined_windows,
    log_softmax,
    squad_scores,
    words_of_answer,
)
from emdistill.tasks.tagging import READING, ReadText
from emdistill.tasks.task import Task
from emdistill.tasks.windows import Window, windows
from emdistill.tasks.words import constants, cut

Words = Sequence[tuple[int, int]]
Answers = Sequence[Sequence[int]]
"""[start, end) in characters of the text, one per gold answer; none: the text has no answer."""

UNKNOWN = [[NO_ANSWER, NO_ANSWER]]  # the answers of a question without a label
QUESTION = 1 / 2  # of what is read at once; a longer question is cut at its end
OVERLAP = 1 / 2  # of the rest


@dataclass(frozen=True)
class Gold:
    """What the logits of a row are compared with; its length is that of the logits."""

    text: str
    words: Words
    answers: Answers

    def __len__(self) -> int:
        return 1 + len(self.words)

    @property
    def texts(self) -> list[str]:
        """The gold answers as they stand in the text."""
        return [self.text[start:end] for start, end in self.answers]


def answered(words: Words, logits: Logits, *, always: bool) -> tuple[tuple[int, int] | None, float]:
    """The answer of a row's logits in characters, and its probability; None for no answer, unless always answered."""
    best, none = best_span(logits[1:, 0], logits[1:, 1]), float(logits[0].sum())
    if none > best.score and not always:
        return None, math.exp(min(none, 0.0))
    return (words[best.first][0], words[best.last][1]), math.exp(min(best.score, 0.0))


def texts_answered(logits: Logits, gold: NDArray[Any], *, always: bool) -> list[str]:
    """What is answered to each row; '' for no answer."""
    spans = [answered(row.words, own, always=always)[0] for row, own in zip(gold, logits, strict=True)]
    return [row.text[slice(*span)] if span else "" for row, span in zip(gold, spans, strict=True)]


def _metric(part: str, number: Callable[[AnswerScore], float], *, always: bool) -> Metric:
    """One number of `squad_scores`; 0 where the data have no such question."""

    def measure(logits: Logits, gold: NDArray[Any], task: Task) -> float:
        scores = squad_scores(texts_answered(logits, gold, always=always), [row.texts for row in gold])
        return number(scores[part]) if part in scores else 0.0

    return measure


def _metrics(*, always: bool) -> dict[str, Metric]:
    return {
        "f1": _metric("all", lambda score: score.f1, always=always),
        "exact_match": _metric("all", lambda score: score.exact_match, always=always),
        "has_answer_f1": _metric("has_answer", lambda score: score.f1, always=always),
        "no_answer_f1": _metric("no_answer", lambda score: score.f1, always=always),
    }


class SpanAnswers(TaskKind):
    """Every text has an answer, a span of it; labels are the gold answers' characters."""

    name = "span-answers"
    link = "positions"
    problem_type = "question_answering"
    head = "QuestionAnswering"
    default_metrics: tuple[str, ...] = ("f1", "exact_match")
    metrics: ClassVar = _metrics(always=True)
    label_type = List(List(Value("int64")))
    asks_for = "two questions of different answers"
    pipeline = "question-answering"
    one_answer = False
    columns: ClassVar = {"words": List(List(Value("int64")))}
    held_together = "text_pair"  # several questions are asked of one text
    always_answered = True

    def fits(self, cells: Sequence[Cell]) -> bool:
        return False  # that it asks for spans a source tells by its form

    def label_names(self, cells: Sequence[Cell]) -> tuple[str, ...]:
        return ("start", "end")

    def encoder(self, names: Sequence[str]) -> Callable[[Cell], Any]:
        def encode(cell: Cell) -> list[list[int]]:
            is_span = isinstance(cell, list) and all(
                isinstance(span, list) and len(span) == 2 and all(type(place) is int for place in span) for span in cell
            )
            if not isinstance(cell, list) or not is_span:
                raise BadLabel(f"the label is {shown(cell)}, and not a list of [start, end] in characters of the text")
            if not cell and self.always_answered:
                raise BadLabel("the text has no answer; --kind span-answers-or-none takes such questions")
            return cell

        return encode

    def absent(self, width: int) -> list[list[int]]:
        return UNKNOWN

    def written(self, label: Any, names: Sequence[str]) -> list[list[int]]:
        return [list(answer) for answer in label]

    def decode(self, logits: Logits, examples: Dataset) -> NDArray[Any]:
        rows = zip(examples["words"], logits, strict=True)
        found = [answered(*row, always=self.always_answered)[0] for row in rows]
        return ragged([np.array([span] if span else [], dtype=np.int64).reshape(-1, 2) for span in found])

    def strata(self, labels: NDArray[Any]) -> NDArray[np.int64] | None:
        return None if self.always_answered else np.array([len(row.answers) > 0 for row in labels], dtype=np.int64)

    def constant_answers(self, labels: NDArray[Any], width: int) -> list[Logits]:
        """No answer, and the first word of each text."""
        guesses = [np.repeat(np.eye(1, len(row), place).T, 2, axis=1) for place in (0, 1) for row in labels]
        return [ragged(guesses[: len(labels)]), ragged(guesses[len(labels) :])]

    def answer_columns(self, names: Sequence[str]) -> tuple[str, ...]:
        return ("prediction", "probability", "start", "end")

    def answers(self, logits: Logits, names: Sequence[str], examples: Dataset) -> list[dict[str, Any]]:
        cells = []
        for text, words, row in zip(examples["text_pair"], examples["words"], logits, strict=True):
            span, probability = answered(words, row, always=self.always_answered)
            start, end = span or (None, None)
            answer = text[start:end] if span else ""
            cells.append({"prediction": answer, "probability": round(probability, 6), "start": start, "end": end})
        return cells

    def summary(self, labels: Sequence[Any], gold: Sequence[Any], names: Sequence[str]) -> str:
        none = sum(not len(label) for label in labels)
        return f"answered by the teacher: {len(labels) - none:,} questions; {none:,} have no answer"

    # ------------------------------------------------------------------------------- several answers per row

    def features(self, rows: Mapping[str, list[Any]], readers: Sequence[Reader], max_length: int) -> list[Feature]:
        limit = int(QUESTION * max_length)
        sides = [(reader, reader.encode(rows["text"]), reader.encode(rows["text_pair"])) for reader in readers]
        labels = rows.get("label", [UNKNOWN] * len(rows["text"]))
        features = []
        for row, (words, answers) in enumerate(zip(rows["words"], labels, strict=True)):
            read = [Asked(reader, words, texts[row], asked[row], limit) for reader, asked, texts in sides]
            room = max_length - max(side.around for side in read)
            if room < 1:
                raise ConfigError(f"--max-length {max_length}: a question leaves no room for the text that answers it")
            for window in windows([side.counts for side in read], room, round(OVERLAP * room)):
                feature = Feature(row, [side.window(window, room) for side in read], _places(words, answers, window))
                feature.sides[0].inputs[WINDOW] = list(window)
                features.append(feature)
        return features

    def further(self, texts: Mapping[str, list[str]], words: str | None) -> dict[str, list[Any]]:
        if "text_pair" not in texts:
            raise ConfigError("a question is asked of a text: name the columns of both with --text and --text-pair")
        pairs = texts["text_pair"]
        of_text = {text: cut(text, words) for text in dict.fromkeys(pairs)}  # several questions are asked of one
        return {"words": [of_text[text] for text in pairs]}

    def example(self) -> str:
        decoding = (Asked, BestSpan, best_span, log_softmax, joined_windows, answered, answer)
        sources = "\n\n".join(inspect.getsource(each) for each in (*READING, *decoding))
        return f"""{constants()}
ANSWERS, ENDS = {ANSWERS!r}, {ENDS!r}
QUESTION, OVERLAP, LONGEST_ANSWER = {QUESTION}, {OVERLAP}, {LONGEST_ANSWER}

{sources}
"""

    def pick(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        if ANSWERS not in batch:
            return logits.flatten(0, 1)
        row, place = (batch[ANSWERS] != NO_ANSWER).nonzero(as_tuple=True)
        return stack([logits[row, batch[name][row, place], end] for end, name in enumerate((ANSWERS, ENDS))], dim=-1)

    def score_of_windows(self, task: Task, logits: Sequence[Logits], labels: Sequence[NDArray[Any]]) -> float:
        """The share of starts and ends that stand at their place."""
        return float(np.mean([own.argmax(axis=0) == places for own, places in zip(logits, labels, strict=True)]))

    def of_rows(self, logits: Sequence[Logits], examples: Dataset, features: Dataset) -> Logits:
        """Each row [1 + words, 2]: the windows of a row joined; logarithms of probabilities."""
        parts = [Window(*window) for window in features[WINDOW]]
        begins = [place for place, window in enumerate(parts) if window.core_first == 0]
        rows = zip(begins, [*begins[1:], len(parts)], strict=True)
        return ragged([joined_windows(logits[a:b], parts[a:b]).astype(np.float32) for a, b in rows])

    def row_counts(self, logits: Logits, labels: NDArray[Any], task: Task) -> NDArray[np.float64] | None:
        metric = task.metrics[0]
        if metric not in ("f1", "exact_match"):
            return None
        some_unanswerable = any(not row.answers for row in labels)
        answers = zip(texts_answered(logits, labels, always=self.always_answered), labels, strict=True)
        scores = [answer_score(text, row.texts, some_unanswerable=some_unanswerable) for text, row in answers]
        return np.array([[getattr(score, metric), 1.0] for score in scores])

    def gold(self, examples: Dataset) -> NDArray[Any]:
        rows = zip(examples["text_pair"], examples["words"], examples["label"], strict=True)
        return ragged([Gold(*row) for row in rows])


class SpanAnswersOrNone(SpanAnswers):
    """Some texts have no answer: '' is the answer where it is more likely than every span."""

    name = "span-answers-or-none"
    default_metrics = ("f1", "exact_match", "has_answer_f1", "no_answer_f1")
    metrics: ClassVar = _metrics(always=False)
    always_answered = False


class Asked(ReadText):
    """A text with a question on it, at most `limit` pieces of which are read."""

    def __init__(self, reader: Reader, words: Words, text: Pieces, question: Pieces, limit: int) -> None:
        super().__init__(reader, words, text)
        self.question = Pieces(question.ids[:limit], question.offsets[:limit])
        self.around = len(self.question.ids) + sum(map(len, reader.pair))

    def window(self, window: Window, room: int) -> Side:
        """The question and a window as the tokenizer reads them, and where the window's words are answered."""
        read = self.pieces(window, room)
        side = self.reader.read(self.question, Pieces(self.text.ids[read], self.text.offsets[read]))
        first = self.first[window.first : window.end]
        last = first + self.counts[window.first : window.end] - 1
        before = self.around - len(self.reader.pair[-1]) - read.start
        for name, pieces in ((ANSWERS, first), (ENDS, last)):
            side.inputs[name] = [0, *(pieces.clip(read.start, max(read.start, read.stop - 1)) + before).tolist()]
        return side


def _places(words: Words, answers: Answers, window: Window) -> list[int]:
    """The places of the first gold answer's ends among a window's; 0, no answer, where it is not wholly in it."""
    if list(map(list, answers)) == UNKNOWN:
        return [NO_CLASS, NO_CLASS]
    of_answer = words_of_answer(words, *answers[0]) if len(answers) else None
    if of_answer is None or of_answer[0] < window.first or of_answer[1] >= window.end:
        return [0, 0]
    return [1 + word - window.first for word in of_answer]


def answer(question: str, text: str, config: Any, tokenizer: Any, session: Any) -> str:
    """The part of the text that answers, by an ONNX session; what example.py of a shipped folder does."""
    if not text.strip():
        return ""
    reader = reader_of(tokenizer, [item.name for item in session.get_inputs()])
    length, words = config["reading"]["max_length"], cut(text, config["reading"].get("words"))
    asked, read = reader.encode([question, text])
    side = Asked(reader, words, read, asked, int(QUESTION * length))
    room = length - side.around
    parts = windows([side.counts], room, round(OVERLAP * room))
    logits = []
    for part in parts:
        inputs = side.window(part, room).inputs
        feed = {name: np.array([inputs[name]], dtype=np.int64) for name in reader.names}
        both = session.run(["logits"], feed)[0][0]
        logits.append(np.stack([both[inputs[ANSWERS], 0], both[inputs[ENDS], 1]], axis=-1))
    span, _ = answered(words, joined_windows(logits, parts), always=config["kind"] == "span-answers")
    return "" if span is None else text[slice(*span)]
