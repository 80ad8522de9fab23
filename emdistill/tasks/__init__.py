"""What is asked: the kinds of task, one file each."""

from emdistill.errors import ConfigError, nearest
from emdistill.tasks.classification import Classification
from emdistill.tasks.kind import TaskKind
from emdistill.tasks.multi_label import MultiLabel
from emdistill.tasks.regression import Regression

KINDS: dict[str, TaskKind] = {kind.name: kind for kind in (Classification(), Regression(), MultiLabel())}


def find_kind(name: str) -> TaskKind:
    """The kind of that name; raises ConfigError with the nearest one."""
    if name not in KINDS:
        raise ConfigError(f"--kind {name}: there is no such kind; there are: {', '.join(KINDS)}.{nearest(name, KINDS)}")
    return KINDS[name]


def kind_of_model(problem_type: str | None, outputs: int, name: str | None = None) -> TaskKind:
    """The kind of task that a model was trained for, by its config: its `name` in KINDS where emdistill trained it."""
    if name in KINDS and problem_type in (None, KINDS[name].problem_type):
        return KINDS[name]
    default = "regression" if outputs == 1 else "classification"
    of_problem = [kind for kind in KINDS.values() if kind.problem_type == problem_type]
    return next(iter(of_problem), KINDS[default])


__all__ = ["KINDS", "TaskKind", "find_kind", "kind_of_model"]
