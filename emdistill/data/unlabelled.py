"""Text without labels, to learn from beside the labelled rows: read as a stream, tokenised once, memory-mapped.

A text is left out where it stands in a set that is scored or chosen on, in the labelled rows, or further up: case,
punctuation and spaces apart; and where the teacher is a file of answers that has none to it. A text is remembered by
8 bytes of its hash, so memory does not grow with the texts.
"""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features
from numpy.typing import NDArray

from emdistill.data.arrow_files import ROWS_AT_ONCE, trusted_counts, write_rows
from emdistill.data.compressed import plain_path
from emdistill.data.files import Columns, is_hub_name, load_hub, look_at_first, require_columns, text_problem, text_rows
from emdistill.data.glue import GLUE
from emdistill.data.rows import BadRows, Row, check_file
from emdistill.data.tagged_files import SUFFIXES as WORDS_SUFFIXES
from emdistill.data.tagged_files import TOKEN_COLUMNS
from emdistill.data.tagged_words import TOKENS, read_words, words_as_text, words_problem
from emdistill.data.teacher_answers import TeacherAnswers
from emdistill.errors import ConfigError, DataError
from emdistill.files import one_at_a_time, sha256
from emdistill.states import TEACHER_LOGITS
from emdistill.tasks.task import Task

FORMAT = 2
COUNTS = ("read", "scored", "labelled", "unanswered", "repeated", "kept")
HUB_SPLITS = ("unsupervised", "unlabelled", "train")

Texts = tuple[str, ...]  # one text, or the two of a pair
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class UnlabelledText:
    """What is to be read, and where its tokens are kept.

    names    files (of rows or .txt, perhaps compressed) or hub datasets
    columns  of the texts: the first of these that a source has
    words    whether a cell may list the words of a text, and a file have one per line, as those of a tagger
    rows     the number of texts that are kept, after which reading stops
    answers  of a teacher that is a file: what it has not answered is left out
    """

    names: tuple[str, ...]
    columns: tuple[Columns, ...]
    folder: Path
    rows: int | None = None
    answers: TeacherAnswers | None = None
    words: bool = False

    def digests(self) -> dict[str, str]:
        """What was read, by name -> a hash of its content. Raises DataError where it is not there."""
        return {name: _digest(name) for name in self.names}


def unlabelled_text(
    names: str, task: Task, given: Columns, folder: Path, rows: int | None, answers: TeacherAnswers | None = None
) -> UnlabelledText:
    """The text that --unlabelled names, for a task.

    names   separated by commas
    given   --text and --text-pair: of a task with columns of its own they may name others
    rows, answers   as of UnlabelledText
    Raises ConfigError where nothing is named, DataError for a file that is not there.
    """
    named = tuple(filter(None, map(str.strip, names.split(","))))
    if not named:
        raise ConfigError("--unlabelled names no file")
    choices = [Columns(task.text, task.text_pair), *([GLUE[task.name].columns] if task.name in GLUE else [])]
    choices += [given] if len(given.texts) == len(choices[0].texts) else []
    words = "words" in task.kind.columns and task.text_pair is None
    choices += [Columns(name) for name in TOKEN_COLUMNS if words]
    text = UnlabelledText(named, tuple(choices), folder, rows, answers, words)
    text.digests()
    return text


def unlabelled_dataset(
    text: UnlabelledText,
    *,
    scored: Iterable[Dataset],
    labelled: Dataset,
    task: Task,
    encode: Callable[[Dataset], Dataset],
    features: Features,
    key: str,
) -> tuple[Dataset, dict[str, int]]:
    """The encoded texts, memory-mapped, and COUNTS: read, left out for four reasons, and kept.

    scored     sets that are scored or chosen on, labelled: rows that are learned from; columns `text`, `text_pair`
    task       whose kind says what stands for the labels, and how a text is cut into words
    encode     rows with `text`, `text_pair`, `label` and, of a file of answers, TEACHER_LOGITS -> rows of `features`
    key        of all that decides what `encode` does
    Encoded once and kept in `text.folder`. Of two runs at once one writes and the other waits; a crash leaves nothing
    that is taken for the rows.
    Raises DataError for files and rows that cannot be used, and where no text is left.
    """
    apart, known = hashes_of_rows(scored), hashes_of_rows([labelled])
    absent = task.kind.absent(task.outputs)
    decides = [FORMAT, [*text.digests().values()], text.columns, text.rows, key, repr(features), repr(absent)]
    decides += [task.words] * (task.words is not None)
    digest = hashlib.sha256(json.dumps(decides).encode())
    if text.answers is not None:
        digest.update(text.answers.sha256.encode() + text.answers.logits.tobytes())  # one file, read as another task's
    for hashes in (apart, known):
        digest.update(len(hashes).to_bytes(8, "big") + hashes.tobytes())
    file = text.folder / f"unlabelled-{digest.hexdigest()[:16]}.arrow"
    schema = features.arrow_schema
    counts = Counter(dict.fromkeys(COUNTS, 0))

    def batches() -> Iterator[pa.RecordBatch]:
        for chunk in kept_texts(text, Seen(apart), Seen(known), counts):
            table = encode(_rows(chunk, task, text.answers)).data.table.select(schema.names).cast(schema)
            yield from table.combine_chunks().to_batches()

    try:
        text.folder.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(file.with_suffix(".lock"), f"the tokens of {', '.join(text.names)}"):
            if (found := trusted_counts(file)) is None:
                write_rows(file, schema, batches(), counts)
                found = dict(counts)
    except OSError as error:
        raise DataError(f"the tokens of the unlabelled text cannot be kept here: {error}", file=text.folder) from error
    if not found["kept"]:
        raise DataError(f"no text is left to learn from: {texts_kept(found)}", file=", ".join(text.names))
    return Dataset.from_file(str(file)), found


def every_nth_text(text: UnlabelledText, number: int, scored: Iterable[Dataset]) -> Iterator[Texts]:
    """The first of every `number` texts that stay; errors as of `unlabelled_dataset`."""
    apart = Seen(hashes_of_rows(scored))
    return islice(chain.from_iterable(kept_texts(text, apart, Seen(), Counter())), 0, None, number)


def texts_kept(counts: Mapping[str, int], use: str = "learned from") -> str:
    """The counts for people."""
    reasons = {
        "scored": "in the sets that are scored or chosen on",
        "labelled": "among the labelled rows",
        "unanswered": "without an answer of the teacher",
        "repeated": "repeated",
    }
    left_out = [f"{counts[name]:,} {reason}" for name, reason in reasons.items() if counts[name]]
    kept = f"{counts['kept']:,} of {counts['read']:,} texts without labels are {use}"
    return f"{kept}; left out: {', '.join(left_out)}" if left_out else kept


class Seen:
    """A set of 64-bit hashes in one sorted array."""

    def __init__(self, hashes: Hashes | None = None) -> None:
        self._sorted = np.empty(0, np.uint64) if hashes is None else hashes

    def has(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Which of these are in the set."""
        places = np.minimum(self._sorted.searchsorted(hashes), len(self._sorted) - 1)
        return self._sorted[places] == hashes if len(self._sorted) else np.zeros(len(hashes), dtype=bool)

    def add(self, hashes: Hashes) -> None:
        """Add hashes that are not in the set."""
        self._sorted = np.sort(np.concatenate([self._sorted, hashes]), kind="stable")  # merges two sorted runs


def kept_texts(text: UnlabelledText, scored: Seen, labelled: Seen, counts: Counter[str]) -> Iterator[list[Texts]]:
    """The texts that stay, chunk by chunk; adds to `counts`. Raises DataError for rows that cannot be used."""
    repeated = Seen()
    for chunk in chain.from_iterable(_chunks(name, text) for name in text.names):
        hashes = text_hashes(chunk)
        answered = np.ones(len(chunk), dtype=bool) if text.answers is None else _answers(chunk, text.answers)[1]
        first = np.zeros(len(chunk), dtype=bool)
        places = np.flatnonzero(answered)
        first[places[np.unique(hashes[places], return_index=True)[1]]] = True
        left_out = [scored.has(hashes), labelled.has(hashes), ~answered, repeated.has(hashes) | ~first]
        reasons = np.select(left_out, range(len(left_out)), len(left_out))
        places = np.flatnonzero(reasons == len(left_out))
        end = len(chunk)
        if text.rows is not None and len(places) >= text.rows - counts["kept"]:
            places = places[: text.rows - counts["kept"]]
            end = int(places[-1]) + 1
        numbers = np.bincount(reasons[:end], minlength=len(left_out) + 1).tolist()
        counts.update(dict(zip(COUNTS, [end, *numbers], strict=True)))
        repeated.add(np.sort(hashes[places]))
        if len(places):
            yield [chunk[place] for place in places]
        if counts["kept"] == text.rows:
            return


def _chunks(name: str, text: UnlabelledText) -> Iterator[list[Texts]]:
    """The checked texts of a source; raises DataError with the lines of rows that cannot be used."""
    bad, choices, source = BadRows(name), text.columns, Path(name)
    first, rows = look_at_first(_source_rows(name, text, bad), bad)
    problem_of: Callable[[Row, str], str] = partial(words_problem, source=source) if text.words else text_problem
    read: Callable[[Any], str] = partial(words_as_text, source=source) if text.words else str
    columns = next((choice for choice in choices if first.cells.keys() >= {*choice.texts}), choices[0])
    require_columns(first, columns.texts, name)
    while chunk := list(islice(rows, ROWS_AT_ONCE)):
        for row in chunk:
            if problems := [problem for column in columns.texts if (problem := problem_of(row, column))]:
                bad.add(row.line, "; ".join(problems))
        bad.check()
        yield [tuple(read(row.cells[column]) for column in columns.texts) for row in chunk]
    bad.check()


def _source_rows(name: str, text: UnlabelledText, bad: BadRows) -> Iterator[Row]:
    path, columns = Path(name), text.columns[0]
    if is_hub_name(name):
        return (Row(line, cells) for line, cells in enumerate(_hub_split(name), start=1))
    if text.words and plain_path(path).suffix.lower() in WORDS_SUFFIXES:
        words = read_words(path, columns.text if columns.text.isdecimal() else None)
        return (Row(row.line, {columns.text: row.cells[TOKENS]}) for row in words.rows)
    return text_rows(path, columns, bad)


def _hub_split(name: str) -> Dataset:
    splits = load_hub(name)
    for split in HUB_SPLITS:
        if split in splits:
            return splits[split]
    raise DataError(f"there is none of the splits {', '.join(HUB_SPLITS)}; there are: {', '.join(splits)}", file=name)


def _digest(name: str) -> str:
    if is_hub_name(name):
        return str(_hub_split(name)._fingerprint)
    path = Path(name)
    check_file(path)
    status = path.stat()
    return _file_digest(path, status.st_size, status.st_mtime_ns)


@lru_cache
def _file_digest(path: Path, size: int, changed: int) -> str:
    """SHA-256; read once for all runs of a comparison, as long as size and time of change stay."""
    return sha256(path)


class _WordCharacters(dict[int, int]):
    """For str.translate: letters, marks and digits of all scripts stay, everything else becomes a space."""

    def __missing__(self, character: int) -> int:
        self[character] = character if unicodedata.category(chr(character))[0] in "LMN" else ord(" ")
        return self[character]


_WORD_CHARACTERS = _WordCharacters()


def normalised(text: str) -> str:
    """Words alone, in one case and Unicode's NFKC form; a text without words stays as it is."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.translate(_WORD_CHARACTERS).split()) or text.strip()


def text_hashes(texts: Iterable[Texts]) -> Hashes:
    """64 bits of each text's hash, or of a pair's."""
    digests = (hashlib.blake2b("\0".join(map(normalised, each)).encode(), digest_size=8).digest() for each in texts)
    return np.fromiter((int.from_bytes(digest, "big") for digest in digests), dtype=np.uint64)


def hashes_of_rows(parts: Iterable[Dataset]) -> Hashes:
    """The hashes of all their texts (columns `text`, `text_pair`), sorted, each once."""
    return np.unique(np.concatenate([np.empty(0, np.uint64), *map(hashes_of_texts, parts)]))


def hashes_of_texts(rows: Dataset) -> Hashes:
    """The hashes of the rows' texts (columns `text`, `text_pair`), in their order."""
    return text_hashes(zip(*(rows[name] for name in ("text", "text_pair") if name in rows.column_names), strict=True))


def _answers(texts: Sequence[Texts], answers: TeacherAnswers) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Logits [n, C], and which of n texts have them [n]."""
    return answers.answers_of(*zip(*texts, strict=True))


def _rows(texts: Sequence[Texts], task: Task, answers: TeacherAnswers | None) -> Dataset:
    columns: dict[str, Any] = dict(zip(("text", "text_pair"), map(list, zip(*texts, strict=True)), strict=False))
    columns |= task.kind.further(columns, task.words)
    columns["label"] = [task.kind.absent(task.outputs)] * len(texts)
    if answers is not None:
        columns[TEACHER_LOGITS] = _answers(texts, answers)[0].tolist()
    return Dataset.from_dict(columns)
