"""Raw text to learn from: pieces of tokens cut from a corpus, kept on disk and memory-mapped.

The paragraphs of a document are joined and cut into pieces of `max_length` tokens, special ones included. Only the last
piece of a document is shorter; it is left out where it holds fewer than 8 tokens of text.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from datasets import Dataset

from emdistill.data.arrow_files import keep_rows
from emdistill.data.compressed import unreadable
from emdistill.data.paragraphs import Paragraph, read_corpus
from emdistill.errors import ConfigError, DataError
from emdistill.files import sha256

SHORTEST_PIECE = 8  # tokens of text
HELD_OUT_AT_MOST = 1000  # pieces
CHARACTERS_PER_BATCH = 2**18
PIECES_PER_BATCH = 1000
FORMAT = 1
PIECES = pa.schema([("input_ids", pa.list_(pa.int32())), ("length", pa.int32()), ("document", pa.int32())])


@dataclass(frozen=True)
class TextEncoder:
    """How text becomes token ids.

    encode       texts -> their ids, without special tokens
    start, end   the special tokens' ids before and after every piece
    key          a hash of all that decides the ids
    """

    encode: Callable[[list[str]], list[list[int]]]
    start: tuple[int, ...]
    end: tuple[int, ...]
    key: str


@dataclass(frozen=True)
class Corpus:
    """A corpus that was read: where, the hash of its bytes, and the counts of the part that was read.

    tokens    in all pieces, special ones included
    dropped   tokens of documents' ends that were too short
    """

    path: Path
    sha256: str
    documents: int
    paragraphs: int
    pieces: int
    tokens: int
    dropped: int


class CorpusSplits(NamedTuple):
    """Pieces to learn from and unseen ones, with the columns input_ids and length; and their corpus."""

    train: Dataset
    held_out: Dataset
    corpus: Corpus


def corpus_dataset(
    path: str | Path,
    encoder: TextEncoder,
    *,
    max_length: int,
    folder: Path,
    seed: int,
    rows: int | None = None,
    held_out: float = 0.01,
    description: str = "",
) -> CorpusSplits:
    """The pieces of a corpus, cut once and kept in `folder` for the same file, tokenizer, max_length and rows.

    rows       the number of pieces after which reading stops
    held_out   share of the pieces, at most 1000, to keep apart: of whole documents drawn by `seed`, whose other pieces
               are not learned from either; of single pieces where the documents are too few and long
    Of two runs at once one writes and the other waits. A crash leaves nothing that is taken for the pieces.
    Raises DataError as read_corpus does, for a corpus of fewer than 2 pieces, and where `folder` cannot be written to;
    ConfigError for numbers that make no pieces.
    """
    path = Path(path)
    room = max_length - len(encoder.start) - len(encoder.end)
    if room < SHORTEST_PIECE:
        least = max_length - room + SHORTEST_PIECE
        raise ConfigError(f"--max-length {max_length} leaves {room} tokens for text; give at least {least}")
    if rows is not None and rows < 2:
        raise ConfigError(f"a corpus needs at least 2 pieces, not {rows}")
    if not 0 <= held_out < 1:
        raise ConfigError(f"the share that is held out lies between 0 and 1, not at {held_out}")
    paragraphs = read_corpus(path, description=description)
    try:
        digest = sha256(path)
    except OSError as error:
        raise unreadable(path, "at all", error) from error
    key = hashlib.sha256(json.dumps([FORMAT, digest, encoder.key, max_length, rows]).encode()).hexdigest()[:16]
    file = folder / f"{key}.arrow"
    counts = Counter[str](dict.fromkeys(("documents", "paragraphs", "pieces", "tokens", "dropped"), 0))
    batches = _batches(_pieces(paragraphs, encoder, room, counts), rows, counts)
    corpus = Corpus(path, digest, **keep_rows(file, PIECES, batches, counts, f"the tokens of {path}"))
    if corpus.pieces < 2:
        raise DataError(f"its text makes {corpus.pieces} piece of {max_length} tokens; 2 are the least", file=path)
    pieces = Dataset.from_file(str(file))
    count = min(HELD_OUT_AT_MOST, max(1, round(held_out * len(pieces))), len(pieces) - 1) if held_out else 0
    train, unseen = _hold_out(pieces.data.column("document").to_numpy(), count, seed)
    pieces = pieces.remove_columns("document")
    return CorpusSplits(pieces.select(train), pieces.select(unseen), corpus)


_Piece = tuple[int, list[int]]  # its document; its ids, special tokens included


def _pieces(
    paragraphs: Generator[Paragraph, None, None], encoder: TextEncoder, room: int, counts: Counter[str]
) -> Generator[_Piece, None, None]:
    """The text of each document in pieces of `room` tokens; adds to `counts` what was read and dropped."""
    document, rest = 0, list[int]()

    def cut(least: int) -> Iterator[_Piece]:
        """Pieces from the front of the rest, while it has at least `least` tokens."""
        done = 0
        while len(rest) - done >= least:
            ids = rest[done : done + room]
            yield document, [*encoder.start, *ids, *encoder.end]
            done += len(ids)
        del rest[:done]

    def finish() -> Iterator[_Piece]:
        yield from cut(SHORTEST_PIECE)
        counts["dropped"] += len(rest)
        rest.clear()

    with closing(paragraphs):
        for paragraph, ids in _encoded(paragraphs, encoder.encode):
            if paragraph.document != document:
                yield from finish()
                document = paragraph.document
            counts["documents"] = document + 1
            counts["paragraphs"] += 1
            rest += ids
            yield from cut(room)
    yield from finish()


def _encoded(
    paragraphs: Iterable[Paragraph], encode: Callable[[list[str]], list[list[int]]]
) -> Iterator[tuple[Paragraph, list[int]]]:
    """Each paragraph with its ids; tokenizers are fast on many texts at once."""
    batch, characters = list[Paragraph](), 0
    for paragraph in paragraphs:
        batch.append(paragraph)
        characters += len(paragraph.text)
        if characters >= CHARACTERS_PER_BATCH:
            yield from zip(batch, encode([member.text for member in batch]), strict=True)
            batch, characters = [], 0
    if batch:
        yield from zip(batch, encode([member.text for member in batch]), strict=True)


def _batches(
    pieces: Generator[_Piece, None, None], rows: int | None, counts: Counter[str]
) -> Generator[pa.RecordBatch, None, None]:
    """The first so many pieces (None: all), many at once; adds to `counts`."""
    with closing(pieces):
        first = islice(pieces, rows)
        while batch := list(islice(first, PIECES_PER_BATCH)):
            lengths = [len(ids) for _, ids in batch]
            columns = [[ids for _, ids in batch], lengths, [document for document, _ in batch]]
            counts["pieces"] += len(batch)
            counts["tokens"] += sum(lengths)
            yield pa.record_batch(columns, schema=PIECES)


def _hold_out(documents: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the pieces to learn from, and of `count` unseen ones; documents: each piece's, [pieces]."""
    draw = np.random.default_rng(seed)
    numbers, sizes = np.unique(documents, return_counts=True)
    order = draw.permutation(len(numbers))
    enough = np.searchsorted(np.cumsum(sizes[order]), count) + 1 if count else 0
    apart = np.isin(documents, numbers[order[:enough]])
    if apart.sum() > count + 0.1 * len(documents) or apart.all():
        apart = np.zeros(len(documents), dtype=bool)
        apart[draw.choice(len(documents), count, replace=False)] = True
    return np.flatnonzero(~apart), np.flatnonzero(apart)[:count]
