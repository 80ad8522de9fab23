"""Sentences whose words have tags: CoNLL columns, CoNLL-U, rows of tokens and tags, texts with entities at characters.

A sentence of tokens becomes a text, its words joined by single spaces; words are (start, end) in characters.
"""

import bisect
import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset

from emdistill.console import counted
from emdistill.data.compressed import plain_path
from emdistill.data.data_sets import digest, split_rows
from emdistill.data.files import (
    HALF_PAIR,
    Columns,
    declared_classes,
    file_classes,
    has_half_pair,
    look_at_first,
    require_columns,
    with_list,
)
from emdistill.data.rows import BadRows, Row, check_file, read_rows, text_lines, tsv_cells
from emdistill.data.word_rows import sentence_column, whole_sentences
from emdistill.errors import DataError, listing, nearest, shown
from emdistill.tasks.kind import BadLabel
from emdistill.tasks.tags import OUTSIDE, Entity, bio, find_scheme, without_beginning
from emdistill.tasks.words import cut_words
from emdistill.values import parse_cell

SUFFIXES = (".conll", ".conllu", ".iob", ".bio")  # of files that hold nothing else
ROW_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
CONLLU = ["id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc"]
FORM = CONLLU.index("form")
# where --text and --label name no column of a file of rows
TOKEN_COLUMNS = ("tokens", "words", "token", "word")
TAG_COLUMNS = ("tags", "ner_tags", "labels", "pos_tags", "tag")
ENTITY_COLUMNS = ("entities", "spans", "labels")
ENTITY_LABELS = ("label", "type", "entity_group", "labels")  # as annotators, transformers and Label Studio call it
WNUT17 = {"train": "wnut17train.conll", "dev": "emerging.dev.conll", "test": "emerging.test.annotated"}
_DEFAULT = Columns()

Span = tuple[int, int]


class Sentence(NamedTuple):
    """A text, its words as (start, end) in characters, and a tag per word; `line`: where it begins in its source."""

    line: int
    text: str
    words: list[Span]
    tags: list[str]


@dataclass(frozen=True)
class TaggedExamples:
    """The sentences of one source, tags as written; further problems of rows go to `bad`."""

    bad: BadRows
    sentences: list[Sentence] = field(default_factory=list)

    @property
    def source(self) -> str | Path:
        """The file, or the data set and split."""
        return self.bad.source


def read_tagged(path: Path, columns: Columns = _DEFAULT) -> TaggedExamples:
    """The sentences of a file, by its extension: .conllu, rows (`holds_rows`), else CoNLL columns.

    columns   `label`: in CoNLL the tag's column, a number from 1 (the last one if not given), `text` the word's (1);
              in CoNLL-U a column's name (upos if not given); elsewhere columns' names
    Raises DataError for a file that cannot be read, and for bad rows, each with its line.
    """
    check_file(path)
    bad, suffix = BadRows(path), plain_path(path).suffix.lower()
    if holds_rows(path, columns):
        return _checked(_of_rows(read_rows(path, bad), columns, bad, file_classes(path)), bad)
    return _checked((_conllu if suffix == ".conllu" else _conll)(path, columns, bad), bad)


def holds_rows(path: Path, columns: Columns = _DEFAULT) -> bool:
    """Whether a file has rows, by its extension; of .tsv its first line then names the column of the text or words."""
    if plain_path(path).suffix.lower() != ".tsv":
        return plain_path(path).suffix.lower() in ROW_SUFFIXES
    first = Row(1, dict.fromkeys(next((cells for _, cells in tsv_cells(path)), [])))
    return _present(first, columns.text, _DEFAULT.text, TOKEN_COLUMNS) in first.cells


def given_words(cell: Any, source: str | Path) -> Any:
    """The words that a cell lists, in CSV and TSV, where a cell is text; any other cell as it is."""
    if not isinstance(cell, str) or plain_path(Path(source)).suffix.lower() not in (".csv", ".tsv"):
        return cell
    words = parse_cell(cell)
    return cell if not isinstance(words, list) or not all(isinstance(word, str) for word in words) else words


def split_tagged(source: str, split: Dataset, columns: Columns = _DEFAULT) -> TaggedExamples:
    """The sentences of a data set's split, whose tags may be class labels; raises DataError as `read_tagged`."""
    bad = BadRows(source, digest(split))
    return _checked(_of_rows(split_rows(split), columns, bad, declared_classes(split.features)), bad)


def read_wnut17(folder: Path, dev: Path | None = None) -> dict[str, TaggedExamples]:
    """WNUT-17's train, dev and test (Derczynski et al., WNUT 2017), from the folder of its official files.

    dev   a file to use as development set instead of the folder's
    Raises DataError for a folder without them.
    """
    paths = {name: folder / file for name, file in WNUT17.items()} | ({"dev": dev} if dev else {})
    missing = [path.name for name, path in paths.items() if name != "test" and not path.is_file()]
    if missing:
        content = listing(sorted(child.name for child in folder.iterdir())) if folder.is_dir() else "no such folder"
        raise DataError(f"WNUT-17 is read from its folder; {', '.join(missing)} is not in it ({content})", file=folder)
    return {name: read_tagged(path) for name, path in paths.items() if path.is_file()}


def notes_on_tags(examples: TaggedExamples) -> tuple[str, ...]:
    """What a user should know of how the tags were read."""
    different = sorted({tag for sentence in examples.sentences for tag in sentence.tags})
    if find_scheme(different) is None:
        if other := [tag for tag in different if OTHER_SCHEME.fullmatch(tag)]:
            return (
                f"{listing(other)}: taken for plain classes; write B-PER and I-PER, and entities are read from them",
            )
        if all(tag.isdigit() for tag in different):
            return ("the tags are numbers without names, so no entities are read from them; write them as names",)
        begins = [tag for tag in different if tag.startswith("B-")]
        others = [tag for tag in different if tag != OUTSIDE and find_scheme([*begins, tag]) is None]
        if others and not begins and OUTSIDE in different:
            return (
                f"{listing(others)} beside {OUTSIDE}: taken for plain classes, so no entities are read; if they name "
                f"entities, write B-{others[0]} and I-{others[0]}",
            )
        if not begins or not others:
            return ()
        return (f"{listing(others)} fit no scheme of {begins[0]}: the tags are plain classes, no entities are read",)
    loose = [(sentence, word) for sentence in examples.sentences for word in without_beginning(sentence.tags)]
    if not loose:
        return ()
    (line, text, words, tags), word = loose[0]
    where = f"{examples.source}:{line}: {tags[word]} of {text[slice(*words[word])]!r}, word {word + 1}"
    return (
        f"tags that continue no entity: {len(loose):,}, the first one at {where}; they begin entities of their own",
    )


def _checked(sentences: Iterator[Sentence], bad: BadRows) -> TaggedExamples:
    examples = TaggedExamples(bad, list(sentences))
    bad.check()
    if not examples.sentences:
        raise DataError("there are no sentences", file=bad.source)
    return examples


def _joined(line: int, words: Sequence[str], tags: Sequence[str]) -> Sentence:
    return Sentence(line, *joined(words), list(tags))


def joined(words: Sequence[str]) -> tuple[str, list[Span]]:
    """The text of these words, and where they stand in it."""
    ends = list(itertools.accumulate(len(word) + 1 for word in words))
    return " ".join(words), [(end - 1 - len(word), end - 1) for word, end in zip(words, ends, strict=True)]


# CoNLL: a word per line, a blank line between sentences

Lines = list[tuple[int, str]]
DOCSTART = "-DOCSTART-"
RANGE = re.compile(r"\d+[-.]\d+")  # of CoNLL-U: words that are written as one (1-2), and an empty node (1.1)
OTHER_SCHEME = re.compile(r"[BIbi][_:/.]\w+|[bi]-\w+|\w+[-_][BI]")  # entities as some write them: B_PER, b-per, PER-B


class Cells(NamedTuple):
    """The cells of a word, and the line on which they stand."""

    line: int
    cells: list[str]


def _blocks(path: Path) -> Iterator[Lines]:
    """The lines between blank ones, numbered; tabs and spaces alone are blank."""
    lines = ((number, line.rstrip("\r\n")) for number, line in enumerate(text_lines(path), start=1))
    for blank, block in itertools.groupby(lines, key=lambda numbered: not numbered[1].strip(" \t")):
        if not blank:
            yield list(block)


def _conll(path: Path, columns: Columns, bad: BadRows) -> Iterator[Sentence]:
    """Cells between tabs, else between blanks."""
    sentences, width = conll_cells(path, bad)
    word_at = word_column(columns.text, sentences, width, path)
    tag_at = _column(columns.label, width if columns.label == _DEFAULT.label else None, width, "--label", path)
    if columns.label == _DEFAULT.label:
        _check_tags(sentences, word_at, tag_at, path)
    for cells in sentences:
        if word_at == tag_at:
            problem = f"column {tag_at + 1} of {width} would be the word and its tag; a line holds both"
            raise DataError(f"{problem}, with a tab or blanks between", file=path, line=cells[0].line)
        yield from _tagged(cells, word_at, tag_at, bad)


def _check_tags(sentences: Sequence[Sequence[Cells]], word_at: int, tag_at: int, path: Path) -> None:
    """Raise DataError where the last column spells no entities, but one before it does."""
    columns = [*zip(*(cells for sentence in sentences for _, cells in sentence), strict=True)]
    if not columns or set(columns[tag_at]) <= {OUTSIDE} or find_scheme(columns[tag_at]):
        return
    for place, tags in enumerate(columns):
        if place not in (word_at, tag_at) and _are_entities({*tags}):
            problem = (
                f"column {place + 1} spells entities, and the last one does not ({listing(sorted({*columns[-1]}))})"
            )
            raise DataError(f"{problem}; say which holds the tags: --label {place + 1}, or {tag_at + 1}", file=path)


def _are_entities(tags: Collection[str]) -> bool:
    return OUTSIDE in tags and any("-" in tag for tag in tags) and find_scheme(tags) is not None


def conll_cells(path: Path, bad: BadRows) -> tuple[list[list[Cells]], int]:
    """The cells of every word, sentence by sentence, and how many a word has.

    A line with # that opens a sentence is a comment where it has other cells, and `# id 7` also where no word's line
    ends as it does.
    """
    blocks = list(_blocks(path))
    lines = [content for block in blocks for _, content in block]
    first = next((content for content in lines if not content.startswith(("#", DOCSTART))), lines[0] if lines else "")
    cells_of = _tab_cells if "\t" in first else _blank_cells
    width = len(cells_in(first))
    ends = {cells_of(content)[-1] for content in lines if not content.startswith("#")}

    def words(block: Lines) -> Iterator[Cells]:
        begun = False
        for line, content in block:
            cells = cells_of(content)
            if re.split("[ \t]", content)[0] == DOCSTART:
                continue
            if not begun and cells[0] == "#" and width > 1 and cells[-1] not in ends:
                continue
            if len(cells) == width:
                begun = True
                yield Cells(line, cells)
            elif begun or not content.startswith("#"):
                bad.add(line, f"{counted(len(cells), 'column')}, but the file's first line has {width}")

    return [sentence for block in blocks if (sentence := [*words(block)])], width


def cells_in(line: str) -> list[str]:
    """The cells of a line: between tabs, where it has some, else between blanks."""
    return _tab_cells(line) if "\t" in line else _blank_cells(line)


def _tab_cells(line: str) -> list[str]:
    return [cell.strip(" ") for cell in line.split("\t")]


def _blank_cells(line: str) -> list[str]:
    return re.split(" +", line.strip(" "))  # not str.split(): a word may hold a no-break space


def _tagged(sentence: list[Cells], word_at: int, tag_at: int, bad: BadRows) -> Iterator[Sentence]:
    """The sentence of these columns, where no word or tag is lacking."""
    words, tags = ([cells[column] for _, cells in sentence] for column in (word_at, tag_at))
    if all(map(str.strip, words)) and all(tags):
        yield _joined(sentence[0].line, words, tags)
    for (line, _), word, tag in zip(sentence, words, tags, strict=True):
        if not word.strip() or not tag:
            bad.add(line, f"word {word!r} has no tag" if word else "there is no word")


def word_column(named: str, sentences: Sequence[Sequence[Cells]], width: int, path: Path) -> int:
    """The index of the words' column; raises DataError where it is not named, and the first one holds no words."""
    place = _column(named, 1 if named == _DEFAULT.text else None, width, "--text", path)
    if named == _DEFAULT.text and width > 1:
        first = [[cells[place] for _, cells in sentence] for sentence in sentences]
        numbers = [[cell for cell in cells if not RANGE.fullmatch(cell)] for cells in first]
        if any(cells[1:] for cells in numbers) and any(
            all(cells == [str(number + start) for number in range(len(cells))] for cells in numbers) for start in (0, 1)
        ):
            mend = "call the file .conllu" if width == len(CONLLU) else "say which one holds the words: --text 2"
            problem = f"column 1 counts the words of every sentence; {mend}"
            raise DataError(problem, file=path, line=sentences[0][0].line)
        seen = {cell for cells in first for cell in cells}
        if _are_entities(seen):
            problem = f"column 1 holds tags ({listing(sorted(seen))}) and no words; say --text 2 --label 1"
            raise DataError(problem, file=path, line=sentences[0][0].line)
    return place


def _column(named: str, default: int | None, width: int, option: str, path: Path) -> int:
    """The index of a column that is named by its number, from 1."""
    number = default if default is not None else int(named) if named.isdecimal() else 0
    if not 0 < number <= max(width, 1):
        raise DataError(f"{option} {named}: columns have no names here; say a number from 1 to {width}", file=path)
    return number - 1


def _conllu(path: Path, columns: Columns, bad: BadRows) -> Iterator[Sentence]:
    """Ten columns (Nivre et al., Universal Dependencies v2, 2020); ranges (1-2) and empty nodes (1.1) are no words."""
    named = "upos" if columns.label == _DEFAULT.label else columns.label.lower()
    if named not in CONLLU:
        problem = f"--label {columns.label}: a CoNLL-U file has the columns {', '.join(CONLLU)}"
        raise DataError(f"{problem}.{nearest(named, CONLLU)}", file=path)
    for cells in conllu_cells(path, bad):
        yield from _tagged(cells, FORM, CONLLU.index(named), bad)


def conllu_cells(path: Path, bad: BadRows) -> Iterator[list[Cells]]:
    """The ten cells of every word, sentence by sentence."""

    def words(block: Lines) -> Iterator[Cells]:
        for line, content in block:
            cells = content.split("\t")
            if content.startswith("#"):
                continue
            if len(cells) != len(CONLLU):
                bad.add(line, f"{len(cells)} cells, but a line of CoNLL-U has ten, with tabs between")
            elif cells[0].isdecimal():
                cells[FORM] = cells[FORM].strip(" ")
                yield Cells(line, cells)
            elif not RANGE.fullmatch(cells[0]):
                bad.add(line, f"{cells[0]!r} is no number of a word")

    return filter(None, ([*words(block)] for block in _blocks(path)))


# rows: tokens and tags, or a text and its entities


def _of_rows(
    rows: Iterator[Row], columns: Columns, bad: BadRows, names: Mapping[str, Sequence[str]]
) -> Iterator[Sentence]:
    """names: of a column whose tags are class indices."""
    first, rows = look_at_first(rows, bad)
    text = _present(first, columns.text, _DEFAULT.text, TOKEN_COLUMNS)
    first, rows = look_at_first(whole_sentences(rows, text), bad)
    are_lists = isinstance(given_words(first.cells.get(text), bad.source), list)
    defaults = TAG_COLUMNS if are_lists else (*ENTITY_COLUMNS, *TAG_COLUMNS)
    label = _present(first, columns.label, _DEFAULT.label, defaults)
    require_columns(first, [text, label], bad.source)
    alone, several = 0, False  # the line of a first row of one word, and whether one has more: blanks are between them
    for line, cells in rows:
        try:
            content, tags = given_words(cells.get(text), bad.source), with_list(cells.get(label))
            if isinstance(content, str) and (listed := _listed_tags(tags)):
                content, tags = _blank_cells(content), listed
                alone, several = alone or line, several or len(content) > 1
            if isinstance(content, list):
                yield _of_tokens(line, content, tags, names.get(label, ()))
            else:
                yield _of_text(line, content, tags)
        except BadLabel as error:
            bad.add(line, str(error))
    if alone and not several:
        mend = "add a column `sentence` that numbers them, or write CoNLL: word, tab, tag, and a blank line between"
        bad.add(alone, f"every row holds one word, and no column tells sentences apart; {mend}")


def _listed_tags(tags: Any) -> list[str] | None:
    """Tags of words, with blanks between or in a list; None for what is none of both, as entities are."""
    if isinstance(tags, str) and tags.strip():
        return _blank_cells(tags)
    return tags if isinstance(tags, list) and tags and all(isinstance(tag, str) for tag in tags) else None


def _present(row: Row, named: str, default: str, others: Sequence[str]) -> str:
    """The column that is named, else that of `others`; of a file of a word per row in any case, as `Word` is."""
    if named in row.cells or named != default:
        return named
    is_any_case = sentence_column(row.cells) is not None
    spelled = {name.casefold() if is_any_case else name: name for name in row.cells}
    return next((spelled[name] for name in others if name in spelled), named)


def _of_tokens(line: int, tokens: list[Any], tags: Any, names: Sequence[str]) -> Sentence:
    if not isinstance(tags, list) or len(tags) != len(tokens):
        count = f"{len(tags)} tags" if isinstance(tags, list) else f"{shown(tags)} as tags"
        raise BadLabel(f"{len(tokens)} words, but {count}; there must be a tag per word")
    check_words(tokens)
    return _joined(line, tokens, [_tag(tag, place, names) for place, tag in enumerate(tags, start=1)])


def check_words(tokens: list[Any]) -> None:
    """Raise BadLabel for a list that holds no words, or something else."""
    if not tokens:
        raise BadLabel("there are no words")
    for place, word in enumerate(tokens, start=1):
        if not isinstance(word, str) or not word.strip() or has_half_pair(word):
            problem = HALF_PAIR if isinstance(word, str) and word.strip() else "is no word"
            raise BadLabel(f"word {place}, {shown(word)}, {problem}")


def _tag(tag: object, place: int, names: Sequence[str]) -> str:
    if isinstance(tag, int) and not isinstance(tag, bool):
        if tag < 0 or (names and tag >= len(names)):
            raise BadLabel(
                f"tag {place} is {tag}" + (f", but there are {len(names)} names" if names else ", which is no tag")
            )
        return names[tag] if names else str(tag)
    if isinstance(tag, str) and tag.strip():
        return tag.strip()
    raise BadLabel(f"tag {place} is {shown(tag)}, which is no tag")


def _of_text(line: int, text: object, cells: object) -> Sentence:
    if not isinstance(text, str) or not text.strip() or has_half_pair(text):
        raise BadLabel(f"{shown(text)} is no text")
    if not isinstance(cells, list):
        raise BadLabel(f"the entities of a text are a list, empty where there is none; here is {shown(cells)}")
    words = cut_words(text)
    spans = sorted({_span(cell, text) for cell in cells})
    tagged = [_entity(span, text, words) for span in spans]
    for before, after in itertools.pairwise(tagged):
        if after.first < before.end:
            both = f"{text[slice(*words[after.first])]!r} is part of two entities, {before.type} and {after.type}"
            raise BadLabel(f"{both}; a word has one tag")
    return Sentence(line, text, words, bio(tagged, len(words)))


def _span(cell: Any, text: str) -> tuple[int, int, str]:
    """An entity as written: [start, end, label], or an object: start and end, or start_offset …, and its label."""
    parts = cell
    if isinstance(cell, dict):
        label = next((cell[key] for key in ENTITY_LABELS if key in cell), None)
        label = label[0] if isinstance(label, list) and len(label) == 1 else label
        parts = [*(cell.get(key, cell.get(f"{key}_offset")) for key in ("start", "end")), label]
    if not isinstance(parts, list) or len(parts) != 3 or not isinstance(parts[2], str) or not parts[2].strip():
        raise BadLabel(f"{shown(cell)} is no entity; write [start, end, label]")
    start, end, label = parts
    if not type(start) is type(end) is int:
        raise BadLabel(f"{shown(cell)} is no entity; write [start, end, label], start and end in characters")
    if not 0 <= start < end <= len(text):
        raise BadLabel(f"entity {shown(cell)} does not lie within the text's {len(text)} characters")
    says, there = cell.get("text") if isinstance(cell, dict) else None, text[start:end]
    if isinstance(says, str) and says.strip() != there.strip():
        problem = f"entity {shown(says)} does not stand at {start}..{end} of the text; {shown(there)} does"
        raise BadLabel(f"{problem} (are the places counted in characters?)")
    return start, end, label.strip()


def _entity(span: tuple[int, int, str], text: str, words: list[Span]) -> Entity:
    """The words of an entity; blanks at its ends are left out."""
    start, end, label = span
    first = bisect.bisect_right(words, start, key=lambda word: word[1])
    last = bisect.bisect_left(words, end, key=lambda word: word[0])
    if first == last:
        raise BadLabel(f"entity {label} at {start}..{end}, {text[start:end]!r}, holds no word")
    for word_start, word_end in (words[first], words[last - 1]):
        if word_start < start or word_end > end:
            cut = f"cuts the word {text[word_start:word_end]!r} at {word_start}..{word_end}"
            mend = "a word has one tag; to cut words otherwise, list them with their tags: tokens and tags"
            raise BadLabel(f"entity {label} at {start}..{end}, {text[start:end]!r}, {cut}; {mend}")
    return Entity(label, first, last)
