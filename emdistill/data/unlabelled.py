"""Text without labels, to learn from beside the labelled rows: read as a stream, tokenised once, memory-mapped.

A text is left out where it stands in a set that is scored or chosen on, in the labelled rows, or further up: case,
punctuation and spaces apart; and where the teacher is a file of answers that has none to it. A text is remembered by
8 bytes of its hash, so memory does not grow with the texts.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features

from emdistill.data.arrow_files import ROWS_AT_ONCE, keep_rows
from emdistill.data.data_sets import digest, is_data_set, load_splits, split_rows
from emdistill.data.files import Columns, look_at_first, require_columns, text_problems
from emdistill.data.form import Form
from emdistill.data.read import form_of_task
from emdistill.data.rows import BadRows, check_file
from emdistill.data.teacher_answers import TeacherAnswers
from emdistill.data.text_hashes import Seen, Texts, hashes_of_rows, text_hashes
from emdistill.errors import ConfigError, DataError
from emdistill.files import matching, sha256
from emdistill.states import TEACHER_LOGITS
from emdistill.tasks.columns import columns_of
from emdistill.tasks.task import Task

FORMAT = 2
COUNTS = ("read", "scored", "labelled", "unanswered", "repeated", "kept")
HUB_SPLITS = ("unsupervised", "unlabelled", "train")


@dataclass(frozen=True)
class UnlabelledText:
    """What is to be read, and where its tokens are kept.

    names    files (of rows or .txt, perhaps compressed) or hub datasets
    columns  of the texts: the first of these that a source has
    form     by which files and cells are read
    rows     the number of texts that are kept, after which reading stops
    answers  of a teacher that is a file: what it has not answered is left out
    """

    names: tuple[str, ...]
    columns: tuple[Columns, ...]
    form: Form
    folder: Path
    rows: int | None = None
    answers: TeacherAnswers | None = None

    def digests(self) -> dict[str, str]:
        """What was read, by name -> a hash of its content. Raises DataError where it is not there."""
        return {name: _digest(name) for name in self.names}


def sources(names: str) -> tuple[str, ...]:
    """What is named, separated by commas; a pattern, such as texts/*.txt, names the files that it fits, in their order.

    Raises ConfigError where nothing is named.
    """
    named = tuple(filter(None, map(str.strip, names.split(","))))
    if not named:
        raise ConfigError("--unlabelled names no file")
    return tuple(file for name in named for file in matching(name) or [name])


def unlabelled_text(
    names: str, task: Task, given: Columns, folder: Path, rows: int | None, answers: TeacherAnswers | None = None
) -> UnlabelledText:
    """The text that --unlabelled names, for a task.

    names   as `sources` reads them
    given   --text and --text-pair: of a task with columns of its own they may name others
    rows, answers   as of UnlabelledText
    Raises ConfigError as `sources`, DataError for a file that is not there.
    """
    form, own = form_of_task(task), Columns(task.text, task.text_pair)
    choices = (own, *([given] if len(given.texts) == len(own.texts) else []), *form.text_columns(task))
    text = UnlabelledText(sources(names), choices, form, folder, rows, answers)
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

    def batches() -> Generator[pa.RecordBatch, None, None]:
        for chunk in kept_texts(text, Seen(apart), Seen(known), counts):
            table = encode(_rows(chunk, task, text.answers)).data.table.select(schema.names).cast(schema)
            yield from table.combine_chunks().to_batches()

    found = keep_rows(file, schema, batches(), counts, f"the tokens of {', '.join(text.names)}")
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


def kept_texts(text: UnlabelledText, scored: Seen, labelled: Seen, counts: Counter[str]) -> Iterator[list[Texts]]:
    """The texts that stay, chunk by chunk; adds to `counts`. Raises DataError for rows that cannot be used."""
    repeated = Seen()
    for chunk in chain.from_iterable(_chunks(name, text) for name in text.names):
        hashes = text_hashes(chunk)
        answered = np.ones(len(chunk), dtype=bool) if text.answers is None else text.answers.answers_of(chunk)[1]
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
    source_rows = (
        split_rows(_unlabelled_split(name)) if is_data_set(name) else text.form.text_rows(source, choices[0], bad)
    )
    first, rows = look_at_first(source_rows, bad)
    columns = next((choice for choice in choices if first.cells.keys() >= {*choice.texts}), choices[0])
    require_columns(first, columns.texts, name)
    while chunk := list(islice(rows, ROWS_AT_ONCE)):
        for row in chunk:
            if problem := text_problems(row, columns.texts, partial(text.form.text_problem, file=source)):
                bad.add(row.line, problem)
        bad.check()
        yield [tuple(text.form.text(row.cells[column], source) for column in columns.texts) for row in chunk]
    bad.check()


def _unlabelled_split(name: str) -> Dataset:
    splits = load_splits(name)
    for split in HUB_SPLITS:
        if split in splits:
            return splits[split]
    raise DataError(f"there is none of the splits {', '.join(HUB_SPLITS)}; there are: {', '.join(splits)}", file=name)


def _digest(name: str) -> str:
    if is_data_set(name):
        return digest(_unlabelled_split(name))
    path = Path(name)
    check_file(path)
    status = path.stat()
    return _file_digest(path, status.st_size, status.st_mtime_ns)


@lru_cache
def _file_digest(path: Path, size: int, changed: int) -> str:
    """SHA-256; read once for all runs of a comparison, as long as size and time of change stay."""
    return sha256(path)


def _rows(texts: Sequence[Texts], task: Task, answers: TeacherAnswers | None) -> Dataset:
    columns: dict[str, Any] = dict(columns_of(texts))
    columns |= task.kind.further(columns, task.words)
    columns["label"] = [task.kind.absent(task.outputs)] * len(texts)
    if answers is not None:
        columns[TEACHER_LOGITS] = answers.answers_of(texts)[0].tolist()
    return Dataset.from_dict(columns)
