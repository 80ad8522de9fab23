"""TinyBERT's data augmentation: words replaced by candidates, and the file in which the variants are kept.

models/word_candidates.py finds the candidates of a word; here they are drawn. A word that carries meaning is replaced
with probability 0.4 by one of its candidates; of a pair one side is altered. Variants are labelled by the teacher and
go to one JSON Lines file, a header first.

Source: TinyBERT (Jiao et al., Findings EMNLP 2020), section 4.2 and appendix. Its code pairs an altered second text
with the *last altered* first text; here the other side is the original. It makes N variants of each side of a pair;
here N is the number per pair, the sides taking turns.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, Value

from emdistill.data.files import text_problems
from emdistill.data.rows import BadRows, read_rows
from emdistill.errors import DataError, listing, shown
from emdistill.files import written_whole
from emdistill.tasks.columns import TEXTS, text_columns
from emdistill.tasks.kind import BadLabel
from emdistill.tasks.task import TaskData

FORMAT = "emdistill augmented rows, version 1"

# Letters, digits and combining accents, joined by apostrophes: "don't" is one word, which is never replaced.
WORD = re.compile(r"([\w\u0300-\u036f]+(?:['’][\w\u0300-\u036f]+)*)")
LETTERS = re.compile(r"[a-z]{2,}")  # single letters are mostly parts of contractions, initials and lists

# English function words: they carry grammar, and some (not, no, nor) reverse the meaning.
FUNCTION_WORDS = (
    "an the this that these those each every either neither both all any some such no none not nor only own same",
    "me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers",
    "herself it its itself they them their theirs themselves one ones who whom whose which what whatever whoever",
    "am is are was were be been being have has had having do does did doing done can could will would shall should",
    "may might must ought cannot ca wo ain don didn doesn isn aren wasn weren hasn haven hadn wouldn couldn shouldn",
    "ll re ve nt and or but if then than because as while until since unless although though whether so yet",
    "of at by for with without about against between among into onto through throughout during before after above",
    "below to from up down in out on off over under upon within across toward towards per via again further once",
    "here there when where why how too very just also even still now ever never more most less least few many much",
    "other others another",
)
STOP_WORDS = frozenset(word for line in FUNCTION_WORDS for word in line.split())

Candidates = Mapping[int, Sequence[str]]
Side = tuple[Sequence[str], Candidates]


@dataclass(frozen=True)
class Variant:
    """A training row with some words replaced.

    row       the row's number in TaskData.train
    texts     one text, or the two of a pair
    side      which of them was altered
    replaced  how many of its `words` were replaced
    """

    row: int
    texts: tuple[str, ...]
    side: int
    replaced: int
    words: int


def split_words(text: str) -> list[str]:
    """Words, at the odd places, and what stands between them; joined they are the text."""
    return WORD.split(text)


def replaceable(pieces: Sequence[str]) -> list[int]:
    """The places of the words that may be replaced: two letters or more, a-z in any case, no stop word."""
    words = ((place, pieces[place].lower()) for place in range(1, len(pieces), 2))
    return [place for place, word in words if LETTERS.fullmatch(word) and word not in STOP_WORDS]


def augment_text(
    pieces: Sequence[str], candidates: Candidates, generator: np.random.Generator, replace: float = 0.4
) -> list[str]:
    """The same pieces, each word that has candidates replaced with probability `replace` by one of them.

    An initial capital is kept. All candidates of a word are equally probable.
    """
    altered = list(pieces)
    for place in sorted(candidates):
        if generator.random() < replace:
            chosen = candidates[place][int(generator.integers(len(candidates[place])))]
            altered[place] = chosen[0].upper() + chosen[1:] if pieces[place][0].isupper() else chosen
    return altered


def augment_row(row: int, sides: Sequence[Side], *, copies: int, replace: float, seed: int) -> list[Variant]:
    """At most `copies` different variants of a row, none of them the row itself; a function of (seed, row) alone.

    sides   one text or the two of a pair: its pieces, and the candidates by place
    The sides of a pair take turns; a side without candidates leaves its turns to the other.
    """
    generator = np.random.default_rng((seed, row))
    original = tuple("".join(pieces) for pieces, _ in sides)
    open_sides = [side for side, (_, candidates) in enumerate(sides) if candidates]
    variants: dict[tuple[str, ...], Variant] = {}
    for copy in range(copies if open_sides else 0):
        side = open_sides[(row + copy) % len(open_sides)]
        pieces, candidates = sides[side]
        altered = augment_text(pieces, candidates, generator, replace)
        texts = (*original[:side], "".join(altered), *original[side + 1 :])
        if texts != original and texts not in variants:
            replaced = sum(before != after for before, after in zip(pieces, altered, strict=True))
            variants[texts] = Variant(row, texts, side, replaced, len(pieces) // 2)
    return list(variants.values())


def train_texts(data: TaskData) -> list[tuple[str, ...]]:
    """The text, or the two texts, of every training row."""
    return list(zip(*text_columns(data.train), strict=True))


def describe_train(data: TaskData) -> dict[str, Any]:
    """What a file of variants is bound to: the kind of task, and the training texts in their order.

    The hash does not depend on the format or the name of the rows' file.
    """
    digest = hashlib.sha256()
    for texts in train_texts(data):
        digest.update(json.dumps(texts).encode() + b"\n")
    task = data.task
    return {
        "task": {"name": task.name, "kind": task.kind.name, "labels": list(task.labels)},
        "train": {"rows": len(data.train), "sha256": digest.hexdigest()},
    }


def write_augmented(path: Path, header: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> None:
    """The header, then one row per line (`row`, `text`, `text_pair` of a pair, `label`); whole or not at all."""
    with written_whole(path) as part, part.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"format": FORMAT, **header}, ensure_ascii=False) + "\n")
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_header(path: Path) -> dict[str, Any]:
    """The header of a file of variants; raises DataError for any other file."""
    if path.is_file() and path.suffix.lower() not in (".jsonl", ".json"):
        raise DataError("augmented rows are JSON Lines, in a file named .jsonl", file=path)
    first = next(read_rows(path, BadRows(path)), None)
    header = {} if first is None else first.cells
    sections = [header.get(name, {}) for name in ("task", "train", "settings")]
    if header.get("format") != FORMAT or not all(isinstance(section, dict) for section in sections):
        problem = "its first line is no header of augmented rows; write it with: emdistill augment"
        problem += ", or, if it holds texts alone, give it to --unlabelled"
        raise DataError(problem, file=path, line=1)
    return header


def read_augmented(path: str | Path, data: TaskData, *, teacher: str | None = None) -> Dataset:
    """The variants of `data.train`, with its columns and `row`, the training row each was made from.

    teacher   fingerprint of the teacher that must have labelled them; None: any
    Raises DataError: another kind of task, other training rows, another teacher, a bad or missing line.
    """
    path = Path(path)
    header = read_header(path)
    _check_same_data(path, header, data)
    if teacher not in (None, header.get("teacher")):
        raise DataError(f"another teacher labelled these rows; {_MEND}", file=path)
    bad = BadRows(path)
    encode = data.task.kind.encoder(data.task.labels)
    texts = [name for name in TEXTS if name in data.train.column_names]
    features = {name: Value("string") for name in texts}
    features |= {"label": data.task.kind.label_type, "row": Value("int64")}
    variants = []
    for line in islice(read_rows(path, bad), 1, None):
        problems = [text_problems(line, texts)]
        row, label = line.cells.get("row"), None
        if type(row) is not int or not 0 <= row < len(data.train):
            problems.append(f"row {row!r} is none of the {len(data.train)} training rows (0 is the first)")
        try:
            label = encode(line.cells.get("label"))
        except BadLabel as error:
            problems.append(str(error))
        if any(problems):
            bad.add(line.line, "; ".join(filter(None, problems)))
        else:
            variants.append(line.cells | {"label": label})
    bad.check()
    if len(variants) != header.get("variants"):
        problem = f"holds {len(variants)} rows, and its header promises {header.get('variants')}"
        raise DataError(f"{problem}: it was cut short or added to; {_MEND}", file=path)
    columns = {name: [variant[name] for variant in variants] for name in features}
    return Dataset.from_dict(columns, features=Features(features))


_MEND = "write it again: emdistill augment --overwrite"


def _check_same_data(path: Path, header: Mapping[str, Any], data: TaskData) -> None:
    task, train = header.get("task", {}), header.get("train", {})
    kind, labels = task.get("kind"), task.get("labels")
    # Labels are written by their names, so their order does not matter.
    names = sorted(map(str, labels)) if isinstance(labels, list) else None
    if kind != data.task.kind.name or names != sorted(data.task.labels):
        raise DataError(
            f"these rows were made for a {kind} task with labels {shown(labels)}, and "
            f"this is a {data.task.kind.name} task with labels ({listing(data.task.labels)}); {_MEND}",
            file=path,
        )
    if train != describe_train(data)["train"]:
        raise DataError(
            f"these rows were made from {train.get('rows')} training rows, and the "
            f"{len(data.train)} training rows of {data.task.name} are others, or in another order; {_MEND}",
            file=path,
        )
