"""Rows of one word each as rows of whole sentences, where a column, such as `Sentence #`, tells sentences apart."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise
from typing import Any

from emdistill.data.rows import Row

SENTENCE = re.compile(r"sent(?:ence)?s?(?:[\W_].*|id|idx|no|num|number)?", re.IGNORECASE)
_LOOKED_AT = 1_000  # rows


def sentence_column(names: Iterable[str]) -> str | None:
    """The first name that is one of a column that tells sentences apart."""
    return next((name for name in names if SENTENCE.fullmatch(name)), None)


def whole_sentences(rows: Iterable[Row], text: str) -> Iterator[Row]:
    """A row per sentence: its cells as lists, and the line of its first word. text: the column of the words.

    A sentence goes on where its column is empty, or says the same again. Rows that are no words stay as they are: those
    without such a column, those of which each is a sentence of its own, and those whose texts hold blanks.
    """
    rows = iter(rows)
    first = list(islice(rows, _LOOKED_AT))
    every = chain(first, rows)
    column = sentence_column(name for name in first[0].cells if name != text) if first else None
    return every if column is None or not _are_words(first, text, column) else _sentences(every, column)


def _are_words(rows: Sequence[Row], text: str, column: str) -> bool:
    words = [row.cells.get(text) for row in rows]
    if not all(isinstance(word, str) and " " not in word.strip() for word in words):
        return False
    return any(_goes_on(row.cells.get(column), before.cells.get(column)) for before, row in pairwise(rows))


def _goes_on(cell: Any, before: Any) -> bool:
    """Whether a word's sentence is that of the word before it; NaN is how data frames write an empty cell."""
    return cell is None or cell == "" or cell != cell or cell == before


def _sentences(rows: Iterable[Row], column: str) -> Iterator[Row]:
    words: list[Row] = []
    said = None
    for row in rows:
        cell = row.cells.get(column)
        if words and not _goes_on(cell, said):
            yield _sentence(words, column)
            words = []
        said = said if words and _goes_on(cell, said) else cell
        words.append(row)
    if words:
        yield _sentence(words, column)


def _sentence(words: Sequence[Row], column: str) -> Row:
    first = words[0]
    cells = {name: [word.cells.get(name) for word in words] for name in first.cells if name != column}
    return Row(first.line, {column: first.cells.get(column)} | cells)
