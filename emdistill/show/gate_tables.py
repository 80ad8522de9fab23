"""A gate as two tables and a verdict in words: for the terminal, the ONNX card and the pages."""

from emdistill.console import ABSENT, Table, cell, megabytes, short
from emdistill.runs.gate_record import GateRecord, HeadRecord, VariantRecord
from emdistill.runs.search_record import Form

NAMES = {"teacher": "teacher", "student": "student", "onnx": "student, ONNX", "int8": "student, int8"}
FORMS: dict[Form, str] = {"onnx": "float32", "int8": "int8"}
WORTH_CAPTION = (
    "drop: points below the PyTorch student ± standard error; logits: largest and mean difference to it; "
    "agrees: with the teacher; load: without imports; peak: memory of a process that loads it"
)


def gate_tables(gate: GateRecord) -> tuple[Table, Table]:
    """What each variant is worth, and how fast it is; MB = 10⁶ bytes."""
    return _worth(gate), _speed(gate)


def _worth(gate: GateRecord) -> Table:
    headings = ["", gate.metric.replace("_", "\n"), "drop", "logits", "agrees", "file\nMB", "load\ns", "peak\nMB"]
    lines = [
        [
            name_of(name),
            f"{variant.scores[gate.metric]:.4f}",
            _drop(variant),
            ABSENT if variant.logits is None else f"{variant.logits.largest:.0e}, {variant.logits.mean:.0e}",
            cell(variant.agreement, ".3f"),
            megabytes(variant.bytes),
            cell(variant.load_seconds, ".2f"),
            cell(variant.peak_mb, ",.0f"),
        ]
        for name, variant in gate.variants.items()
    ]
    return Table(headings, lines, f"on {gate.dev_rows:,} rows of dev", WORTH_CAPTION)


def _speed(gate: GateRecord) -> Table:
    """A line per variant and case; speed-up is of the median, against the first variant's."""
    lines = []
    for (batch, length), times in gate.cases.items():
        reference = next(iter(times.values()))
        for variant, case in times.items():
            name, speed_up = f"{batch} × {length}  {name_of(variant)}", f"{reference.p50 / case.p50:.1f}×"
            milliseconds = [f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}" for ms in (case.p50, case.p95, case.p99)]
            lines.append([name, *milliseconds, short(case.throughput), speed_up, str(case.calls)])
    return Table(
        ["", "p50", "p95", "p99", "sentences\nper second", "speed-up", "calls"],
        lines,
        f"{gate.machine}; ms per batch without padding",
        f"batch × length; speed-up: of the median, against the {name_of(next(iter(gate.variants), ''))}",
    )


def verdict_lines(gate: GateRecord) -> list[str]:
    """The verdict in words: go or no-go, what fails by how much, and the notes."""
    verdict = gate.verdict
    lines = ["no-go: no exported model keeps every limit"]
    if verdict.go and verdict.ship:
        ship = gate.variants[verdict.ship]
        case, score = ship.limit_case, f"{gate.metric} {ship.scores[gate.metric]:.4f}"
        time = f", p95 of {short(case.p95)} ms at batch 1, length {case.length}" if case else ""
        lines = [f"go: ship {verdict.ship} ({short(ship.bytes / 1e6)} MB{time}, {score})"]
        lines += [
            f"{task}: {head.metric} {head.score:.4f}, {_drop(head)} points below the PyTorch student"
            for task, head in ship.heads.items()
        ]
    lines += [f"{name}: {reason}" for name, reasons in verdict.failures.items() for reason in reasons]
    return lines + [f"note: {note}" for note in verdict.notes]


def name_of(variant: str) -> str:
    """What a variant is called among models."""
    return NAMES.get(variant, variant)


def _drop(variant: VariantRecord | HeadRecord) -> str:
    if variant.drop is None or variant.drop_standard_error is None:  # the teacher, and the PyTorch student itself
        return ABSENT
    return f"{round(variant.drop, 2) + 0.0:.2f} ± {variant.drop_standard_error:.2f}"
