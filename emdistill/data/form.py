"""A form that data come in: one file that subclasses Form, and a line in FORMS (data/read.py).

Only a form knows how its data are recognised, read to learn from, and read to be predicted.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from datasets import Dataset

from emdistill.data.files import Columns, read_inputs, text_problem, text_rows
from emdistill.data.rows import BadRows, Row
from emdistill.tasks import TaskKind
from emdistill.tasks.task import Task, TaskData


@dataclass(frozen=True)
class Request:
    """What a user names of the data to learn from.

    data     a file, a folder, a name on the hub, or the name of a task that brings its own
    columns  the columns of text, second text and label
    dev      a file to score on
    task     one of the form's; None: the data are the user's own
    kind     of the task; None: found from the data
    varied   refuse labels that are all the same
    """

    data: str
    columns: Columns
    dev: Path | None = None
    task: str | None = None
    kind: TaskKind | None = None
    varied: bool = True


class Writer(Protocol):
    """Writes rows beside their answers."""

    def write(self, path: Path, further: Sequence[Mapping[str, Any]]) -> None:
        """further: the answers' cells, of each row."""


class Inputs(NamedTuple):
    """Rows to predict, and what a model reads of them; beside: writes answers into a copy of the file, if it can."""

    rows: list[Row]
    examples: Dataset
    beside: Writer | None = None


class Form(ABC):
    """One form of data.

    kinds    the kinds of task whose data come in this form
    tasks    public tasks that come in it: name -> what is asked
    columns  of texts and labels, where nobody names them
    """

    kinds: tuple[TaskKind, ...] = ()
    columns: Columns = Columns()
    tasks: ClassVar[Mapping[str, str]] = {}

    def recognises(self, data: str) -> bool:
        """Whether the data say by themselves that they have this form."""
        return False

    def kinds_of(self, task: str) -> tuple[TaskKind, ...]:
        """The kinds that one of `tasks` may be of."""
        return self.kinds

    def known(self, task: str) -> Task | None:
        """One of `tasks`, where it is known without its data."""
        return None

    @abstractmethod
    def read(self, request: Request) -> TaskData:
        """The task and its checked examples; without `dev` where there is none.

        Raises ConfigError for options that do not fit, DataError for data that cannot be used.
        """

    def text_columns(self, task: Task) -> tuple[Columns, ...]:
        """Where further texts without labels may stand, beside the columns that are named."""
        return ()

    def text_rows(self, file: Path, columns: Columns, bad: BadRows) -> Iterator[Row]:
        """The rows of a file whose texts are read; columns: where they are to stand. Raises as `read`."""
        return text_rows(file, columns, bad)

    def text_problem(self, row: Row, column: str, file: Path) -> str:
        """What is wrong with a row's text, or ''."""
        return text_problem(row, column)

    def text(self, cell: Any, file: Path) -> str:
        """The text that a cell without a problem holds."""
        return str(cell)

    def suffixes_beside(self, file: Path) -> tuple[str, ...]:
        """The suffixes of files that hold answers beside what `file` holds, all else as it was."""
        return ()

    def inputs(self, file: Path, columns: Columns, task: Task, *, is_text_named: bool) -> Inputs:
        """What a model of a task is asked to predict.

        columns        of the text and the second text: the model's own, or those that are named
        is_text_named  whether the user names the text's
        Raises as `read`.
        """
        rows = read_inputs(file, columns.text, columns.text_pair, partial(self.text_problem, file=file))
        named = {"text": columns.text, "text_pair": columns.text_pair}
        texts = {name: [row.cells[column] for row in rows] for name, column in named.items() if column is not None}
        return Inputs(rows, task.rows_of_text(texts))
