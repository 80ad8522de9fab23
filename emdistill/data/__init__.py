"""What we learn from: tasks, the files they are read from, and batches."""

from emdistill.data.docstrings import DOCSTRINGS
from emdistill.data.glue import GLUE
from emdistill.tasks.task import Task

TASKS: dict[str, Task] = {name: glue.task for name, glue in GLUE.items()} | {DOCSTRINGS.name: DOCSTRINGS}

__all__ = ["TASKS"]
