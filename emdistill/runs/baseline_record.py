"""baselines.json of a run or a comparison: what the student is worth beside what a user could take instead. Typed."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import FiniteFloat

from emdistill.errors import ConfigError, nearest
from emdistill.files import write_json
from emdistill.runs.gate_record import Machine, Measured
from emdistill.runs.record import read_record

BASELINES = "baselines.json"
FOLDER = "baselines"  # of a run, where the student on labels alone is trained
VERSION = 1
OWN_INT8 = "int8"

# Each baseline's option and what people call it.
TITLES = {
    "tfidf": "TF-IDF",
    "frozen": "the frozen encoder",
    "static": "static word vectors",
    "labels": "labels alone",
    "int8-teacher": "the teacher in int8",
    OWN_INT8: "the student in int8",
}


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """What was measured of one model.

    scores            by metric; empty where the model could not be had, and `problem` says why
    standard_error    of the first metric over the rows of dev, points (hundredths)
    lead              of the student over this model in that metric, points; None for the student
    lead_error        its standard error, both answering the same rows
    p50, p95          milliseconds from a text to its logits
    seconds           to train it
    """

    scores: dict[str, FiniteFloat] = field(default_factory=dict)
    standard_error: FiniteFloat | None = None
    lead: FiniteFloat | None = None
    lead_error: FiniteFloat | None = None
    bytes: int | None = None
    p50: Measured | None = None
    p95: Measured | None = None
    seconds: FiniteFloat | None = None
    note: str = ""
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class BaselineRecord:
    """Everything that baselines.json holds. baselines: by their names in TITLES; student: what it is called."""

    metric: str
    dev_rows: int
    machine: Machine
    teacher: ModelRow
    student: ModelRow
    baselines: dict[str, ModelRow]
    student_name: str = "student"
    notes: tuple[str, ...] = ()
    version: int = VERSION

    def __post_init__(self) -> None:
        for name, row in {"teacher": self.teacher, "student": self.student, **self.baselines}.items():
            if self.metric not in row.scores and not row.problem:
                raise ValueError(f"{name} has neither a score in {self.metric} nor a problem")

    @property
    def computed(self) -> dict[str, ModelRow]:
        """The baselines that could be had."""
        return {name: row for name, row in self.baselines.items() if not row.problem and name != OWN_INT8}

    @property
    def own_int8(self) -> ModelRow | None:
        """The student itself in int8, which is no baseline; None where it was not asked for, or could not be had."""
        row = self.baselines.get(OWN_INT8)
        return row if row and not row.problem else None

    def score(self, row: ModelRow) -> float:
        """The metric that counts."""
        return row.scores[self.metric]


def baseline_names(text: str) -> tuple[str, ...]:
    """The names that `--baselines` lists, in the order of TITLES; raises ConfigError with the nearest for another."""
    if text.strip() in ("all", "none"):
        return tuple(TITLES) if text.strip() == "all" else ()
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in TITLES:
            listed = ", ".join(TITLES)
            raise ConfigError(f"--baselines {text}: {name!r} is none of {listed}, all, none.{nearest(name, TITLES)}")
    if not names:
        raise ConfigError("--baselines names nothing; write none where none is wanted")
    return tuple(name for name in TITLES if name in names)


def write_baselines(folder: Path, record: BaselineRecord) -> None:
    """Write baselines.json whole or not at all."""
    write_json(folder / BASELINES, asdict(record))


def read_baselines(folder: Path) -> BaselineRecord | None:
    """baselines.json of a folder; None where there is none. Raises OutputError if broken."""
    path = folder / BASELINES
    return read_record(path, BaselineRecord, mend="remove it") if path.exists() else None
