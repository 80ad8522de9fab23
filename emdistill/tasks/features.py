"""What a model reads at once of a row: all of it, or a window of a long text, by one or two tokenizers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from tokenizers import Tokenizer


class Pieces(NamedTuple):
    """The tokens of a text, without special ones: their ids, and the characters [start, end) of each."""

    ids: Sequence[int]
    offsets: Sequence[tuple[int, int]]


class Side(NamedTuple):
    """What one tokenizer reads at once.

    inputs     the columns of a batch, such as input_ids and, of answers at places, ANSWERS
    sequences  the number of each token's text, 0 or 1 of a pair; None: a special token
    offsets    the characters [start, end) of each token in its text
    """

    inputs: dict[str, list[int]]
    sequences: list[int | None]
    offsets: list[tuple[int, int]]


@dataclass(frozen=True)
class Reader:
    """How a tokenizer reads texts.

    encode  texts -> the pieces of each, uncut
    names   what the model reads: input_ids, attention_mask, perhaps token_type_ids
    alone   the special tokens before and behind a text
    pair    those before, between and behind the two texts of a pair
    types   the token types of each part, in order: of a text alone, and of a pair; a text has one
    """

    encode: Callable[[Sequence[str]], Sequence[Pieces]]
    names: tuple[str, ...]
    alone: tuple[tuple[int, ...], ...]
    pair: tuple[tuple[int, ...], ...]
    types: tuple[tuple[tuple[int, ...], ...], ...]

    def read(self, text: Pieces, second: Pieces | None = None) -> Side:
        """A text, or the two of a pair, with the special tokens around them; no padding."""
        texts, (before, *behind) = ([text], self.alone) if second is None else ([text, second], self.pair)
        parts: list[tuple[int | None, Pieces]] = [(None, _special(before))]
        for place, part in enumerate(texts):
            parts += [(place, part), (None, _special(behind[place]))]
        ids = [id for _, part in parts for id in part.ids]
        types: list[int] = []
        for (number, part), own in zip(parts, self.types[second is not None], strict=True):
            types += own if number is None else own * len(part.ids)
        columns = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": types}
        return Side(
            {name: columns[name] for name in columns if name in self.names},
            [number for number, part in parts for _ in part.ids],
            [place for _, part in parts for place in part.offsets],
        )


def _special(ids: Sequence[int]) -> Pieces:
    return Pieces(ids, [(0, 0)] * len(ids))


def reader_of(tokenizer: Tokenizer, names: Sequence[str]) -> Reader:
    """How this tokenizer reads; names: what the model reads (input_ids, attention_mask, perhaps token_type_ids)."""

    def encode(texts: Sequence[str]) -> list[Pieces]:
        tokenizer.no_truncation()  # whoever cuts or pads says so at each call
        tokenizer.no_padding()
        encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [Pieces(encoding.ids, encoding.offsets) for encoding in encodings]

    encode([])
    alone, of_one = _around(tokenizer.encode("a"), 1)
    pair, of_two = _around(tokenizer.encode("a", "a"), 2)
    return Reader(encode, tuple(names), alone, pair, types=(of_one, of_two))


def _around(encoding: Any, texts: int) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """The special tokens before, between and behind texts of one length, and the token types as a Reader has them."""
    words = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
    length = len(words) // texts
    ends = [end for first in range(0, len(words), length) for end in (words[first], words[first + length - 1] + 1)]
    parts = [slice(*part) for part in pairwise([0, *ends, len(encoding)])]
    types = (encoding.type_ids[part][: 1 if place % 2 else None] for place, part in enumerate(parts))
    return tuple(tuple(encoding.ids[part]) for part in parts[::2]), tuple(map(tuple, types))


WITH_TOKENIZER = (Pieces, Side, Reader, _special, reader_of, _around)
"""What a shipped folder's example.py needs of reading by a tokenizer."""


class Feature(NamedTuple):
    """A row by its number, or a window of it, as each reader reads it, and the labels of its answers."""

    row: int
    sides: Sequence[Side]
    labels: Any
