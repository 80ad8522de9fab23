"""compress.json: what was tried within which budget, what it scored and costs, and the verdict. Typed."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import FiniteFloat

from emdistill.config import CacheChoice
from emdistill.files import is_inside, write_whole
from emdistill.runs.baseline_record import TITLES
from emdistill.runs.gate_record import Machine, Measured
from emdistill.runs.record import read_record
from emdistill.search.halving import Plan, Trial
from emdistill.search.shapes import Proposal

COMPRESSION = "compress.json"
VERSION = 1
TEACHER = "the teacher itself"

Form = Literal["onnx", "int8"]


@dataclass(frozen=True, kw_only=True)
class FormRow:
    """A model in one form: milliseconds of a text of 128 tokens, bytes of its file, its score on dev once it is known.

    keeps   the budget
    """

    p50: Measured
    p95: Measured
    bytes: Measured
    keeps: bool
    score: FiniteFloat | None = None


@dataclass(frozen=True, kw_only=True)
class CandidateRow(Proposal):
    """What is tried, what it will cost (predicted), and seconds of a whole training.

    method   '' of the teacher itself, which is not trained
    """

    predicted: dict[Form, FormRow]
    seconds: FiniteFloat = 0.0

    @property
    def fits(self) -> bool:
        """Whether one of its forms will keep the budget."""
        return any(form.keeps for form in self.predicted.values())


@dataclass(frozen=True, kw_only=True)
class TrialRow(Trial):
    """A short training: score on the held-out rows, or why there is none."""

    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class FinalRow:
    """A whole training, exported and measured. scores: on dev, by metric, in PyTorch; ship: the form the gate chose."""

    candidate: str
    folder: str
    scores: dict[str, FiniteFloat]
    forms: dict[Form, FormRow]
    ship: Form | None
    seconds: FiniteFloat


@dataclass(frozen=True, kw_only=True)
class BaselineLine:
    """What could be taken instead of a student: its score on the rows that choose, and on dev."""

    held_out: FiniteFloat | None = None
    score: FiniteFloat | None = None
    p95: Measured | None = None
    bytes: Measured | None = None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class PlanRow(Plan):
    """Who is tried, and how long; and what all of them learn from.

    unlabelled_rows   of text without labels that a training learns from
    cache             which of the teacher's outputs are computed once
    """

    unlabelled_rows: int | None = None
    cache: CacheChoice = "logits"


@dataclass(kw_only=True)
class CompressionRecord:
    """Everything that compress.json holds; it grows while the search goes on.

    settings     options and hashes of what was read: another command does not go on with this search
    spent        seconds, over all sessions
    held_out     what chose among short trainings, in words
    teacher      its scores on dev, by metric
    delivered    the candidate whose folder was delivered; None where none keeps the budget, or not yet
    """

    command: str
    settings: dict[str, Any]
    task: str
    metric: str
    budget: str
    hours: FiniteFloat
    machine: Machine
    status: Literal["searching", "finished"] = "searching"
    spent: FiniteFloat = 0.0
    held_out: str = ""
    held_out_rows: int = 0
    dev_rows: int = 0
    teacher: dict[str, FiniteFloat] = field(default_factory=dict)
    candidates: dict[str, CandidateRow] = field(default_factory=dict)
    baselines: dict[str, BaselineLine] = field(default_factory=dict)
    plan: PlanRow | None = None
    trials: list[TrialRow] = field(default_factory=list)
    finals: list[FinalRow] = field(default_factory=list)
    delivered: str | None = None
    verdict: str = ""
    notes: list[str] = field(default_factory=list)
    version: int = VERSION

    def __post_init__(self) -> None:
        for name in self.baselines.keys() - TITLES.keys():
            raise ValueError(f"baselines.{name} is none of {', '.join(TITLES)}")
        rungs = len(self.plan.shares) if self.plan else 0
        for trial in self.trials:
            if trial.candidate not in self.candidates or not 0 <= trial.rung < rungs:
                raise ValueError(f"trials: {trial.candidate} at rung {trial.rung} is none of candidates and plan")
        for final in self.finals:
            if self.metric not in final.scores or final.ship not in (None, *final.forms):
                raise ValueError(f"finals: {final.candidate} lacks its {self.metric}, or the form that it ships")
            if not is_inside(final.folder):
                raise ValueError(f"finals: the folder {final.folder} does not lie within this one")


def write_compression(folder: Path, record: CompressionRecord) -> None:
    """Write compress.json whole or not at all."""
    write_whole(folder / COMPRESSION, json.dumps(asdict(record), indent=1, ensure_ascii=False) + "\n")


def read_compression(folder: Path) -> CompressionRecord | None:
    """compress.json of a folder; None where there is none. Raises OutputError if broken."""
    path = folder / COMPRESSION
    return read_record(path, CompressionRecord) if path.exists() else None
