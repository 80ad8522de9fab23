"""A teacher's answers in a file: what a large model, an ensemble or a service has answered, looked up by the text.

A row has the text (and the second of a pair) and the answer. Of the columns below the first that the file has is read:

    logits                            a list in the task's order of labels, or an object {label: number}
    probabilities                     likewise
    probability of NAME, or probability_NAME, or NAME    a column per label; of several scores: score of NAME, or NAME
    prediction or label, and probability or score        the likeliest label, and its probability; others share the rest
    prediction, score, or the label's column             a label, taken as certain; of scores the score

A predictions.jsonl of a run is read too: its column `teacher` holds logits, in the order of labels that the run.json
beside it says. CSV and TSV hold lists and objects as JSON. Labels are named as tasks.kind.name_finder finds them.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset, Features, List, Value
from numpy.typing import NDArray

from emdistill.data.arrow_files import chunk_by_chunk
from emdistill.data.compressed import plain_path
from emdistill.data.files import file_classes, in_words, text_problems, with_list
from emdistill.data.rows import SUFFIXES, BadRows, data_file, read_rows
from emdistill.errors import DataError, listing, nearest, shown
from emdistill.states import TEACHER_LOGITS
from emdistill.tasks.answers import as_logits, probabilities
from emdistill.tasks.columns import text_columns
from emdistill.tasks.kind import BadLabel, Cell, check_one_answer, name_finder, name_index, number, text_of
from emdistill.tasks.task import Task
from emdistill.values import read_values, typed

PER_LABEL = ("probability of {}", "probability_{}", "{}")
PER_SCORE = ("score of {}", "{}")
RUN_FILE = "run.json"  # of a run folder
OF_A_RUN = {"set", "row", "teacher", "student"}  # columns of predictions.jsonl
SUMS_TO_ONE = 0.02  # probabilities whose sum is off by no more are divided by it
SAME = 1e-3  # answers to one text that differ by no more are one answer

Vector = NDArray[np.float64]
ReadCells = Callable[[Sequence[Cell]], Vector]


def is_answers_file(teacher: str) -> bool:
    """Whether a teacher is named by a file of rows, and not by a folder or hub id."""
    return plain_path(Path(teacher)).suffix.lower() in SUFFIXES and not Path(teacher).is_dir()


class Layout(NamedTuple):
    """How a file says its answers: in which columns, what makes logits of their cells, and what a user should know."""

    columns: Sequence[str]
    read: ReadCells
    note: str = ""


@dataclass(frozen=True)
class TeacherAnswers:
    """Logits by text.

    logits     [texts, C], float32, in the task's order of labels
    places     a text's key -> its row of logits
    rows       of the file
    notes      how the answers were understood, where that is not plain
    """

    path: Path
    sha256: str
    rows: int
    logits: NDArray[np.float32]
    places: Mapping[bytes, int]
    notes: tuple[str, ...] = ()

    def answers_of(self, texts: Iterable[Sequence[str]]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Logits [n, C] of the answers to n texts, or pairs, and which of them have one [n]; elsewhere logits are 0."""
        places = np.array([self.places.get(_key(each), -1) for each in texts], dtype=np.int64)
        answered = places >= 0
        logits = np.zeros((len(places), self.logits.shape[1]), dtype=np.float32)
        logits[answered] = self.logits[places[answered]]
        return logits, answered

    def of(self, examples: Dataset) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """`answers_of` for the columns `text` and, of pairs, `text_pair`."""
        return self.answers_of(zip(*text_columns(examples), strict=True))

    def beside(self, examples: Dataset) -> Dataset:
        """The examples with the column TEACHER_LOGITS: the logits of each row, None where it has no answer."""
        features = Features({**examples.features, TEACHER_LOGITS: List(Value("float32"))})

        def answered(rows: Dataset) -> Dataset:
            answers = zip(*self.of(rows), strict=True)
            column = [logits.tolist() if there else None for logits, there in answers]
            return Dataset.from_dict({**rows.to_dict(), TEACHER_LOGITS: column}, features=features)

        return chunk_by_chunk(examples, answered)


def answered_rows(examples: Dataset) -> Dataset:
    """The rows that have an answer; all of them where the teacher is a model.

    Raises DataError where none is left.
    """
    if TEACHER_LOGITS not in examples.column_names:
        return examples
    places = [place for place, logits in enumerate(examples[TEACHER_LOGITS]) if logits is not None]
    if not places:
        raise DataError(
            f"none of the {len(examples):,} rows to learn from has an answer of the teacher: the texts of --teacher "
            "must be those of --data, letter by letter"
        )
    return examples if len(places) == len(examples) else examples.select(places)


def read_teacher_answers(path: Path, task: Task) -> TeacherAnswers:
    """The answers to a task's question; raises DataError with file and line for what is no answer to it.

    Several answers to one text become the mean of their probabilities; a row whose answer is empty has none.
    """
    check_one_answer(task.kind, f"--teacher {path}, a file of answers,")
    bad, unreadable = BadRows(path), BadRows(path)
    columns = dict.fromkeys(name for row in read_rows(path, unreadable) for name in row.cells)
    if not columns:
        unreadable.check()
    texts = _text_columns(list(columns), task, path)
    layout = _find_layout(list(columns), task, path)
    collected, classes = _Collected(task), file_classes(path)
    for row in read_rows(path, bad):
        if problem := text_problems(row, texts):
            bad.add(row.line, problem)
            continue
        cells = [in_words(row.cells.get(name), classes.get(name, ())) for name in layout.columns]
        if all(cell is None or cell == "" for cell in cells):
            collected.empty += 1
            continue
        try:
            collected.add(_key([row.cells[name] for name in texts]), layout.read(cells))
        except BadLabel as error:
            bad.add(row.line, str(error))
    bad.check()
    if not collected.logits:
        raise DataError(f"no row has an answer in {listing(layout.columns)}", file=path)
    logits, notes = collected.finish()
    notes = [*([layout.note] if layout.note else []), *notes]
    file = data_file(path, sum(collected.repeats.values()) + collected.empty)
    named = tuple(f"{path.name}: {note}" for note in notes)
    return TeacherAnswers(path, file.sha256, file.rows, logits, collected.places, named)


@dataclass
class _Collected:
    """Answers as they are read; the further answers to a text are kept until their mean is taken."""

    task: Task
    places: dict[bytes, int] = field(default_factory=dict)
    logits: list[NDArray[np.float32]] = field(default_factory=list)
    further: dict[int, list[Vector]] = field(default_factory=dict)
    repeats: Counter[int] = field(default_factory=Counter)
    empty: int = 0

    def add(self, key: bytes, logits: Vector) -> None:
        """Raises BadLabel for numbers that are infinite in float32."""
        if np.abs(logits).max() > np.finfo(np.float32).max:
            raise BadLabel(f"the answer {logits.tolist()} holds a number beyond 3e38, which is infinite for a model")
        place = self.places.setdefault(key, len(self.logits))
        self.repeats[place] += 1
        if place == len(self.logits):
            self.logits.append(logits.astype(np.float32))
        elif not np.array_equal(self.logits[place], logits.astype(np.float32)):
            self.further.setdefault(place, [self._shares(self.logits[place])]).append(self._shares(logits))

    def finish(self) -> tuple[NDArray[np.float32], list[str]]:
        """Logits [texts, C], and what a user should know."""
        contradicting = 0
        for place, answers in self.further.items():
            if np.allclose(answers, answers[0], rtol=SAME, atol=SAME):
                continue  # the first stands, with logits as they were given
            contradicting += 1
            times = self.repeats[place] - len(answers) + 1  # that the first was given
            mean = np.average(answers, axis=0, weights=[times, *[1] * (len(answers) - 1)])
            self.logits[place] = as_logits(mean, self.task.kind.link).astype(np.float32)
        notes = [f"{self.empty:,} rows have no answer"] if self.empty else []
        if contradicting:
            what = "scores" if self.task.kind.link == "identity" else "probabilities"
            notes.append(f"{contradicting:,} texts have answers that contradict each other; the mean of their {what}")
            notes[-1] += " is taken"
        return np.stack(self.logits), notes

    def _shares(self, logits: NDArray[Any]) -> Vector:
        return probabilities(logits.astype(np.float64), self.task.kind.link)


def _key(texts: Iterable[str]) -> bytes:
    """What a text, or a pair, is found by: its letters, without the white space around them."""
    written = json.dumps([text.strip() for text in texts])  # in ASCII, half of a surrogate pair as well
    return hashlib.blake2b(written.encode(), digest_size=16).digest()


def _text_columns(names: Sequence[str], task: Task, path: Path) -> list[str]:
    """The columns of the texts, called as in the data, or `text` and `text_pair`."""
    wanted = {"text": task.text} | ({} if task.text_pair is None else {"text_pair": task.text_pair})
    if all(name in names for name in wanted.values()):
        return list(wanted.values())
    if all(name in names for name in wanted):
        return list(wanted)
    lacking = next(name for name in wanted.values() if name not in names)
    problem = f"column {lacking!r} is not in {path.name}; its columns are: {listing(names)}."
    raise DataError(f"{problem}{nearest(lacking, names)} Texts are called as in --data: --text, --text-pair", file=path)


def _find_layout(names: Collection[str], task: Task, path: Path) -> Layout:
    """The first layout whose columns are all there; raises DataError where none is."""
    reader = _CellReader(task)
    is_score = task.kind.link == "identity"
    certain = "" if is_score else "labels are taken as certain: probability 1 - 1e-6"
    likeliest = "one label's probability is given; the rest is spread evenly over the others"
    one = likeliest if len(task.labels) > 2 else ""
    layouts = [Layout(["logits"], reader.logits), Layout(["probabilities"], reader.probabilities)]
    if set(names) >= OF_A_RUN:
        layouts.append(
            Layout(["teacher"], reader.in_order_of(_labels_of_run(path, task)) if task.labels else reader.logits)
        )
    if task.labels:
        layouts += [Layout(columns, reader.columns) for columns in _columns_per_label(names, task, path)]
    for name in ("prediction", "label"):
        if task.kind.link == "softmax":
            layouts += [Layout([name, share], reader.likeliest, one) for share in ("probability", "score")]
        layouts += [Layout([name], reader.label, certain)] * (name == "prediction")
    layouts += [Layout([name], reader.label, certain) for name in (*(["score"] * is_score), task.label, "label")]
    if (layout := next((layout for layout in layouts if set(layout.columns) <= set(names)), None)) is None:
        raise DataError(
            f"there is no column of answers; name it logits, probabilities, prediction or {task.label}, or have a "
            f"column probability_NAME per label; the columns are: {listing(names)}",
            file=path,
        )
    return layout


def _columns_per_label(names: Collection[str], task: Task, path: Path) -> list[list[str]]:
    """The columns of each layout with one per label, in the task's order.

    Raises DataError for a probability, or a score, of a label that the task does not know, and of some labels alone.
    """
    find, forms = name_finder(task.labels), []
    for each in PER_SCORE if task.kind.link == "identity" else PER_LABEL:
        prefix = each.format("")
        labels = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        labels.sort(key=lambda label: label in task.labels)  # so that the name itself counts, and not what means it
        columns = {place: label for label in labels if (place := find(label)) is not None}
        if prefix and labels and (odd := sorted({*labels} - {*columns.values()})):
            problem = f"{odd[0]!r} is none of the task's labels {listing(task.labels)}, or stands for one twice"
            raise DataError(f"{prefix}{odd[0]}: {problem}", file=path)
        if prefix and labels and (absent := [name for at, name in enumerate(task.labels) if at not in columns]):
            problem = f"{absent[0]!r} has no column, of the task's labels {listing(task.labels)}"
            raise DataError(f"{prefix}{absent[0]}: {problem}", file=path)
        if len(columns) == len(task.labels):
            forms.append([each.format(columns[place]) for place in range(len(task.labels))])
    return forms


def _labels_of_run(path: Path, task: Task) -> list[str]:
    """The labels of the run whose predictions these are, in the order of its logits; raises DataError."""
    record = path.with_name(RUN_FILE)
    try:
        labels = typed(read_values(record)["task"]["labels"], list[str])
    except (ValueError, LookupError, TypeError) as error:
        problem = f"the order of a run's logits stands in its {RUN_FILE}, which cannot be read here ({error})"
        raise DataError(f"{problem}; copy {RUN_FILE} beside this file", file=path) from None
    places = {place for place in map(name_finder(task.labels), labels) if place is not None}
    if not len(places) == len(labels) == len(task.labels):
        problem = f"the run's labels are {listing(labels)}, those of the data {listing(task.labels)}"
        raise DataError(f"{problem}; take the predictions of a run on this task", file=record)
    return labels


class _CellReader:
    """Cells to logits [C] of one task; every method raises BadLabel for what is no answer."""

    def __init__(self, task: Task) -> None:
        self.names, self.link = task.labels, task.kind.link
        self.width = task.outputs
        self._find = name_index(task.labels)
        self._encode = task.kind.encoder(task.labels)

    def logits(self, cells: Sequence[Cell]) -> Vector:
        return self._vector(cells[0])

    def in_order_of(self, labels: Sequence[str]) -> ReadCells:
        """A reader of logits that stand in the order of these labels."""

        def read(cells: Sequence[Cell]) -> Vector:
            return self._vector(dict(zip(labels, self._vector(cells[0]).tolist(), strict=True)))

        return read

    def probabilities(self, cells: Sequence[Cell]) -> Vector:
        return self._of_shares(self._vector(cells[0]))

    def columns(self, cells: Sequence[Cell]) -> Vector:
        """A probability, or a score, per label, in the task's order."""
        return self._of_shares(np.array([_finite(cell) for cell in cells]))

    def label(self, cells: Sequence[Cell]) -> Vector:
        label = self._encode(with_list(cells[0]))
        shares = self._one_hot(label) if self.link == "softmax" else np.atleast_1d(np.asarray(label, dtype=np.float64))
        if np.isnan(shares).any():
            raise BadLabel(f"{shown(cells[0])} has no number for some of {listing(self.names)}")
        return as_logits(shares, self.link)

    def likeliest(self, cells: Sequence[Cell]) -> Vector:
        """One class and its probability."""
        share = _finite(cells[1])
        least = 1 / self.width  # below it another label would be likelier; rounded, it may be a little less
        if not least * (1 - SAME) <= share <= 1:
            raise BadLabel(
                f"the probability is {share:g}; that of the likeliest of {self.width} labels lies between {least:.3g} "
                "and 1: give the likeliest label, or a probability of each"
            )
        share = max(share, least)
        chosen = self._one_hot(self._encode(cells[0]))
        return as_logits(np.where(chosen > 0, share, (1 - share) / (self.width - 1)), self.link)

    def _one_hot(self, index: Any) -> Vector:
        return np.asarray(np.arange(self.width) == index, dtype=np.float64)

    def _of_shares(self, shares: Vector) -> Vector:
        if self.link == "identity":
            return shares
        if shares.min() < 0 or shares.max() > 1 + SUMS_TO_ONE:
            raise BadLabel(f"the probabilities {shares.tolist()} do not lie between 0 and 1; are they logits?")
        if self.link == "softmax":
            if abs(shares.sum() - 1) > SUMS_TO_ONE:
                raise BadLabel(f"the probabilities {shares.tolist()} sum to {shares.sum():.4g}, not to 1")
            shares = shares / shares.sum()
        return as_logits(np.minimum(shares, 1.0), self.link)

    def _vector(self, cell: Cell) -> Vector:
        """The numbers of a list, of an object by label, or of either written in a cell of text."""
        if isinstance(cell := with_list(cell), str) and number(cell) is None:
            raise BadLabel(f"{shown(cell)} is no list or object of numbers")
        if isinstance(cell, Mapping) and self.names:
            numbers: list[Cell] = [None] * self.width
            for name, value in cell.items():
                numbers[self._find(str(name))] = value
            if lacking := [name for name, value in zip(self.names, numbers, strict=True) if value is None]:
                raise BadLabel(f"{shown(cell)} has no number for {listing(lacking)}")
            cell = numbers
        cell = cell if isinstance(cell, list | tuple) else [cell]
        if len(cell) != self.width:
            order = listing(self.names) or "the score"
            raise BadLabel(f"{shown(cell)} holds {len(cell)} numbers, where {self.width} are needed: {order}")
        return np.array([_finite(value) for value in cell])


def _finite(cell: Cell) -> float:
    value = number(text_of(cell)) if not isinstance(cell, list | tuple | dict) else None
    if value is None:
        raise BadLabel(f"{shown(cell)} is no finite number")
    return value
