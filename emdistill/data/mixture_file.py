"""A mixture file: the tasks that one student learns together, in YAML.

    temper: 0.75                      # how often each task is met: rows to this power
    gate: true                        # what the tasks share beside the encoder
    tasks:
      - {task: rte, data: glue/RTE, teacher: teachers/rte}
      - {name: stars, data: reviews.csv, text: body, label: stars, teacher: teachers/stars, weight: 2}

A list of tasks alone is one too. Paths are those beside the file, where they are there, else as they are written.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

from emdistill.config import LIMITS, check_limits
from emdistill.errors import ConfigError, nearest
from emdistill.files import matching
from emdistill.tasks.mixture import TEMPER, shares
from emdistill.values import parse_yaml, read_values

SUFFIXES = (".yaml", ".yml")
NAME = re.compile(r"[\w-]+")
PLACES = ("data", "dev", "teacher", "augmented", "unlabelled")


@dataclass(frozen=True, kw_only=True)
class MixtureTask:
    """One task of a mixture: options as of `emdistill distill`, and what only a mixture asks.

    name    of its head; the task's, or the data's, if not given
    weight  how often it is met, beside what its rows say
    layer   how many of the student's layers it is answered from; None: all
    head    of a teacher of several tasks, which of its heads teaches; the one of this name if not given
    unlabelled, unlabelled_rows, labelled_share   text without labels, which this task's teacher answers
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str = ""
    data: str = ""
    task: str | None = None
    dev: str | None = None
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    kind: str | None = None
    teacher: str | None = None
    head: str | None = None
    rows: int | None = None
    augmented: str | None = None
    unlabelled: str | None = None
    unlabelled_rows: int | None = None
    labelled_share: float | None = None
    weight: float = 1.0
    layer: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options of a distillation of this task alone, where they are given."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if name not in ("name", "weight", "layer") and value}

    @property
    def places(self) -> list[str]:
        """All that is read of it."""
        return [place for name in PLACES for place in (getattr(self, name) or "").split(",") if place]


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What a mixture file says.

    temper           p_t ∝ weight · rows^temper
    private          each task's head has features of its own beside the shared ones
    gate             a gate of each task mixes its own features with the shared ones
    label_embedding  tasks answer by vectors of their labels' names
    orthogonality    weight of ‖SᵀP‖²_F between shared and private features; 0 switches it off
    adversary        weight of the discriminator that tells tasks apart by shared features; 0 switches it off
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    tasks: list[MixtureTask]
    temper: float = TEMPER
    private: bool = False
    gate: bool = False
    label_embedding: bool = False
    orthogonality: float = 0.0
    adversary: float = 0.0


_MIXTURE: TypeAdapter[Mixture] = TypeAdapter(Mixture)


def is_mixture(data: str) -> bool:
    """Whether data are the file of several tasks."""
    return Path(data).suffix.lower() in SUFFIXES


def read_mixture(path: Path) -> Mixture:
    """The tasks of a file; raises ConfigError, naming all that is wrong in it."""
    try:
        content = read_values(path, parse_yaml)
    except ValueError as error:
        raise ConfigError(f"--data {path} cannot be read as YAML: {error}") from None
    content = {"tasks": content} if isinstance(content, list) else content
    if not isinstance(content, Mapping) or not isinstance(content.get("tasks"), list):
        raise ConfigError(
            f"{path} must list the tasks that a student learns: tasks: [{{task: rte, data: glue/RTE}}, …]"
        )
    try:
        mixture = _MIXTURE.validate_python(content)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {_fault(fault)}" for fault in error.errors())) from None
    tasks = [_placed(task, path.parent) for task in mixture.tasks]
    _check(path, tasks)
    for task in tasks:
        check_limits(dict.fromkeys(LIMITS, f" ({path}, task {task.name})"), **vars(task))
    mixture = replace(mixture, tasks=tasks)
    if mixture.orthogonality and not (mixture.private or mixture.gate):
        raise ConfigError(
            f"{path}: orthogonality needs private features to be orthogonal to: private: true, or gate: true"
        )
    if not 0 <= mixture.orthogonality < float("inf") or not 0 <= mixture.adversary < float("inf"):
        raise ConfigError(f"{path}: orthogonality and adversary are weights, 0 (off) or above")
    shares([1] * len(tasks), mixture.temper, [task.weight for task in tasks])
    return mixture


def _fault(fault: Any) -> str:
    """Where a value stands, and what is wrong with it."""
    *place, name = fault["loc"]
    where = ".".join(map(str, fault["loc"]))
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = [item.name for item in fields(MixtureTask if place else Mixture)]
        return f"unknown setting '{where}'.{nearest(str(name), known)}"
    return f"{where}: {fault['msg']}"


def _placed(task: MixtureTask, folder: Path) -> MixtureTask:
    """The task with its name, and its paths as seen from here."""
    places = {name: _beside(folder, place) for name in PLACES if (place := getattr(task, name))}
    name = task.name or task.task or Path(task.data).name.partition(".")[0]
    return replace(task, name=name, **cast(Any, places))


def _beside(folder: Path, names: str) -> str:
    """A place as seen from here, or several that are separated by commas."""
    if matching(str(folder / names)):
        return str(folder / names)
    places = [name.strip() for name in names.split(",")]
    return ",".join(str(folder / place) if place and matching(str(folder / place)) else place for place in places)


def _check(path: Path, tasks: list[MixtureTask]) -> None:
    names = [task.name for task in tasks]
    wrong = [name for name in names if not NAME.fullmatch(name)]
    if wrong:
        raise ConfigError(
            f"{path}: the name of a task is letters, digits, - and _, not {wrong[0]!r}; give it one: name"
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{path}: two tasks are called {twice[0]}; give one another name: name")
    if absent := [task.name for task in tasks if not task.data]:
        raise ConfigError(f"{path}: the task {absent[0]} names no data")
    if len(tasks) < 2:
        raise ConfigError(f"{path} names {len(tasks)} task; a mixture has two or more")
