"""Which texts are the same, case, punctuation and spaces apart: 64 bits of a hash each, in sorted arrays."""

import hashlib
import unicodedata
from collections.abc import Iterable

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from emdistill.tasks.columns import text_columns

Texts = tuple[str, ...]  # one text, or the two of a pair
Hashes = NDArray[np.uint64]


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
    return text_hashes(zip(*text_columns(rows), strict=True))
