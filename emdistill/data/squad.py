"""Questions and the texts that answer them: SQuAD's JSON, v1.1 and v2, and rows of question, context and answers."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from emdistill.data.compressed import plain_path
from emdistill.data.files import HALF_PAIR, has_half_pair
from emdistill.data.rows import BadRows, Row, check_file, read_rows, text_lines
from emdistill.errors import DataError, shown
from emdistill.tasks.kind import BadLabel


class Answer(NamedTuple):
    """A part of a context: its text, and the character at which it begins."""

    text: str
    start: int


class Question(NamedTuple):
    """A question on a context; no answers: the context has none."""

    id: str
    line: int
    question: str
    context: str
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True)
class Questions:
    """The questions of one file; further problems go to `bad`."""

    bad: BadRows
    questions: list[Question] = field(default_factory=list)

    @property
    def some_unanswerable(self) -> bool:
        """Whether some context has no answer, as in SQuAD v2."""
        return not all(question.answers for question in self.questions)


def read_squad(path: Path, *, labelled: bool = True) -> Questions:
    """The questions of a file in SQuAD's format (.json), or one per row: question, context, answers, perhaps id.

    answers    of rows: a list of {"text", "answer_start"}, or {"text": [...], "answer_start": [...]}; empty for none
    labelled   False: answers may be absent, and are not read
    Raises DataError for a file that cannot be read, and for bad questions: an answer that does not stand where the
    file says, an empty text, an id that occurs twice. Each is named by its line and id.
    """
    check_file(path)
    bad = BadRows(path)
    squad = _squad_json(path)
    rows = read_rows(path, bad) if squad is None else _of_squad(*squad, path)
    questions: dict[str, Question] = {}
    for number, (line, row) in enumerate(rows, start=1):
        id_ = str(row.get("id", number))
        try:
            if id_ in questions:
                raise BadLabel(f"occurs twice, on line {questions[id_].line} too")
            questions[id_] = _question(id_, line, row, labelled=labelled)
        except BadLabel as error:
            bad.add(line, f"question {id_}: {error}")
    bad.check()
    if not questions:
        raise DataError("there are no questions", file=path)
    return Questions(bad, list(questions.values()))


def _squad_json(path: Path) -> tuple[dict[str, Any], str] | None:
    """The object of a file that is one JSON object with `data`, and its text; None for any other file."""
    if plain_path(path).suffix.lower() != ".json":
        return None
    content = "".join(text_lines(path))
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError):
        return None  # one object per line, perhaps
    return (whole, content) if isinstance(whole, dict) and "data" in whole else None


def _of_squad(whole: Mapping[str, Any], content: str, path: Path) -> Iterator[Row]:
    """The questions as rows, each with the line on which its id stands."""
    line, reached = 1, -1
    try:
        for article in whole["data"]:
            for paragraph in article["paragraphs"]:
                for cells in paragraph["qas"]:
                    place = content.find(json.dumps(cells.get("id")), reached + 1)
                    if place >= 0:
                        line, reached = line + content.count("\n", max(reached, 0), place), place
                    yield Row(line, {**cells, "context": paragraph["context"]})
    except (TypeError, KeyError, AttributeError) as error:
        layout = '{"data": [{"paragraphs": [{"context": …, "qas": [{"id": …, "question": …, "answers": […]}]}]}]}'
        problem = f"this is not the layout of SQuAD, {layout}: {type(error).__name__} {error}"
        raise DataError(problem, file=path, line=line) from None


def _question(id_: str, line: int, cells: Mapping[str, Any], *, labelled: bool) -> Question:
    for name in ("question", "context"):
        text = cells.get(name)
        if not isinstance(text, str) or not text.strip():
            raise BadLabel(f"its {name} is {shown(text)}, which is no text")
        if has_half_pair(text):
            raise BadLabel(f"its {name} {HALF_PAIR}")
    context = cells["context"]
    answers = _answers(cells, context) if labelled else ()
    return Question(id_, line, cells["question"], context, answers)


def _answers(cells: Mapping[str, Any], context: str) -> tuple[Answer, ...]:
    """Each stands in the context where it says; raises BadLabel where one does not."""
    given = cells.get("answers")
    if isinstance(given, Mapping) and {"text", "answer_start"} <= set(given):
        columns = (given["text"], given["answer_start"])
        if not all(isinstance(column, list) for column in columns) or len(columns[0]) != len(columns[1]):
            raise BadLabel("its answers are no two lists of one length, text and answer_start")
        given = [{"text": text, "answer_start": start} for text, start in zip(*columns, strict=True)]
    if not isinstance(given, list):
        raise BadLabel(f"its answers are {shown(given)}, and not a list; an empty one says that the context has none")
    if given and cells.get("is_impossible"):
        raise BadLabel("it has answers, and is_impossible says that it has none")
    return tuple(_answer(each, context) for each in given)


def _answer(cell: Any, context: str) -> Answer:
    text, start = (cell.get("text"), cell.get("answer_start")) if isinstance(cell, Mapping) else (None, None)
    if not isinstance(text, str) or not text.strip() or type(start) is not int:
        raise BadLabel(f'{shown(cell)} is no answer; write {{"text": …, "answer_start": …}}')
    if start < 0 or context[start : start + len(text)] != text:
        there = shown(context[max(start, 0) : max(start, 0) + len(text)])
        raise BadLabel(f"its answer {shown(text)} does not stand at character {start} of the context; {there} does")
    return Answer(text, start)
