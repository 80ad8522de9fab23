"""What a model reads at once of a row: all of it, or a window of a long text, by one or two tokenizers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Pieces(NamedTuple):
    """The tokens of a text, without special ones: their ids, and the characters [start, end) of each."""

    ids: Sequence[int]
    offsets: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Reader:
    """How a tokenizer reads texts.

    encode          texts -> the pieces of each, uncut
    before, behind  the special tokens around a text
    between         those between the two texts of a pair
    names           what the model reads: input_ids, attention_mask, perhaps token_type_ids
    """

    encode: Callable[[Sequence[str]], Sequence[Pieces]]
    before: tuple[int, ...]
    behind: tuple[int, ...]
    names: tuple[str, ...]
    between: tuple[int, ...] = ()

    @property
    def special_tokens(self) -> int:
        """How many a text has."""
        return len(self.before) + len(self.behind)

    @property
    def special_tokens_of_pair(self) -> int:
        """How many two texts have together."""
        return self.special_tokens + len(self.between)

    def inputs(self, ids: Sequence[int], second: Sequence[int] | None = None) -> dict[str, list[int]]:
        """What the model reads of these pieces, and those of a second text: special tokens around them, no padding."""
        first = [*self.before, *ids, *(self.behind if second is None else self.between)]
        further = [] if second is None else [*second, *self.behind]
        ids, types = [*first, *further], [0] * len(first) + [1] * len(further)
        columns = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": types}
        return {name: columns[name] for name in columns if name in self.names}


@dataclass(frozen=True)
class Feature:
    """A row, or a window of it, per reader.

    row        the number of its row
    inputs     the columns of a batch, such as input_ids and, of answers at places, ANSWERS
    sequences  the number of each token's text, 0 or 1 of a pair; None: a special token
    offsets    the characters [start, end) of each token in its text
    labels     of its answers
    """

    row: int
    inputs: tuple[dict[str, list[int]], ...]
    sequences: tuple[list[int | None], ...]
    offsets: tuple[list[tuple[int, int]], ...]
    labels: Any
