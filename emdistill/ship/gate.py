"""The gate: what each form of a student is worth on this machine, held against the user's limits; pure.

gate.json of an export is `gate_record`; gate_table.py shows it on the terminal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emdistill.errors import ConfigError
from emdistill.ship.footprint import Footprint, Runtime
from emdistill.ship.latency import Latency
from emdistill.tasks.task import Task

EXPORTED = ("onnx", "int8")  # a verdict is about these; teacher and PyTorch student stand beside them
BATCHES = (1, 32)
LENGTHS = (32, 128)
PARITY = 1e-3  # a float32 graph whose logits are further from PyTorch's, for its size, computes something else
RESAMPLES = 200
ROUNDING = 1e-9
LEAST_SHOWN = 0.005  # points: what the table shows as 0.00 needs no words


@dataclass(frozen=True)
class Limits:
    """What an exported student may cost; None is no limit.

    max_latency_ms         95th percentile of one sentence of 128 tokens, milliseconds
    max_size_mb            the model file, MB = 10⁶ bytes
    max_drop               the task's first metric below the PyTorch student's, points (×100)
    max_drop_from_teacher  likewise below the teacher's
    """

    max_latency_ms: float | None = None
    max_size_mb: float | None = None
    max_drop: float | None = None
    max_drop_from_teacher: float | None = None

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{_option(limit.name)} is a number that is not negative, not {value:g}")


@dataclass(frozen=True)
class TimedCase:
    """The latency of batches of `batch` sentences of `length` tokens each, none of them padding."""

    batch: int
    length: int
    latency: Latency


@dataclass(frozen=True)
class VariantFacts:
    """All that was measured of one form of the model.

    scores          by metric, on the development set
    logits          largest and mean |logit − PyTorch student's| over it
    logit_size      the largest |logit| of the PyTorch student, 1 at least: float32 rounds in proportion to it
    drop_error      standard error of the drop below the PyTorch student, points
    agreement       with the teacher: share of rows of the same class; for scores Pearson's correlation
    """

    runtime: Runtime
    file: str
    bytes: int
    scores: Mapping[str, float]
    latency: Sequence[TimedCase]
    footprint: Footprint = field(default_factory=Footprint)
    agreement: float | None = None
    logits: tuple[float, float] | None = None
    logit_size: float = 1.0
    drop_error: float | None = None
    method: str | None = None
    kept_in_float32: Sequence[str] = ()


@dataclass(frozen=True)
class Verdict:
    """go: some exported variant keeps every limit; ship: the fastest that does; failures: by variant; notes: asides."""

    go: bool
    ship: str | None
    failures: Mapping[str, list[str]]
    notes: list[str]


# ---------------------------------------------------------------------------------------------- comparing outputs


def logit_difference(reference: NDArray[Any], logits: NDArray[Any]) -> tuple[float, float]:
    """Largest and mean |logits − reference|."""
    differences = np.abs(logits.astype(np.float64) - reference.astype(np.float64))
    return float(differences.max()), float(differences.mean())


def drop_error(task: Task, reference: NDArray[Any], logits: NDArray[Any], labels: NDArray[Any]) -> float:
    """Standard error of the difference of both outputs' first metric, points: by a paired bootstrap over the rows.

    Rows are drawn with replacement 200 times, the same for both outputs, from a fixed seed.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 6.
    """
    random, rows, metric = np.random.default_rng(0), len(labels), task.metrics[0]
    task = replace(task, metrics=(metric,))
    drawn = [random.integers(rows, size=rows) for _ in range(RESAMPLES)]
    drops = [
        task.score(reference[chosen], labels[chosen])[metric] - task.score(logits[chosen], labels[chosen])[metric]
        for chosen in drawn
    ]
    return 100.0 * float(np.std(drops, ddof=1))


# ----------------------------------------------------------------------------------------------------- the verdict


def verdict(variants: Mapping[str, VariantFacts], limits: Limits, *, metric: str, dev_rows: int) -> Verdict:
    """Hold every variant but the teacher against the limits.

    variants   by name: "student" and any of "onnx", "int8" and "teacher"
    """
    judged = [name for name in ("student", *EXPORTED) if name in variants]
    failures = {name: _failures(name, variants, limits, metric) for name in judged}
    passing = [name for name in EXPORTED if name in variants and not failures[name]]
    ship = min(passing, key=lambda name: _judged_case(variants[name]).latency.p50, default=None)
    kept = {name: reasons for name, reasons in failures.items() if reasons}
    notes = [*_limit_notes(variants, limits), *_speed_notes(variants), *_score_notes(variants, metric, dev_rows)]
    notes += dict.fromkeys(facts.footprint.note for facts in variants.values() if facts.footprint.note)
    return Verdict(go=bool(passing), ship=ship, failures=kept, notes=notes)


def _failures(name: str, variants: Mapping[str, VariantFacts], limits: Limits, metric: str) -> list[str]:
    facts, case = variants[name], _judged_case(variants[name])
    megabytes = facts.bytes / 1e6
    place = f"p95 of {short(case.latency.p95)} ms at batch {case.batch}, length {case.length}"
    found = [
        _over("max_latency_ms", limits, case.latency.p95, place, " ms"),
        _over("max_size_mb", limits, megabytes, f"the file of {short(megabytes)} MB", " MB"),
    ]
    for limit, reference, called in (
        ("max_drop", "student", "the PyTorch student"),
        ("max_drop_from_teacher", "teacher", "the teacher"),
    ):
        drop = _drop(variants, name, reference, metric)
        if drop is not None:
            found.append(_over(limit, limits, drop, f"{metric} {short(drop)} points below {called}", " points"))
    if name == "onnx" and facts.logits is not None and not facts.logits[0] <= PARITY * facts.logit_size:
        found.append(
            f"its logits differ from the PyTorch student's by up to {short(facts.logits[0])}, where float32 "
            f"leaves less than {short(PARITY * facts.logit_size)}: the graph computes something else"
        )
    return [reason for reason in found if reason]


def _over(limit: str, limits: Limits, value: float, what: str, unit: str) -> str | None:
    most = getattr(limits, limit)
    if most is None or value - most <= ROUNDING:
        return None
    return f"{what} is {short(value - most)}{unit} over {_option(limit)} {most:g}"


def _judged_case(facts: VariantFacts) -> TimedCase:
    """Batch 1 at the longest length that was timed: 128 tokens, where the encoder reads as many."""
    return max((case for case in facts.latency if case.batch == 1), key=lambda case: case.length)


def _drop(variants: Mapping[str, VariantFacts], name: str, reference: str, metric: str) -> float | None:
    if reference not in variants:
        return None
    return 100.0 * (variants[reference].scores[metric] - variants[name].scores[metric])


def _limit_notes(variants: Mapping[str, VariantFacts], limits: Limits) -> list[str]:
    if all(value is None for value in asdict(limits).values()):
        options = ", ".join(_option(limit.name) for limit in fields(limits))
        return [f"no limits were given, so there was nothing to fail; set them with {options}"]
    length = _judged_case(variants["student"]).length
    if limits.max_latency_ms is not None and length < max(LENGTHS):
        return [f"latency is judged at length {length}: these models read no more tokens"]
    return []


def _speed_notes(variants: Mapping[str, VariantFacts]) -> list[str]:
    notes = []
    called = {"student": "PyTorch", "onnx": "float32 in ONNX Runtime", "int8": "int8"}
    for name, other in (("onnx", "student"), ("int8", "onnx")):
        if name not in variants or other not in variants:
            continue
        slower = [
            f"{short(mine.latency.p50)} ms against {short(its.latency.p50)} at batch {mine.batch}, length {mine.length}"
            for mine, its in zip(variants[name].latency, variants[other].latency, strict=True)
            if mine.latency.p50 >= its.latency.p50
        ]
        if slower:
            everywhere = "" if len(slower) == len(variants[name].latency) else " everywhere"
            note = f"{called[name]} is not faster than {called[other]}{everywhere} on this machine: p50 of "
            notes.append(note + "; ".join(slower))
        if name == "int8" and variants[name].bytes >= variants[other].bytes:
            sizes = f"{short(variants[name].bytes / 1e6)} MB against {short(variants[other].bytes / 1e6)}"
            notes.append(f"int8 is no smaller than float32: {sizes}")
    return notes


def _score_notes(variants: Mapping[str, VariantFacts], metric: str, dev_rows: int) -> list[str]:
    notes = []
    for name in EXPORTED:
        if name not in variants:
            continue
        drop, error = _drop(variants, name, "student", metric), variants[name].drop_error
        if drop is not None and error is not None and LEAST_SHOWN <= abs(drop) < error:
            way = "below" if drop > 0 else "above"
            notes.append(
                f"{name} scores {short(abs(drop))} points {way} the PyTorch student, less than the standard error of "
                f"that difference on {dev_rows:,} rows ({short(error)} points): dev is too small to tell them apart"
            )
    return notes


# ---------------------------------------------------------------------------------------- as a record


def gate_record(
    variants: Mapping[str, VariantFacts],
    limits: Limits,
    *,
    metric: str,
    dev_rows: int,
    versions: Mapping[str, str],
    machine: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """gate.json as plain values; `notes` go before those of the verdict."""
    judged = verdict(variants, limits, metric=metric, dev_rows=dev_rows)
    return {
        "status": "finished",
        "versions": dict(versions),
        "machine": dict(machine),
        "limits": asdict(limits),
        "metric": metric,
        "dev_rows": dev_rows,
        "variants": {name: _plain(name, variants, metric) for name in variants},
        "verdict": asdict(judged) | {"notes": [*notes, *judged.notes]},
    }


def _plain(name: str, variants: Mapping[str, VariantFacts], metric: str) -> dict[str, Any]:
    facts = variants[name]
    plain = {
        "runtime": facts.runtime,
        "file": facts.file,
        "bytes": facts.bytes,
        "scores": dict(facts.scores),
        "drop": None if name == "teacher" else _drop(variants, name, "student", metric),
        "drop_standard_error": facts.drop_error,
        "drop_from_teacher": _drop(variants, name, "teacher", metric),
        "agreement": facts.agreement,
        "logits": None if facts.logits is None else dict(zip(("largest", "mean"), facts.logits, strict=True)),
        "latency": [{"batch": case.batch, "length": case.length, **asdict(case.latency)} for case in facts.latency],
        "load_seconds": facts.footprint.load_seconds,
        "import_seconds": facts.footprint.import_seconds,
        "peak_mb": facts.footprint.peak_mb,
    }
    if facts.method is not None:
        plain |= {"method": facts.method, "kept_in_float32": list(facts.kept_in_float32)}
    return plain


def _option(limit: str) -> str:
    return "--" + limit.replace("_", "-")


def judged_time(variant: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Of a variant of gate.json, the case that the latency limit is about: batch 1, the longest length timed."""
    times = [time for time in variant.get("latency") or [] if time["batch"] == 1]
    return max(times, key=lambda time: time["length"]) if times else None


def short(value: float) -> str:
    """Three significant digits, never in powers of ten above 1."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
