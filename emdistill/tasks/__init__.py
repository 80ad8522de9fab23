"""What is asked: the kinds of task, one file each."""

from emdistill.errors import ConfigError, nearest
from emdistill.states import SEQUENCE
from emdistill.tasks.classification import Classification
from emdistill.tasks.kind import TaskKind
from emdistill.tasks.multi_label import MultiLabel
from emdistill.tasks.regression import Regression
from emdistill.tasks.scores import Scores
from emdistill.tasks.span_answers import SpanAnswers, SpanAnswersOrNone
from emdistill.tasks.tagging import Tagging

KINDS: dict[str, TaskKind] = {
    kind.name: kind
    for kind in (
        Classification(),
        Regression(),
        MultiLabel(),
        Scores(),
        Tagging(),
        SpanAnswers(),
        SpanAnswersOrNone(),
    )
}


def find_kind(name: str) -> TaskKind:
    """The kind of that name; raises ConfigError with the nearest one."""
    if name not in KINDS:
        raise ConfigError(f"--kind {name}: there is no such kind; there are: {', '.join(KINDS)}.{nearest(name, KINDS)}")
    return KINDS[name]


def kind_of_model(problem_type: str | None, outputs: int, name: str | None = None, head: str = SEQUENCE) -> TaskKind:
    """The kind of task that a model was trained for, by its config: its `name` in KINDS where emdistill trained it.

    head   what stands on the encoder (TaskKind.head)
    """
    if name in KINDS and problem_type in (None, KINDS[name].problem_type):
        return KINDS[name]
    of_problem = [kind for kind in KINDS.values() if (kind.problem_type, kind.head) == (problem_type, head)]
    if fitting := [kind for kind in of_problem if kind.named or outputs == 1]:
        return fitting[0]
    return kind_of_head(head) if head != SEQUENCE or outputs > 1 else KINDS["regression"]


def kind_of_head(head: str) -> TaskKind:
    """The first kind whose models have this head; of a head that no kind names, as of a masked-LM, the first of all."""
    return next((kind for kind in KINDS.values() if kind.head == head), next(iter(KINDS.values())))


__all__ = ["KINDS", "TaskKind", "find_kind", "kind_of_head", "kind_of_model"]
