"""What we learn from: tasks, the files they are read from, and batches."""

from emdistill.data.glue import GLUE
from emdistill.data.messages import MESSAGES
from emdistill.tasks.task import Task

TASKS: dict[str, Task] = {name: glue.task for name, glue in GLUE.items()} | {MESSAGES.name: MESSAGES}

__all__ = ["TASKS"]
