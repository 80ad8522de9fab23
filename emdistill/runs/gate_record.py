"""onnx/gate.json of a run: what each form of the student is worth on one machine, and the verdict. Typed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from emdistill.errors import OutputError
from emdistill.files import write_whole
from emdistill.runs.record import read_record

GATE = Path("onnx", "gate.json")


@dataclass(frozen=True)
class TimedCase:
    """Batches of `batch` texts of `length` tokens: milliseconds per batch, texts per second, calls that were timed."""

    batch: int
    length: int
    p50: float
    p95: float
    p99: float
    throughput: float
    calls: int


@dataclass(frozen=True)
class LogitDifference:
    """Largest and mean |logit - PyTorch student's|."""

    largest: float
    mean: float


@dataclass(frozen=True)
class VariantRecord:
    """What was measured of one form of the model: teacher, student (PyTorch), onnx, int8.

    bytes                of the model file
    drop                 points (hundredths) of the first metric below the PyTorch student's; None for the teacher
    agreement            with the teacher
    method, kept_in_float32   how int8 was made
    """

    runtime: str
    file: str
    bytes: int
    scores: dict[str, float]
    latency: tuple[TimedCase, ...]
    drop: float | None = None
    drop_standard_error: float | None = None
    drop_from_teacher: float | None = None
    agreement: float | None = None
    logits: LogitDifference | None = None
    load_seconds: float | None = None
    import_seconds: float | None = None
    peak_mb: float | None = None
    method: str | None = None
    kept_in_float32: tuple[str, ...] = ()

    @property
    def judged(self) -> TimedCase | None:
        """The case that the latency limit is about: batch 1 at the longest length timed."""
        single = [case for case in self.latency if case.batch == 1]
        return max(single, key=lambda case: case.length, default=None)


@dataclass(frozen=True)
class Machine:
    """The processor that everything was measured on, and how much of it was used."""

    cpu: str
    cores: int
    threads: int


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


def read_gate(folder: Path) -> GateRecord | None:
    """gate.json of a run folder; None where nothing was measured, or not to its end. Raises OutputError if broken."""
    path = folder / GATE
    if not path.exists():
        return None
    mend = f"measure again: emdistill export {folder} --overwrite"
    try:
        unfinished = json.loads(path.read_text(encoding="utf-8")).get("status") == "running"
    except (ValueError, AttributeError, RecursionError) as error:
        raise OutputError(f"{path} is broken ({error}); {mend}") from None
    return None if unfinished else read_record(path, GateRecord, mend=mend)


def write_gate(path: Path, gate: GateRecord) -> None:
    """Write gate.json whole or not at all."""
    write_whole(path, json.dumps(asdict(gate), indent=2, ensure_ascii=False) + "\n")
