"""The words of a CoNLL or CoNLL-U file, for a tagger, and its tags written beside them.

CoNLL gets a further column, CoNLL-U `Predicted=TAG` among its miscellaneous entries; all else stays as it was.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from emdistill.data.compressed import plain_path
from emdistill.data.files import Columns, text_problem
from emdistill.data.rows import BadRows, Row, check_file, text_lines
from emdistill.data.tagged_files import (
    CONLLU,
    DOCSTART,
    FORM,
    SUFFIXES,
    cells_in,
    check_words,
    conll_cells,
    conllu_cells,
    given_words,
    holds_rows,
    joined,
    word_column,
)
from emdistill.errors import DataError
from emdistill.tasks.kind import BadLabel, name_finder
from emdistill.tasks.tags import OUTSIDE
from emdistill.tasks.words import cut

CONLLU_SUFFIX = ".conllu"
TOKENS = "tokens"
EMPTY = "_"  # of a cell of CoNLL-U


@dataclass(frozen=True)
class TaggedWords:
    """The words of a file by sentences, each with the line on which it stands; width: cells of a line."""

    path: Path
    sentences: Sequence[Sequence[tuple[int, str]]]
    width: int = len(CONLLU)

    @property
    def rows(self) -> list[Row]:
        """A row per sentence, with its words."""
        return [Row(sentence[0][0], {TOKENS: [word for _, word in sentence]}) for sentence in self.sentences]

    @property
    def columns(self) -> tuple[dict[str, list[str]], dict[str, list[Any]]]:
        """The sentences as texts, and where their words stand."""
        texts, words = zip(*(joined([word for _, word in sentence]) for sentence in self.sentences), strict=True)
        return {"text": [*texts]}, {"words": [*words]}

    def write(self, path: Path, further: Sequence[Mapping[str, Any]]) -> None:
        """Write the file again, each word with its tag; further: `prediction`, a tag per word, of every sentence."""
        pairs = zip(self.sentences, further, strict=True)
        tags = {
            line: tag for sentence, cells in pairs for (line, _), tag in zip(sentence, cells["prediction"], strict=True)
        }
        beside = _in_conllu if is_conllu(self.path) else partial(_in_conll, width=self.width)
        with path.open("w", encoding="utf-8", newline="") as file:
            for number, line in enumerate(text_lines(self.path), start=1):
                content = line.rstrip("\r\n")
                file.write(beside(content, tags.get(number)) + (line[len(content) :] or "\n"))


def read_words(path: Path, text: str | None = None) -> TaggedWords:
    """The words of a CoNLL or CoNLL-U file; other columns are not read.

    text   in CoNLL the words' column, a number from 1 (1 if not given)
    Raises DataError for a file that cannot be read, and for lines that are no words.
    """
    check_file(path)
    bad = BadRows(path)
    if is_conllu(path):
        sentences, width, place = [*conllu_cells(path, bad)], len(CONLLU), FORM
    else:
        sentences, width = conll_cells(path, bad)
        place = word_column(text or Columns().text, sentences, width, path)
    words = [[(line, cells[place]) for line, cells in sentence] for sentence in sentences]
    for line, word in (each for sentence in words for each in sentence):
        if not word.strip():
            bad.add(line, "there is no word")
    bad.check()
    if not words:
        raise DataError("there are no sentences", file=path)
    return TaggedWords(path, words, width)


def holds_words(path: Path, columns: Columns, tags: Sequence[str]) -> bool:
    """Whether a tagger reads a file as words, one per line, as `read_tagged` does.

    tags   those of the tagger: a .txt file, whose lines may be sentences, holds words where most lines end in a tag
    """
    check_file(path)
    if plain_path(path).suffix.lower() != ".txt":
        return not holds_rows(path, columns)
    bad, find = BadRows(path), name_finder(tags)
    sentences, width = conll_cells(path, bad)
    tagged = [find(cells[-1]) is not None for sentence in sentences for _, cells in sentence]
    return width > 1 and 2 * sum(tagged) > len(tagged) + len(bad.problems)


def words_problem(row: Row, column: str, source: Path) -> str:
    """What is wrong with a text, or with a list of words, or ''; source: the row's file."""
    words = given_words(row.cells.get(column), source)
    if not isinstance(words, list):
        return text_problem(row, column)
    try:
        check_words(words)
    except BadLabel as error:
        return f"column {column!r}: {error}"
    return ""


def texts_and_words(
    cells: Iterable[Any], rule: str | None, source: Path
) -> tuple[dict[str, list[str]], dict[str, list[Any]]]:
    """Cells of a file that are texts or lists of words, as texts, and where their words stand.

    rule   Task.words, of texts
    """
    read = (given_words(cell, source) for cell in cells)
    pairs = [joined(words) if isinstance(words, list) else (words, cut(words, rule)) for words in read]
    texts, words = zip(*pairs, strict=True)
    return {"text": [*texts]}, {"words": [*words]}


def words_as_text(cell: Any, source: Path) -> str:
    """A cell's text: words that it lists with blanks between."""
    words = given_words(cell, source)
    return joined(words)[0] if isinstance(words, list) else str(words)


def is_conllu(path: Path) -> bool:
    """By its name."""
    return plain_path(path).suffix.lower() == CONLLU_SUFFIX


def suffixes_beside(path: Path) -> tuple[str, ...]:
    """The suffixes of files of the same form as this one of words."""
    return (CONLLU_SUFFIX,) if is_conllu(path) else tuple(suffix for suffix in SUFFIXES if suffix != CONLLU_SUFFIX)


def _in_conll(content: str, tag: str | None, width: int) -> str:
    """A word's line with its tag, whose cells were `width`.

    What opens a document gets a tag too, so that all lines have as many columns, and so does a comment that would have
    as many as a word from now on, and be one.
    """
    if tag is None and not content.startswith(DOCSTART) and len(cells_in(content)) != width + 1:
        return content
    between = "\t" if "\t" in content else " "
    return content.rstrip(" ") + between + (tag or OUTSIDE)


def _in_conllu(content: str, tag: str | None) -> str:
    if tag is None:
        return content
    *others, misc = content.split("\t")
    assert len(others) + 1 == len(CONLLU)  # it was read as a word
    return "\t".join([*others, f"Predicted={tag}" if misc == EMPTY else f"{misc}|Predicted={tag}"])
