"""Questions and the texts that answer them, as the data of a task: SQuAD, v1.1 and v2, and rows of such questions.

Rajpurkar et al., EMNLP 2016 and ACL 2018.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from datasets import Dataset

from emdistill.data.compressed import plain_path
from emdistill.data.data_sets import digest, is_data_set, split_rows, train_and_dev
from emdistill.data.files import (
    Columns,
    Examples,
    look_at_first,
    require_columns,
    task_data,
    text_problems,
    with_list,
)
from emdistill.data.form import Form, Request
from emdistill.data.rows import BadRows, Row, is_squad, read_rows
from emdistill.errors import DataError, listing, shown
from emdistill.tasks import KINDS
from emdistill.tasks.kind import BadLabel, truth
from emdistill.tasks.task import Task, TaskData

TASKS = {"squad": "which part of the text answers the question? SQuAD's files, v1.1 or v2"}
QUESTIONS = Columns("question", "context", "answers")

Spans = list[list[int]]
"""[start, end) in characters of a context, one per answer; none: it has no answer."""


class Squad(Form):
    """Questions: a file in SQuAD's format or of a row per question, a data set, SQuAD's folder."""

    columns = QUESTIONS
    kinds = ALWAYS, OR_NONE = KINDS["span-answers"], KINDS["span-answers-or-none"]
    tasks: ClassVar = TASKS

    def recognises(self, data: str) -> bool:
        path = Path(data)
        return plain_path(path).suffix.lower() == ".json" and path.is_file() and is_squad(path)

    def read(self, request: Request) -> TaskData:
        """Of a kind that is not named: the one for questions without an answer, where there is one."""
        data, columns = request.data, _named(request.columns)
        sources = _from_data_set(data, columns) if is_data_set(data) else _from_files(Path(data), columns)
        if request.dev is not None:
            sources["dev"] = read_questions(request.dev, columns)
        by_file = {source.source: source for source in sources.values()}  # one that is scored is train and dev
        notes = [
            f"{name}: {count:,} of {len(source.label):,} questions have no answer"
            for name, source in by_file.items()
            if (count := sum(not spans for spans in source.label))
        ]
        kind = request.kind or (self.OR_NONE if notes else self.ALWAYS)
        names, name = kind.label_names([]), request.task or plain_path(Path(data)).stem
        asks = TASKS.get(request.task or "", "")
        task = Task(name, kind, names, kind.metrics_of(names), *columns, description=asks)
        return task_data(task, sources, notes, varied=False)


def read_questions(path: Path, columns: Columns = QUESTIONS) -> Examples:
    """The questions of a file in SQuAD's format (.json), or of one with a row per question; their labels are Spans.

    columns   answers are a list of {"text", "answer_start"}, or {"text": [...], "answer_start": [...]}
    Raises DataError for a file that cannot be read, and for bad questions: an answer that does not stand where the
    file says, an empty text, an id that occurs twice. Each is named by its line and id.
    """
    bad = BadRows(path)
    return _questions(read_rows(path, bad), columns, bad)


def _named(columns: Columns) -> Columns:
    """Those of SQuAD where the user names none."""
    text, pair, label = columns
    unnamed = Columns()
    return Columns(
        QUESTIONS.text if text == unnamed.text else text,
        pair or QUESTIONS.text_pair,
        QUESTIONS.label if label == unnamed.label else label,
    )


def _from_files(path: Path, columns: Columns) -> dict[str, Examples]:
    if not path.is_dir():
        return {"train": read_questions(path, columns)}
    files = {name: sorted(path.glob(f"{name}*.json")) for name in ("train", "dev")}
    if len(files["train"]) != 1 or len(files["dev"]) > 1:
        content = listing(sorted(child.name for child in path.iterdir())) or "nothing"
        raise DataError(f"not one train*.json and one dev*.json are in this folder ({content}); name a file", file=path)
    return {name: read_questions(file, columns) for name, of_part in files.items() for file in of_part}


def _from_data_set(name: str, columns: Columns) -> dict[str, Examples]:
    sets = train_and_dev(name).items()
    return {
        part: _questions(split_rows(split), columns, BadRows(source, digest(split))) for part, (source, split) in sets
    }


def _questions(rows: Iterator[Row], columns: Columns, bad: BadRows) -> Examples:
    first, rows = look_at_first(rows, bad)
    require_columns(first, [*columns.texts, columns.label], bad.source)
    good: list[Row] = []
    labels: list[Spans] = []
    lines: dict[str, int] = {}  # of ids
    for row in rows:
        id_ = None if row.cells.get("id") is None else str(row.cells["id"])
        try:
            if id_ is not None:
                if id_ in lines:
                    raise BadLabel(f"occurs twice, on line {lines[id_]} too")
                lines[id_] = row.line
            if problem := text_problems(row, columns.texts):
                raise BadLabel(problem)
            labels.append(_answers(row.cells.get(columns.label), row.cells, row.cells[columns.texts[1]]))
            good.append(row)
        except BadLabel as error:
            bad.add(row.line, str(error) if id_ is None else f"question {id_}: {error}")
    bad.check()
    names = zip(("text", "text_pair"), columns.texts, strict=True)
    texts = Dataset.from_dict({name: [row.cells[column] for row in good] for name, column in names})
    return Examples(bad, [row.line for row in good], texts, labels)


def _answers(given: Any, cells: Mapping[str, Any], context: str) -> Spans:
    """Each stands in the context where it says; raises BadLabel where one does not. In CSV a cell holds them."""
    given = with_list(given)
    if isinstance(given, Mapping) and {"text", "answer_start"} <= set(given):
        columns = (given["text"], given["answer_start"])
        if not all(isinstance(column, list) for column in columns) or len(columns[0]) != len(columns[1]):
            raise BadLabel("its answers are no two lists of one length, text and answer_start")
        given = [{"text": text, "answer_start": start} for text, start in zip(*columns, strict=True)]
    if not isinstance(given, list):
        raise BadLabel(f"its answers are {shown(given)}, and not a list; an empty one says that the context has none")
    says = cells.get("is_impossible")
    is_impossible = None if says in (None, "") else truth(says)
    if is_impossible is None and says not in (None, ""):
        raise BadLabel(f"is_impossible is {shown(says)}; write true or false")
    if given and is_impossible:
        raise BadLabel("it has answers, and is_impossible says that it has none")
    if not given and is_impossible is False:
        raise BadLabel("it has no answers, and is_impossible says that it has some")
    return [_span(each, context) for each in given]


def _span(cell: Any, context: str) -> list[int]:
    text, start = (cell.get("text"), cell.get("answer_start")) if isinstance(cell, Mapping) else (None, None)
    if not isinstance(text, str) or not text.strip() or type(start) is not int:
        raise BadLabel(f'{shown(cell)} is no answer; write {{"text": …, "answer_start": …}}')
    if start < 0 or context[start : start + len(text)] != text:
        there = shown(context[max(start, 0) : max(start, 0) + len(text)])
        raise BadLabel(f"its answer {shown(text)} does not stand at character {start} of the context; {there} does")
    return [start, start + len(text)]
