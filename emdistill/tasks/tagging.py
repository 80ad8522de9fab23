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
        room = max_length - max(len(reader.before) + len(reader.behind) for reader in readers)
        if room < 1:
            raise ConfigError(f"--max-length {max_length}: the special tokens of a text leave no room for its words")
        pieces = [reader.encode(rows["text"]) for reader in readers]
        columns = zip(rows["words"], rows.get("label", [[]] * len(rows["text"])), *pieces, strict=True)
        features = []
        for row, (words, tags, *read) in enumerate(columns):
            labels = tags or [NO_CLASS] * len(words)
            firsts = [first_pieces(words, each) for each in read]
            counts = [pieces_per_word(first, each) for first, each in zip(firsts, read, strict=True)]
            for window in windows(counts, room, round(OVERLAP * room)):
                parts = zip(readers, read, firsts, strict=True)
                inputs, sequences, offsets = zip(*(read_window(*part, window, room) for part in parts), strict=True)
                own = labels[window.core_first : window.core_end]
                features.append(Feature(row, inputs, sequences, offsets, own))
        return features

    def further(self, texts: Mapping[str, list[str]], words: str | None) -> dict[str, list[Any]]:
        return {"words": [cut(text, words) for text in texts["text"]]}

    def example(self) -> str:
        needed: tuple[Any, ...] = (*READING, read_window, answer)
        sources = "\n\n".join(map(inspect.getsource, needed))
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


def first_pieces(words: Words, pieces: Pieces) -> NDArray[np.int64]:
    """The piece at which each word begins, [words]; where it has none of its own, the one that holds or precedes it."""
    starts, ends = np.array([*pieces.offsets, (0, 0)], dtype=np.int64)[:-1].T
    first = np.searchsorted(np.maximum.accumulate(ends), [start for start, _ in words], side="right")
    inside = np.append(starts, np.iinfo(np.int64).max)[first] < [end for _, end in words]
    return np.maximum(np.where(inside, first, first - 1), 0)


def pieces_per_word(first: NDArray[np.int64], pieces: Pieces) -> NDArray[np.int64]:
    """How many pieces are read for each word, at least one: from its first to that of the next word."""
    borders = np.array([0, *first[1:], len(pieces.ids)])
    return np.maximum(np.diff(borders), 1)


def pieces_of_window(first: NDArray[np.int64], pieces: Pieces, window: Window, room: int) -> slice:
    """The pieces of a window's words, at most `room`; first: the piece at which each word begins."""
    start = int(first[window.first]) if window.first else 0
    behind = int(first[window.end]) if window.end < len(first) else len(pieces.ids)
    return slice(start, min(max(behind, int(first[window.end - 1]) + 1), start + room))


READING = (*CUTTING, Window, windows, *WITH_TOKENIZER, first_pieces, pieces_per_word, pieces_of_window)
"""What a shipped folder's example.py needs of reading in windows."""


def read_window(reader: Reader, pieces: Pieces, first: NDArray[np.int64], window: Window, room: int) -> Side:
    """A window as a tokenizer reads it, and where the words of its core are answered: at their first pieces."""
    read = pieces_of_window(first, pieces, window, room)
    side = reader.read(Pieces(pieces.ids[read], pieces.offsets[read]))
    core = first[window.core_first : window.core_end].clip(read.start, max(read.start, read.stop - 1))
    places = core - read.start + len(reader.before)
    side.inputs[ANSWERS] = places.clip(max=len(side.sequences) - 1).tolist()
    return side


def answer(text: str, config: Any, tokenizer: Any, session: Any) -> str:
    """The words of a text with their tags, in JSON, by an ONNX session; what example.py of a shipped folder does."""
    reader = reader_of(tokenizer, [item.name for item in session.get_inputs()])
    room = config["reading"]["max_length"] - len(reader.before) - len(reader.behind)
    words, (pieces,) = cut(text, config["reading"].get("words")), reader.encode([text])
    first = first_pieces(words, pieces)
    tags: list[str] = []
    for window in windows([pieces_per_word(first, pieces)], room, round(OVERLAP * room)):
        inputs, _, _ = read_window(reader, pieces, first, window, room)
        feed = {name: np.array([inputs[name]], dtype=np.int64) for name in reader.names}
        logits = session.run(["logits"], feed)[0][0]
        tags += [config["labels"][tag] for tag in logits[inputs[ANSWERS]].argmax(axis=-1)]
    tagged = [{"word": text[a:b], "start": a, "end": b, "tag": tag} for (a, b), tag in zip(words, tags, strict=True)]
    return json.dumps(tagged, ensure_ascii=False)
