"""compress.json: what was tried within which budget, what it scored and costs, and the verdict. Typed."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import FiniteFloat

from emdistill.config import CacheChoice
from emdistill.files import is_inside
from emdistill.runs.baseline_record import TITLES
from emdistill.runs.gate_record import Measured
from emdistill.runs.search_record import Form, SearchRecord, write_search
from emdistill.search.budget import Cost
from emdistill.search.halving import Plan, Trial
from emdistill.search.shapes import Proposal

TEACHER = "the teacher itself"


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

    @property
    def cost(self) -> Cost:
        """What counts for a budget."""
        return Cost(self.p95, self.bytes / 1e6)


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
        return self.uses > 0

    @property
    def uses(self) -> float:
        """The most milliseconds of those of its forms that will keep the budget; 0 where none does."""
        return max((form.p50 for form in self.predicted.values() if form.keeps), default=0.0)


@dataclass(frozen=True, kw_only=True)
class FinalRow:
    """A whole training, exported and measured.

    scores           on dev, by metric, in PyTorch
    held_out         on the rows that choose; None of the teacher
    ship             the form the gate chose
    export_seconds   of the export and its measurement
    """

    candidate: str
    folder: str
    scores: dict[str, FiniteFloat]
    forms: dict[Form, FormRow]
    ship: Form | None
    seconds: FiniteFloat
    export_seconds: FiniteFloat = 0.0
    held_out: FiniteFloat | None = None


@dataclass(frozen=True, kw_only=True)
class BaselineLine:
    """What could be taken instead of a student: its score on the rows that choose, and on dev."""

    held_out: FiniteFloat | None = None
    score: FiniteFloat | None = None
    p95: Measured | None = None
    bytes: Measured | None = None
    problem: str = ""

    @property
    def cost(self) -> Cost | None:
        """What counts for a budget; None where it could not be had."""
        return None if self.p95 is None or self.bytes is None else Cost(self.p95, self.bytes / 1e6)


@dataclass(frozen=True, kw_only=True)
class PlanRow(Plan):
    """Who is tried, and how long; and what all of them learn from.

    unlabelled_rows   of text without labels that a training learns from
    cache             which of the teacher's outputs are computed once
    """

    unlabelled_rows: int | None = None
    cache: CacheChoice = "logits"


@dataclass(kw_only=True)
class CompressionRecord(SearchRecord):
    """Everything that compress.json holds beside what all searches record.

    bfloat16     whether trainings multiply in it
    spent        seconds, over all sessions
    held_out     what chooses among students, in words
    failed       who could not be trained, exported or measured as a whole, and why
    delivered    whose folder was delivered: a candidate, or the baseline where none of these keeps the budget and is
                 better; None where none does, or not yet
    """

    FILE = "compress.json"

    budget: str
    hours: FiniteFloat
    bfloat16: bool = False
    spent: FiniteFloat = 0.0
    held_out: str = ""
    held_out_rows: int = 0
    candidates: dict[str, CandidateRow] = field(default_factory=dict)
    baselines: dict[str, BaselineLine] = field(default_factory=dict)
    plan: PlanRow | None = None
    trials: list[Trial] = field(default_factory=list)
    finals: list[FinalRow] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    delivered: str | None = None

    def __post_init__(self) -> None:
        for name in self.baselines.keys() - TITLES.keys():
            raise ValueError(f"baselines.{name} is none of {', '.join(TITLES)}")
        rungs = len(self.plan.shares) if self.plan else 0
        for trial in self.trials:
            if trial.candidate not in self.candidates or not 0 <= trial.rung < rungs:
                raise ValueError(f"trials: {trial.candidate} at rung {trial.rung} is none of candidates and plan")
        for name in {*(self.plan.candidates if self.plan else ()), *(final.candidate for final in self.finals)}:
            if name not in self.candidates:
                raise ValueError(f"plan and finals: {name} is none of candidates")
        for final in self.finals:
            if self.metric not in final.scores or final.ship not in (None, *final.forms):
                raise ValueError(f"finals: {final.candidate} lacks its {self.metric}, or the form that it ships")
            if not is_inside(final.folder):
                raise ValueError(f"finals: the folder {final.folder} does not lie within this one")


@dataclass
class CompressionStudy:
    """A search that this process is at.

    started   time.perf_counter() up to which the record has added up the time
    """

    folder: Path
    record: CompressionRecord
    started: float

    @property
    def seconds_left(self) -> float:
        """Of the search's time."""
        return 3600 * self.record.hours - self.record.spent - (time.perf_counter() - self.started)

    def save(self) -> None:
        """Write compress.json, the time until now added."""
        now = time.perf_counter()
        self.record.spent += now - self.started
        self.started = now
        write_search(self.folder, self.record)
