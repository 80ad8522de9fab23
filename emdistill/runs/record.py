"""run.json: a run's options, what it read, what came out. Typed and versioned.

Version 1 is what the first release wrote, without a number: it has the same fields. A record that lacks a field which
was added later still opens, with that field's default; a field that is missing or of a wrong type is named with its
file. The last entry is a checksum of all above it; a record of an earlier version has none.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from emdistill.errors import OutputError
from emdistill.files import sealed, unsealed, write_whole
from emdistill.states import EncoderShape
from emdistill.values import parse_json, read_values, typed

RUN_FILE = "run.json"
VERSION = 2
MEND = "copy it again, or start again with --overwrite"

Record = TypeVar("Record")


@dataclass(frozen=True)
class ModelRecord:
    """A model's size, shape and family (its config's model_type; '' in records of before).

    cut_out: the teacher's layers and heads that a student was cut from, if it was.
    """

    parameters: int
    bytes: int
    shape: EncoderShape
    cut_out: tuple[dict[str, Any], ...] = ()
    family: str = ""


@dataclass(frozen=True, kw_only=True)
class AnswersRecord:
    """A teacher that is a file of answers.

    rows, texts   of the file, and how many different texts they answer
    answered      how many rows of "train", and of each evaluation set, have an answer
    scores        by metric, on the answered rows of the first evaluation set where others have no answer
    notes         what a reader must know of them, a sentence each
    """

    kind: Literal["answers"] = "answers"
    file: str
    sha256: str
    rows: int
    texts: int
    answered: dict[str, int]
    scores: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MemberRecord:
    """One of several teachers: its name, the weight of its answers, SHA-256 of its weights, size and shape."""

    name: str
    weight: float
    sha256: str
    model: ModelRecord


@dataclass(frozen=True)
class FileRecord:
    """A file that was read."""

    name: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class TaskRecord:
    """The task and its data. held_out: how dev was cut out of train, where no development set was given."""

    name: str
    kind: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    evaluation_rows: dict[str, int]
    description: str = ""
    pairs: bool = False
    train_rows: int = 0
    files: tuple[FileRecord, ...] = ()
    held_out: str | None = None

    @property
    def metric(self) -> str:
        """The metric that counts."""
        return self.metrics[0]


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Of a run's options, `RunRecord.config`, those that say what it read; a fine-tuned model had no teacher."""

    data: str = ""
    max_length: int
    task: str | None = None
    dev: str | None = None
    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    kind: str | None = None
    teacher: str | None = None


@dataclass(frozen=True)
class StageLog:
    """The training log of one stage, as transformers keeps it: one entry per time of logging."""

    stage: str
    log: list[dict[str, Any]]

    @property
    def steps(self) -> list[tuple[int, dict[str, Any]]]:
        """The entries that say at which step they were written, by that step."""
        return [(entry["step"], entry) for entry in self.log if type(entry.get("step")) is int]


@dataclass(kw_only=True)
class RunRecord:
    """Everything that run.json holds.

    config      the options, resolved, as plain values
    status      "finished" comes last, after everything else stands
    hashes      SHA-256 of all that was read, by name
    task        None for raw text, whose numbers stand in `corpus` and `held_out_loss` ({"before", "after"})
    tasks       each one's by its name, where a student has learned several; `task` then stands for them together
    selection   how the checkpoint was chosen, in a sentence
    rows        how many were learned from, and chosen on
    unlabelled  how many texts without labels were read, left out and kept; None where none were given
    steps_per_epoch  updates of the student per pass over all that is learned from
    rows_per_step  by stage: rows per update of the student, of all processes and accumulated gradients together
    objective   equation by stage
    teacher     of several the sizes are added up, and the shape is the first one's
    teachers    each of them, where they are several
    scores      {"teacher", "student"} by metric, on the evaluation sets; no teacher's where it has not answered all;
                of each of several as "teacher NAME"
    timings     seconds, added up over the sessions of a run that was resumed
    files       SHA-256 of what the run has left, by its place in the folder
    """

    config: dict[str, Any]
    seed: int
    status: Literal["running", "finished"] = "running"
    versions: dict[str, str] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    task: TaskRecord | None = None
    tasks: dict[str, TaskRecord] = field(default_factory=dict)
    corpus: dict[str, int] | None = None
    selection: str = ""
    rows: dict[str, int] = field(default_factory=dict)
    unlabelled: dict[str, int] | None = None
    steps_per_epoch: int | None = None
    rows_per_step: dict[str, int] = field(default_factory=dict)
    texts_cut_at_max_length: int | None = None
    share_of_padding: float | None = None
    arithmetic: dict[str, Any] = field(default_factory=dict)
    objective: dict[str, str] = field(default_factory=dict)
    teacher: ModelRecord | AnswersRecord | None = None
    teachers: tuple[MemberRecord, ...] = ()
    student: ModelRecord | None = None
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    held_out_loss: dict[str, dict[str, float]] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    log: list[StageLog] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    version: int = 1

    @property
    def learned_from(self) -> str:
        """How many rows, or pieces of text, in words."""
        count = f"{self.rows.get('train', 0):,}"
        if self.unlabelled is None:
            return f"{count} {'rows' if self.task else 'pieces of text'}"
        return f"{count} labelled rows and {self.unlabelled['kept']:,} without labels"

    @property
    def texts(self) -> int:
        """How many texts are learned from, each counted once, with labels and without."""
        return self.rows.get("train", 0) + (0 if self.unlabelled is None else self.unlabelled["kept"])

    @property
    def is_finished(self) -> bool:
        """Whether everything of the run stands."""
        return self.status == "finished"


def read_run(folder: Path) -> RunRecord:
    """run.json of a run folder; raises OutputError where it is missing, broken, or lacks what every run has."""
    path = folder / RUN_FILE
    if not path.is_file():
        raise OutputError(f"{folder} holds no {RUN_FILE}: it is no run folder")
    return read_record(path, RunRecord)


def write_run(folder: Path, run: RunRecord) -> None:
    """Write run.json whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(asdict(run), indent=2, ensure_ascii=False).encode()
    write_whole(folder / RUN_FILE, sealed(content, b"\n  ").decode() + "\n")


def read_record(path: Path, kind: type[Record], *, mend: str = MEND) -> Record:
    """A JSON file as a record of this dataclass; raises OutputError naming file, field and mend."""
    try:
        content = read_values(path, lambda content: parse_json(unsealed(content)))
    except ValueError as error:
        raise OutputError(f"{path} is broken ({error}); {mend}") from None
    if not isinstance(content, Mapping):
        raise OutputError(f"{path} is broken (it holds no record); {mend}")
    return check_record(content, kind, path, mend=mend)


def check_record(content: object, kind: type[Record], path: Path, *, mend: str = MEND, within: str = "") -> Record:
    """Plain values of a file, or those of its field `within`, as a record of this dataclass; OutputError as above."""
    try:
        return typed(content, kind, within)
    except ValueError as error:
        raise OutputError(f"{path} is broken ({error}); {mend}") from None
