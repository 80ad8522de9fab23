"""Sentences whose words have tags as the data of a task: a user's files, a data set, WNUT-17's folder."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from datasets import Dataset, Features, Value

from emdistill.data.compressed import plain_path
from emdistill.data.data_sets import is_data_set, train_and_dev
from emdistill.data.files import MIXED_DEV, Columns, Examples, read_inputs, task_data
from emdistill.data.form import Form, Inputs, Request
from emdistill.data.rows import BadRows, Row
from emdistill.data.tagged_files import (
    SUFFIXES,
    TOKEN_COLUMNS,
    TaggedExamples,
    notes_on_tags,
    read_tagged,
    read_wnut17,
    split_tagged,
)
from emdistill.data.tagged_words import (
    TOKENS,
    holds_words,
    read_words,
    suffixes_beside,
    texts_and_words,
    words_as_text,
    words_problem,
)
from emdistill.data.word_rows import whole_sentences
from emdistill.errors import ConfigError, DataError
from emdistill.tasks import KINDS
from emdistill.tasks.task import Task, TaskData
from emdistill.tasks.words import MARKS, rule_of

TASKS = {"wnut17": "which words of a message name a person, a place, a group …?"}
_DEFAULT = Columns()


class Tagged(Form):
    """Sentences whose words have tags; files of words, one per line, take predicted tags beside them."""

    kinds = (KINDS["tagging"],)
    tasks: ClassVar = TASKS

    def recognises(self, data: str) -> bool:
        return plain_path(Path(data)).suffix.lower() in SUFFIXES

    def read(self, request: Request) -> TaskData:
        data, dev, columns = request.data, request.dev, request.columns
        if request.task is not None:
            wnut = _task_data(read_wnut17(Path(data), dev), request.task, _DEFAULT, varied=request.varied)
            return replace(wnut, task=replace(wnut.task, description=TASKS[request.task]))
        if is_data_set(data):
            name = Path(data).name
            sets = {part: rows for part, rows in train_and_dev(data).items() if part == "train" or dev is None}
            sources = {part: split_tagged(*rows, columns) for part, rows in sets.items()}
        else:
            name = plain_path(Path(data)).stem
            sources = {"train": read_tagged(Path(data), columns)}
        if dev is not None:
            sources["dev"] = read_tagged(dev, columns)
        return _task_data(sources, name, columns, varied=request.varied)

    def text_columns(self, task: Task) -> tuple[Columns, ...]:
        return tuple(map(Columns, TOKEN_COLUMNS))

    def text_rows(self, file: Path, columns: Columns, bad: BadRows) -> Iterator[Row]:
        if not self.recognises(str(file)):
            return whole_sentences(super().text_rows(file, columns, bad), columns.text)
        words = read_words(file, columns.text if columns.text.isdecimal() else None)
        return (Row(row.line, {columns.text: row.cells[TOKENS]}) for row in words.rows)

    def text_problem(self, row: Row, column: str, file: Path) -> str:
        return words_problem(row, column, file)

    def text(self, cell: Any, file: Path) -> str:
        return words_as_text(cell, file)

    def suffixes_beside(self, file: Path) -> tuple[str, ...]:
        return suffixes_beside(file) if self.recognises(str(file)) else ()

    def inputs(self, file: Path, columns: Columns, task: Task, *, is_text_named: bool) -> Inputs:
        if columns.text_pair is not None:
            raise ConfigError(f"--text-pair {columns.text_pair}: a tagger reads one text; leave it out")
        if self.recognises(str(file)) or holds_words(file, columns, task.labels):
            by_number = is_text_named or columns.text.isdecimal()  # else the model learned from a column with a name
            words = read_words(file, columns.text if by_number else None)
            return Inputs(words.rows, task.rows_of_text(*words.columns), words)
        read = read_inputs(file, columns.text, problem_of=partial(self.text_problem, file=file))
        rows = list(whole_sentences(read, columns.text))
        texts = texts_and_words((row.cells[columns.text] for row in rows), task.words, file)
        return Inputs(rows, task.rows_of_text(*texts))


def _task_data(sources: Mapping[str, TaggedExamples], name: str, columns: Columns, *, varied: bool) -> TaskData:
    """Train gives the tags and how plain text is cut into words; the other sets must use the same tags."""
    (kind,), train = Tagged.kinds, sources["train"]
    labels = kind.label_names([sentence.tags for sentence in train.sentences])
    joined = all(
        sentence.text == " ".join(sentence.text[start:end] for start, end in sentence.words)
        for sentence in train.sentences
    )
    words = (sentence.text[start:end] for sentence in train.sentences for start, end in sentence.words)
    task = Task(
        name,
        kind,
        labels,
        kind.metrics_of(labels),
        columns.text,
        label=columns.label,
        words=rule_of(words) if joined else MARKS,
    )
    notes = dict.fromkeys(note for examples in sources.values() for note in notes_on_tags(examples))
    data = task_data(task, {part: _as_rows(examples) for part, examples in sources.items()}, notes, varied=False)
    for part, examples in sources.items() if varied else ():
        if len(tags := {tag for sentence in examples.sentences for tag in sentence.tags}) < 2:
            problem = f"every word has the tag {tags.pop()!r}; at least two tags are needed"
            raise DataError(problem if part == "train" else problem + MIXED_DEV, file=examples.source)
    return data


def _as_rows(examples: TaggedExamples) -> Examples:
    """The sentences as rows, whose labels are their tags."""
    lines, texts, words, tags = zip(*examples.sentences, strict=True)
    features = Features({"text": Value("string"), **Tagged.kinds[0].columns})
    rows = Dataset.from_dict({"text": list(texts), "words": list(words)}, features=features)
    return Examples(examples.bad, lines, rows, tags)
