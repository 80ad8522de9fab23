"""A kind of task is one file that subclasses TaskKind, and one line in KINDS (tasks/__init__.py).

No other file asks which kind a task is: data/ asks the kind how labels are read; losses and pages read its link.
"""

from __future__ import annotations

import math
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from datasets import Dataset, Value
from numpy.typing import NDArray
from torch import Tensor

from emdistill.errors import ConfigError, listing, nearest
from emdistill.states import SEQUENCE, Link, Predictions
from emdistill.tasks.answers import ragged
from emdistill.tasks.columns import column
from emdistill.tasks.features import Feature, Reader

if TYPE_CHECKING:
    from emdistill.tasks.task import Task

Cell = object
"""A label as the source has it: a text, a number, a list; or LabelColumns."""

Logits = NDArray[Any]
"""[rows, C]; of a kind with several answers per row, `ragged` logits [A, C] of each row (tasks/answers.py)."""
Metric = Callable[[Logits, NDArray[Any], "Task"], float]
"""(logits, labels, task) -> value; greater is better."""

DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
WHOLE = re.compile(r"(?:-(?=0+\.))?(-?(?:0|[1-9]\d*))\.0+")
NUMBERED = re.compile(r"(?:LABEL_)?(-?(?:0|[1-9]\d{,99}))")  # what is longer is no number, but text made of digits
TRUTHS = ("true", "false")
UNSEEN = dict.fromkeys(map(ord, "\u200b\u2060\ufeff"))  # marks without width, and of byte order


class LabelColumns(dict[str, Cell]):
    """The cells of a row that has several label columns: column -> cell."""


class BadLabel(ValueError):
    """A label that cannot be used; the message says why, and the reader of the row adds its line."""


class TaskKind(ABC):
    """One kind of question that a model answers.

    A row has one answer, and is read whole, cut at the model's length. A kind with several answers per row overrides
    `one_answer` and the methods of the last part.

    name             in KINDS, in --kind and in records
    link             turns logits into answers: softmax (one of C), sigmoid (any of C), identity (scores)
    problem_type     transformers' name for the kind, in a model's config.json
    head             what stands on the encoder, by the names of transformers' classes: BertForSequenceClassification
    default_metrics  where the data name none; the first one chooses checkpoints
    metrics          every metric of the kind
    label_type       of the column `label`, in datasets' types
    asks_for         the least variety of labels, in messages: "two classes"
    pipeline         transformers' name for what runs such a model, on cards and the hub
    named            whether its logits have names, as all but a single score have
    one_answer       whether a row has one answer: logits [rows, C], and labels that one array holds
    columns          of an example beside text, text_pair and label, in datasets' types
    held_together    a column: rows of one value are held out together, for what one tells of the other
    """

    name: str
    link: Link
    problem_type: str
    default_metrics: tuple[str, ...]
    metrics: ClassVar[Mapping[str, Metric]]
    label_type: Any = Value("int64")
    asks_for: str
    head: str = SEQUENCE
    pipeline: str = "text-classification"
    named: bool = True
    one_answer: bool = True
    columns: ClassVar[Mapping[str, Any]] = {}
    held_together: str | None = None

    @property
    def predictions(self) -> Predictions:
        """What a model of this kind predicts."""
        return Predictions(self.link, self.problem_type, self.head)

    @abstractmethod
    def fits(self, cells: Sequence[Cell]) -> bool:
        """Whether labels written like these are of this kind, where the user names none."""

    @abstractmethod
    def label_names(self, cells: Sequence[Cell]) -> tuple[str, ...]:
        """The names of the logits, in their order, from all labels; () for a kind without names."""

    def names_of(self, outputs: Sequence[str]) -> tuple[str, ...]:
        """The names of a task's logits, from those of a model's; () for a kind without names."""
        return tuple(outputs) if self.named else ()

    def metrics_of(self, names: Sequence[str]) -> tuple[str, ...]:
        """The metrics of a task with these names, where the data name none."""
        return self.default_metrics

    @abstractmethod
    def encoder(self, names: Sequence[str]) -> Callable[[Cell], Any]:
        """A function from a label as written to the label to learn; it raises BadLabel."""

    def absent(self, width: int) -> Any:
        """The label of a row that has none: hard labels learn nothing from it. width: of the logits."""
        return math.nan

    @abstractmethod
    def written(self, label: Any, names: Sequence[str]) -> Any:
        """The label as files and people write it: a value that JSON holds and `encoder` reads."""

    def permuted(self, label: Any, order: Sequence[int], width: int) -> Any:
        """The same label where logit i becomes logit order[i] of `width`; a score stays."""
        return label

    def note(self, cells: Sequence[Cell], column: str) -> str:
        """What a user should know of how the labels were read, or ''."""
        return ""

    def strata(self, labels: NDArray[Any]) -> NDArray[np.int64] | None:
        """The stratum of each row: a held-out part keeps its share. None: rows are drawn at random."""
        return None

    @abstractmethod
    def decode(self, logits: Logits, examples: Dataset) -> NDArray[Any]:
        """The labels that logits [n, C] of examples mean: classes or scores [n], sets of labels or scores [n, C]."""

    @abstractmethod
    def constant_answers(self, labels: NDArray[Any], width: int) -> list[Logits]:
        """Logits [n, width] of the constant guesses that may score best."""

    @abstractmethod
    def answer_columns(self, names: Sequence[str]) -> tuple[str, ...]:
        """The columns of a file of predictions."""

    @abstractmethod
    def answers(self, logits: Logits, names: Sequence[str], examples: Dataset) -> list[dict[str, Any]]:
        """The cells of these columns, a dictionary per row of logits [n, C]; `examples` are what was answered."""

    @abstractmethod
    def summary(self, labels: Sequence[Any], gold: Sequence[Any], names: Sequence[str]) -> str:
        """A sentence on a teacher's labels of variants, beside the labels of the rows they were made from."""

    # ------------------------------------------------------------------------------- several answers per row

    def features(self, rows: Mapping[str, list[Any]], readers: Sequence[Reader], max_length: int) -> list[Feature]:
        """What the model reads at once, in the order of rows: the same windows for all readers.

        rows   columns `text`, perhaps `text_pair`, `label` and those of `columns`
        """
        raise NotImplementedError

    def further(self, texts: Mapping[str, list[str]], words: str | None) -> dict[str, list[Any]]:
        """The `columns` of plain texts, columns `text` and perhaps `text_pair`; words: Task.words."""
        return {}

    def example(self) -> str:
        """Source of `answer(text, config, tokenizer, session)` for a shipped folder's example.py, without emdistill."""
        return ""

    def pick(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """The logits [A, C] of a batch's answers, from those that the head gives."""
        return logits

    def score_of_windows(self, task: Task, logits: Sequence[Logits], labels: Sequence[NDArray[Any]]) -> float:
        """How good the answers [A, C] of features are, by the labels of each; the first metric, each as a row."""
        return task.score(ragged(logits), ragged(labels))[task.metrics[0]]

    def of_rows(self, logits: Sequence[Logits], examples: Dataset, features: Dataset) -> Logits:
        """The logits of rows, from those [A, C] of each of their features (data/batches.windowed), in their order."""
        return np.concatenate(logits)

    def row_counts(self, logits: Logits, labels: NDArray[Any], task: Task) -> NDArray[np.float64] | None:
        """[rows, 2]: Σ first / Σ second over rows is the first metric; None where it is no such quotient."""
        return None

    def gold(self, examples: Dataset) -> NDArray[Any]:
        """What `metrics` compare the logits of rows with: labels; of several answers per row a sequence per row."""
        return column(examples, "label")


def check_one_answer(kind: TaskKind, what: str) -> None:
    """Raise ConfigError where rows have several answers, which `what` has no place for."""
    if not kind.one_answer:
        raise ConfigError(f"{what} gives each row one answer, and a task of the kind {kind.name} asks for several")


def text_of(cell: Cell) -> str:
    """A scalar label as it is read; '' where there is none. Raises BadLabel for anything but a scalar.

    What looks the same is the same: without blanks around it and marks that nobody sees, accents composed (NFC).
    """
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, bytes | bytearray):
        raise BadLabel(f"the label is bytes ({bytes(cell[:20])!r}); save the column as text")
    if isinstance(cell, list | tuple | dict | set):
        what = "an object" if isinstance(cell, dict) else "a list"
        raise BadLabel(f"the label is {what}, which is no class; several labels per row are --kind multi-label")
    text = str(cell)
    return (text if text.isascii() else unicodedata.normalize("NFC", text.translate(UNSEEN))).strip()


def number(text: str) -> float | None:
    """The finite number that a text is, or None: 'inf', 'nan' and Python's '1_000' are words."""
    return float(text) if DECIMAL.fullmatch(text) and math.isfinite(float(text)) else None


def shortest(value: float) -> float:
    """The shortest decimal that is the same float32, of a number that is one; any other number as it is."""
    narrow = np.float32(value)
    return float(str(narrow)) if float(narrow) == value else float(value)


def truth(cell: Cell) -> bool | None:
    """Whether a cell says yes: true or 1, or no: false or 0; None for anything else. Raises BadLabel as text_of."""
    text = text_of(cell).casefold()
    value = {"true": 1.0, "false": 0.0}.get(text, number(text))
    return bool(value) if value in (0.0, 1.0) else None


def numbers_of(cells: Sequence[Cell]) -> list[float]:
    """The labels that are finite numbers."""
    return [value for text in texts_of(cells) if (value := number(text)) is not None]


def texts_of(cells: Sequence[Cell]) -> list[str]:
    """The scalar labels, as text; absent ones and others are left out."""
    texts = []
    for cell in cells:
        try:
            texts.append(text_of(cell))
        except BadLabel:
            continue
    return [text for text in texts if text]


def class_names(texts: Sequence[str]) -> tuple[str, ...]:
    """The different names, as they are written: whole numbers in order, LABEL_2 like 2; then the others alphabetically.

    Where every number among them is whole, '1.0' is the class '1'; '007', '07' and '7' are always three classes. True
    and false are one class each, however JSON, pandas and spreadsheets write them.
    """
    different = set(texts)
    truths = {text for text in different if text.lower() in TRUTHS}
    if len(truths) > len({text.lower() for text in truths}):
        different = different - truths | set(map(plain_name, truths))
    numbers = {text: value for text in different if (value := number(text)) is not None}
    if all(value.is_integer() for value in numbers.values()):
        different = {whole_name(text) for text in different}
    if numbers and len(numbers) == len(set(texts)) - ("nan" in different):
        different -= {"nan"}  # how data frames write a missing number
    return tuple(sorted(different, key=_place))


def whole_name(text: str) -> str:
    """'1' for '1.0'; any other text as it is."""
    whole = WHOLE.fullmatch(text)
    return whole[1] if whole else text


def plain_name(text: str) -> str:
    """The same, and 'true' for 'True' and 'TRUE'."""
    return text.lower() if text.lower() in TRUTHS else whole_name(text)


def _place(name: str) -> tuple[int, int, str]:
    plain = NUMBERED.fullmatch(name)
    return (0, int(plain[1]), name) if plain else (1, 0, name)


def meaning(name: str) -> str:
    """What a name says, whoever wrote it: '1' for LABEL_1, 1.0 and true; any other name in lower case."""
    folded = plain_name(name).casefold()
    counted = NUMBERED.fullmatch(folded.removeprefix("label_"))
    return counted[1] if counted else {"true": "1", "false": "0"}.get(folded, folded)


def is_unnamed(names: Sequence[str]) -> bool:
    """Whether nobody has named the labels: transformers calls them LABEL_0, LABEL_1, …"""
    return list(names) == [f"LABEL_{place}" for place in range(len(names))]


def name_finder(names: Sequence[str]) -> Callable[[str], int | None]:
    """A function from a name as written to its index, None for an unknown one: the rule by which names are compared.

    The name itself is looked up first, then what it means: '1.0' and LABEL_1 find the class '1', 'true' the class
    'True' or '1', 'Pos' the class 'pos', and back. What may mean two names finds none.
    """
    written = [(text_of(name), place) for place, name in enumerate(names)]
    readings: tuple[Callable[[str], str], ...] = (str, plain_name, str.casefold, meaning)
    indices: list[dict[str, int | None]] = []
    for reading in readings:
        index: dict[str, int | None] = {}
        for name, place in written:
            key = reading(name)
            index[key] = place if index.get(key, place) == place else None
        indices.append(index)

    def find(text: str) -> int | None:
        name = text_of(text)
        places = (index.get(reading(name)) for reading, index in zip(readings, indices, strict=True))
        return next((place for place in places if place is not None), None)

    return find


def name_index(names: Sequence[str]) -> Callable[[str], int]:
    """`name_finder`, where the function raises BadLabel, with the nearest name, for an unknown one."""
    place_of = name_finder(names)

    def find(text: str) -> int:
        place = place_of(text)
        if place is None:
            problem = f"label {text!r} is unknown; the task's labels are: {listing(names)}"
            raise BadLabel(f"{problem}.{nearest(text, names)}")
        return place

    return find


def correlation(measure: Callable[..., Any], answers: NDArray[Any], labels: NDArray[Any]) -> float:
    """measure(answers, labels); 0.0 where one side is constant, for which it is undefined."""
    for values in (answers, labels):
        # relative: numbers that differ by rounding only are constant too
        if np.ptp(values) <= 1e-12 * np.abs(values).max():
            return 0.0
    return float(measure(answers, labels))
