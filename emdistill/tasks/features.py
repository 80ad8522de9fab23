"""What a model reads at once of a row: all of it, or a window of a long text, by one or two tokenizers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

    encode          texts -> the pieces of each, uncut
    before, behind  the special tokens around a text
    between         those between the two texts of a pair
    names           what the model reads: input_ids, attention_mask, perhaps token_type_ids
    types           the token types of each part, in order: of a text alone, and of a pair; a text has one
    """

    encode: Callable[[Sequence[str]], Sequence[Pieces]]
    before: tuple[int, ...]
    behind: tuple[int, ...]
    between: tuple[int, ...]
    names: tuple[str, ...]
    types: tuple[tuple[tuple[int, ...], ...], ...] = (((), (0,), ()), ((), (0,), (), (1,), ()))

    def read(self, text: Pieces, second: Pieces | None = None) -> Side:
        """A text, or the two of a pair, with the special tokens around them; no padding."""
        parts: list[tuple[int | None, Pieces]] = [(None, _special(self.before)), (0, text)]
        if second is not None:
            parts += [(None, _special(self.between)), (1, second)]
        parts.append((None, _special(self.behind)))
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
    whole, pair = tokenizer.encode("a"), tokenizer.encode("a", "a")
    words = [place for place, special in enumerate(whole.special_tokens_mask) if not special]
    start, end, last = words[0], words[-1] + 1, len(whole) - words[-1] - 1
    second = len(pair) - last - len(words)
    of_one, of_pair = whole.type_ids, pair.type_ids
    types = (
        (of_one[:start], of_one[start:][:1], of_one[end:]),
        (of_pair[:start], of_pair[start:][:1], of_pair[end:second], of_pair[second:][:1], of_pair[len(pair) - last :]),
    )
    return Reader(
        encode,
        before=tuple(whole.ids[:start]),
        behind=tuple(whole.ids[end:]),
        between=tuple(pair.ids[end:second]),
        names=tuple(names),
        types=tuple(tuple(map(tuple, parts)) for parts in types),
    )


WITH_TOKENIZER = (Pieces, Side, Reader, _special, reader_of)
"""What a shipped folder's example.py needs of reading by a tokenizer."""


class Feature(NamedTuple):
    """A row by its number, or a window of it, as each reader reads it, and the labels of its answers."""

    row: int
    sides: Sequence[Side]
    labels: Any
