"""onnx/gate.json of a run: what each form of the student is worth on one machine, and the verdict. Typed."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, FiniteFloat

from emdistill.console import counted
from emdistill.files import write_json
from emdistill.runs.record import check_record, read_record

GATE = Path("onnx", "gate.json")

Measured = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class TimedCase:
    """Batches of `batch` texts of `length` tokens: milliseconds per batch, texts per second, calls that were timed."""

    batch: int
    length: int
    p50: Measured
    p95: Measured
    p99: Measured
    throughput: Measured
    calls: int


@dataclass(frozen=True)
class LogitDifference:
    """Largest and mean |logit - PyTorch student's|."""

    largest: float
    mean: float


@dataclass(frozen=True)
class HeadRecord:
    """What was measured of one head of several: its task's first metric, and its points below the PyTorch student."""

    metric: str
    score: FiniteFloat
    drop: FiniteFloat | None = None
    drop_standard_error: FiniteFloat | None = None


@dataclass(frozen=True)
class VariantRecord:
    """What was measured of one form of the model: teacher, student (PyTorch), onnx, int8.

    bytes                of the model file
    drop                 points (hundredths) of the first metric below the PyTorch student's; None for the teacher
    agreement            with the teacher
    method, weight_bits, kept_in_float32   how int8 was made
    heads                by task, where it answers several; score and drop are then the means over them
    """

    runtime: str
    file: str
    bytes: int
    scores: dict[str, FiniteFloat]
    latency: tuple[TimedCase, ...]
    drop: FiniteFloat | None = None
    drop_standard_error: FiniteFloat | None = None
    drop_from_teacher: FiniteFloat | None = None
    agreement: FiniteFloat | None = None
    logits: LogitDifference | None = None
    load_seconds: float | None = None
    import_seconds: float | None = None
    peak_mb: float | None = None
    method: str | None = None
    weight_bits: int | None = None
    kept_in_float32: tuple[str, ...] = ()
    heads: dict[str, HeadRecord] = field(default_factory=dict)

    @property
    def limit_case(self) -> TimedCase | None:
        """The case that the latency limit is about: batch 1 at the longest length timed."""
        single = [case for case in self.latency if case.batch == 1]
        return max(single, key=lambda case: case.length, default=None)


@dataclass(frozen=True)
class Machine:
    """The processor that everything was measured on, and how much of it was used."""

    cpu: str
    cores: int
    threads: int

    def __str__(self) -> str:
        """'Some Processor, 2 threads'."""
        return f"{self.cpu}, {counted(self.threads, 'thread')}"


@dataclass(frozen=True)
class VerdictRecord:
    """go: some exported variant keeps every limit; ship: the fastest that does; failures: by variant."""

    go: bool
    ship: str | None
    failures: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class GateRecord:
    """Everything that gate.json holds. limits: by the option's name, None where there is none."""

    status: str
    versions: dict[str, str]
    machine: Machine
    limits: dict[str, float | None]
    metric: str
    dev_rows: int
    variants: dict[str, VariantRecord]
    verdict: VerdictRecord

    @property
    def cases(self) -> dict[tuple[int, int], dict[str, TimedCase]]:
        """The times of each batch and length, in that order, by variant."""
        places = sorted({(case.batch, case.length) for variant in self.variants.values() for case in variant.latency})
        cases: dict[tuple[int, int], dict[str, TimedCase]] = {place: {} for place in places}
        for name, variant in self.variants.items():
            for case in variant.latency:
                cases[case.batch, case.length][name] = case
        return cases

    @property
    def limit_cases(self) -> dict[str, TimedCase]:
        """The case that the latency limit is about, by variant."""
        return {name: case for name, variant in self.variants.items() if (case := variant.limit_case)}

    def __post_init__(self) -> None:
        for name, variant in self.variants.items():
            if self.metric not in variant.scores:
                raise ValueError(f"variants.{name}.scores has no {self.metric}")
        if self.verdict.go and self.verdict.ship not in self.variants:
            raise ValueError(f"verdict.ship is {self.verdict.ship!r}, none of variants")


def read_gate(folder: Path) -> GateRecord | None:
    """gate.json of a run folder; None where nothing was measured, or not to its end. Raises OutputError if broken."""
    path = folder / GATE
    if not path.exists():
        return None
    mend = f"measure again: emdistill export {folder} --overwrite"
    record = read_record(path, dict[str, Any], mend=mend)
    return None if record.get("status") == "running" else check_record(record, GateRecord, path, mend=mend)


def write_gate(path: Path, gate: GateRecord) -> None:
    """Write gate.json whole or not at all; how int8 was made stands with that variant alone, heads where there are."""
    plain = asdict(gate)
    for variant in plain["variants"].values():
        if variant["method"] is None:
            del variant["method"], variant["weight_bits"], variant["kept_in_float32"]
        if not variant["heads"]:
            del variant["heads"]
    write_json(path, plain)
