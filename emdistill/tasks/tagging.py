"""A tag per word: entities in BIO or BIOES, or plain classes such as parts of speech.

A word is answered at its first piece. A text that is longer than the model reads is read in overlapping windows whose
cores tile it, so that every word has one answer, with context on both sides.
"""

import inspect
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset, List, Value
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from torch import Tensor

from emdistill.errors import ConfigError
from emdistill.states import ANSWERS, NO_ANSWER, NO_CLASS
from emdistill.tasks.answers import flat, probabilities, ragged
from emdistill.tasks.features import WITH_TOKENIZER, Feature, Pieces, Reader, Side, reader_of
from emdistill.tasks.kind import BadLabel, Cell, Logits, TaskKind, class_names, name_index, text_of
from emdistill.tasks.tags import OUTSIDE, entities, entity_score, find_scheme
from emdistill.tasks.task import Task
from emdistill.tasks.windows import Window, windows
from emdistill.tasks.words import CUTTING, constants, cut

Words = Sequence[tuple[int, int]]
OVERLAP = 1 / 2  # of a window: a quarter of it is context on each side of its core


def _accuracy(logits: Logits, labels: NDArray[Any], task: Task) -> float:
    """Over the words that have a tag."""
    answers, gold = _tagged(logits, labels)
    return float((answers == gold).mean())


def _macro_f1(logits: Logits, labels: NDArray[Any], task: Task) -> float:
    answers, gold = _tagged(logits, labels)
    return float(f1_score(gold, answers, average="macro", zero_division=0.0))


def _entity_f1(logits: Logits, labels: NDArray[Any], task: Task) -> float:
    """F1 of entities, whatever their type; of plain classes 0."""
    gold = [_named(row, task.labels) for row in labels]
    answers = [_named(row.argmax(axis=-1), task.labels) for row in logits]
    return entity_score(gold, answers).f1


def _tagged(logits: Logits, labels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Answers and tags of the words that have one."""
    gold = flat(labels)
    return flat(logits).argmax(axis=-1)[gold != NO_CLASS], gold[gold != NO_CLASS]


def _named(row: NDArray[Any], names: Sequence[str]) -> list[str]:
    return [names[index] if index >= 0 else OUTSIDE for index in row.tolist()]


class Tagging(TaskKind):
    """Each word of a row has one of C tags; labels are tag indices, one per word."""

    name = "tagging"
    link = "softmax"
    problem_type = "token_classification"
    head = "TokenClassification"
    default_metrics = ("entity_f1", "accuracy")
    metrics: ClassVar = {"entity_f1": _entity_f1, "accuracy": _accuracy, "macro_f1": _macro_f1}
    label_type = List(Value("int64"))
    asks_for = "two rows of different tags"
    pipeline = "token-classification"
    one_answer = False
    columns: ClassVar = {"words": List(List(Value("int64")))}

    def fits(self, cells: Sequence[Cell]) -> bool:
        return False  # a list is several labels of one row: that its labels are tags a source tells by its form

    def label_names(self, cells: Sequence[Cell]) -> tuple[str, ...]:
        """All tags; of entities also the parts that are only met with other types: B-x where there is I-x."""
        names = class_names([text_of(tag) for cell in cells if isinstance(cell, list) for tag in cell])
        if find_scheme(names) is None:
            return names
        parts = [name.partition("-") for name in names if name != OUTSIDE]
        letters, types = {letter for letter, _, _ in parts} | {"B", "I"}, {(dash, type_) for _, dash, type_ in parts}
        return (OUTSIDE, *sorted(f"{letter}{dash}{type_}" for letter in letters for dash, type_ in types))

    def metrics_of(self, names: Sequence[str]) -> tuple[str, ...]:
        """Of plain classes accuracy and F1 over classes; without entities there is no F1 of them."""
        return self.default_metrics if find_scheme(names) else ("accuracy", "macro_f1")

    def encoder(self, names: Sequence[str]) -> Callable[[Cell], list[int]]:
        find = name_index(names)

        def encode(cell: Cell) -> list[int]:
            if not isinstance(cell, list):
                raise BadLabel(f"the label is {cell!r}, and not a list of tags, one per word")
            return [find(text_of(tag)) for tag in cell]

        return encode

    def absent(self, width: int) -> list[int]:
        return []

    def written(self, label: Any, names: Sequence[str]) -> list[str]:
        return _named(np.asarray(label, dtype=np.int64), names)

    def permuted(self, label: Any, order: Sequence[int], width: int) -> list[int]:
        return [order[tag] if tag >= 0 else tag for tag in label]

    def decode(self, logits: Logits, examples: Dataset) -> NDArray[Any]:
        return ragged([row.argmax(axis=-1) for row in logits])

    def constant_answers(self, labels: NDArray[Any], width: int) -> list[Logits]:
        gold = flat(labels)
        guess = np.zeros(width)
        guess[np.bincount(gold[gold != NO_CLASS]).argmax()] = 1.0  # the most frequent tag
        return [ragged([np.tile(guess, (len(row), 1)) for row in labels])]

    def answer_columns(self, names: Sequence[str]) -> tuple[str, ...]:
        return ("prediction", "predicted_words", *(["predicted_entities"] if find_scheme(names) else []))

    def answers(self, logits: Logits, names: Sequence[str], examples: Dataset) -> list[dict[str, Any]]:
        rows = zip(examples["text"], examples["words"], logits, strict=True)
        return [self._answer(text, words, row, names) for text, words, row in rows]

    def _answer(self, text: str, words: Words, logits: Logits, names: Sequence[str]) -> dict[str, Any]:
        shares = probabilities(logits, self.link)
        tags = _named(shares.argmax(axis=-1), names)
        each = [
            {"word": text[start:end], "tag": tag, "probability": round(float(row.max()), 6)}
            for (start, end), tag, row in zip(words, tags, shares, strict=True)
        ]
        cells: dict[str, Any] = {"prediction": tags, "predicted_words": each}
        if find_scheme(names):
            cells["predicted_entities"] = [
                {"type": found.type, "start": start, "end": end, "text": text[start:end]}
                for found in entities(tags)
                for start, end in [(words[found.first][0], words[found.end - 1][1])]
            ]
        return cells

    def summary(self, labels: Sequence[Any], gold: Sequence[Any], names: Sequence[str]) -> str:
        counts = Counter(int(tag) for row in labels for tag in row)
        shares = ", ".join(f"{names[tag]} {count / counts.total():.1%}" for tag, count in counts.most_common(5))
        return f"tagged by the teacher: {shares}"

    # ------------------------------------------------------------------------------- several answers per row

    def features(self, rows: Mapping[str, list[Any]], readers: Sequence[Reader], max_length: int) -> list[Feature]:
        room = max_length - max(sum(map(len, reader.alone)) for reader in readers)
        if room < 1:
            raise ConfigError(f"--max-length {max_length}: the special tokens of a text leave no room for its words")
        texts_of_readers = [reader.encode(rows["text"]) for reader in readers]
        columns = zip(rows["words"], rows.get("label", [[]] * len(rows["text"])), *texts_of_readers, strict=True)
        features = []
        for row, (words, tags, *texts) in enumerate(columns):
            labels = tags or [NO_CLASS] * len(words)
            sides = [ReadText(reader, words, text) for reader, text in zip(readers, texts, strict=True)]
            for window in windows([side.counts for side in sides], room, round(OVERLAP * room)):
                own = labels[window.core_first : window.core_end]
                features.append(Feature(row, [side.window(window, room) for side in sides], own))
        return features

    def further(self, texts: Mapping[str, list[str]], words: str | None) -> dict[str, list[Any]]:
        return {"words": [cut(text, words) for text in texts["text"]]}

    def example(self) -> str:
        sources = "\n\n".join(inspect.getsource(each) for each in (*READING, answer))
        return f"""{sources}

{constants()}
ANSWERS, OVERLAP = {ANSWERS!r}, {OVERLAP}
"""

    def pick(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        if ANSWERS not in batch:
            return logits.flatten(0, 1)
        row, place = (batch[ANSWERS] != NO_ANSWER).nonzero(as_tuple=True)
        return logits[row, batch[ANSWERS][row, place]]

    def of_rows(self, logits: Sequence[Logits], examples: Dataset, features: Dataset) -> Logits:
        ends = np.cumsum([len(words) for words in examples["words"]])
        return ragged(np.split(np.concatenate(logits), ends[:-1]))

    def row_counts(self, logits: Logits, labels: NDArray[Any], task: Task) -> NDArray[np.float64] | None:
        rows = [(row.argmax(axis=-1), gold) for row, gold in zip(logits, labels, strict=True)]
        if task.metrics[0] == "accuracy":
            return np.array([[(answers == gold).sum(), (gold != NO_CLASS).sum()] for answers, gold in rows], float)
        if task.metrics[0] == "entity_f1":
            found = [[{*entities(_named(side, task.labels))} for side in row] for row in rows]
            return np.array([[2 * len(answers & gold), len(answers) + len(gold)] for answers, gold in found], float)
        return None

    def gold(self, examples: Dataset) -> NDArray[Any]:
        return ragged([np.asarray(row, dtype=np.int64) for row in examples["label"]])


class ReadText:
    """A text as one tokenizer reads it, window by window.

    first   the piece at which each word begins, [words]; where none begins, the one that holds or precedes it
    counts  how many pieces are read for each word, at least one: from its first to that of the next word
    around  tokens beside the text's
    """

    def __init__(self, reader: Reader, words: Words, text: Pieces) -> None:
        self.reader, self.text = reader, text
        starts, ends = np.array([*text.offsets, (0, 0)], dtype=np.int64)[:-1].T
        first = np.searchsorted(np.maximum.accumulate(ends), [start for start, _ in words], side="right")
        inside = np.append(starts, np.iinfo(np.int64).max)[first] < [end for _, end in words]
        self.first = np.maximum(np.where(inside, first, first - 1), 0)
        self.counts = np.maximum(np.diff([0, *self.first[1:], len(text.ids)]), 1)
        self.around = sum(map(len, reader.alone))

    def pieces(self, window: Window, room: int) -> slice:
        """The pieces of a window's words, at most `room`."""
        start = int(self.first[window.first]) if window.first else 0
        behind = int(self.first[window.end]) if window.end < len(self.first) else len(self.text.ids)
        return slice(start, min(max(behind, int(self.first[window.end - 1]) + 1), start + room))

    def window(self, window: Window, room: int) -> Side:
        """A window as the tokenizer reads it, and where the words of its core are answered: at their first pieces."""
        read = self.pieces(window, room)
        side = self.reader.read(Pieces(self.text.ids[read], self.text.offsets[read]))
        core = self.first[window.core_first : window.core_end].clip(read.start, max(read.start, read.stop - 1))
        places = core - read.start + len(self.reader.alone[0])
        side.inputs[ANSWERS] = places.clip(max=len(side.sequences) - 1).tolist()
        return side


READING = (*CUTTING, Window, windows, *WITH_TOKENIZER, ReadText)
"""What a shipped folder's example.py needs of reading in windows."""


def answer(text: str, config: Any, tokenizer: Any, session: Any) -> str:
    """The words of a text with their tags, in JSON, by an ONNX session; what example.py of a shipped folder does."""
    if not text.strip():
        return "[]"
    reader = reader_of(tokenizer, [item.name for item in session.get_inputs()])
    words = cut(text, config["reading"].get("words"))
    side = ReadText(reader, words, *reader.encode([text]))
    room = config["reading"]["max_length"] - side.around
    tags: list[str] = []
    for window in windows([side.counts], room, round(OVERLAP * room)):
        inputs = side.window(window, room).inputs
        feed = {name: np.array([inputs[name]], dtype=np.int64) for name in reader.names}
        logits = session.run(["logits"], feed)[0][0]
        tags += [config["labels"][tag] for tag in logits[inputs[ANSWERS]].argmax(axis=-1)]
    tagged = [{"word": text[a:b], "start": a, "end": b, "tag": tag} for (a, b), tag in zip(words, tags, strict=True)]
    return json.dumps(tagged, ensure_ascii=False)
