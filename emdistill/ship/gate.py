"""The gate: what each form of a student is worth on this machine, held against the user's limits; pure.

gate.json of an export is the `GateRecord` that `judge` makes; show/gate_tables.py shows it on the terminal.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emdistill.config import as_option
from emdistill.console import short
from emdistill.errors import ConfigError
from emdistill.runs.gate_record import (
    GateRecord,
    HeadRecord,
    LogitDifference,
    Machine,
    TimedCase,
    VariantRecord,
    VerdictRecord,
)
from emdistill.runs.search_record import FORMS
from emdistill.tasks.answers import flat
from emdistill.tasks.mixture import MEAN, joint_scores
from emdistill.tasks.task import Task

BATCHES = (1, 32)
LENGTHS = (32, 128)
PARITY = 1e-3  # a float32 graph whose logits are further from PyTorch's, for its size, computes something else
RESAMPLES = 200
ROUNDING = 1e-9
LEAST_SHOWN = 0.005  # points: a difference that the table shows as 0.00 needs no note


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
                raise ConfigError(f"{as_option(limit.name)} is a number that is not negative, not {value:g}")


def logit_difference(reference: NDArray[Any], logits: NDArray[Any]) -> LogitDifference:
    """Largest and mean |logits − reference|."""
    differences = np.abs(flat(logits).astype(np.float64) - flat(reference).astype(np.float64))
    return LogitDifference(float(differences.max()), float(differences.mean()))


def drop_error(task: Task, reference: NDArray[Any], logits: NDArray[Any], labels: NDArray[Any]) -> float:
    """Standard error of the difference of both outputs' first metric, points: by a paired bootstrap over the rows.

    Rows are drawn with replacement 200 times, the same for both outputs, from a fixed seed.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 6.
    """
    drops = resampled_scores(task, reference, labels) - resampled_scores(task, logits, labels)
    return 100.0 * float(np.std(drops, ddof=1))


def resampled_scores(task: Task, logits: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """The first metric on 200 samples of the rows, drawn with replacement: the same rows for all logits [rows, C]."""
    random, rows, metric = np.random.default_rng(0), len(labels), task.metrics[0]
    task = replace(task, metrics=(metric,))
    samples = (random.integers(rows, size=rows) for _ in range(RESAMPLES))
    if (counts := task.kind.row_counts(logits, labels, task)) is not None:  # of thousands of words it takes seconds
        sums = np.array([counts[sample].sum(axis=0) for sample in samples])
        return np.asarray(sums[:, 0] / np.maximum(sums[:, 1], 1.0))
    return np.array([task.score(logits[sample], labels[sample])[metric] for sample in samples])


def judge(
    variants: Mapping[str, VariantRecord],
    limits: Limits,
    *,
    metric: str,
    dev_rows: int,
    versions: Mapping[str, str],
    machine: Machine,
    logit_size: float = 1.0,
    notes: Sequence[str] = (),
) -> GateRecord:
    """Hold every variant but the teacher against the limits, and record all of it.

    variants    by name: "student" and any of "onnx", "int8" and "teacher"; their drops are filled in here
    logit_size  the largest |logit| of the PyTorch student, 1 at least: float32 rounds in proportion to it
    notes       asides that go before those of the verdict
    """
    records = {name: _with_drops(name, variants, metric) for name in variants}
    judged = ("student", *(name for name in FORMS if name in records))
    failures = {name: _failures(name, records[name], limits, metric, logit_size) for name in judged}
    notes = [*notes, *_limit_notes(records, limits), *_speed_notes(records), *_score_notes(records, dev_rows)]
    verdict = _verdict(records, failures, notes)
    return GateRecord("finished", dict(versions), machine, asdict(limits), metric, dev_rows, records, verdict)


@dataclass(frozen=True)
class HeadVariants:
    """What was measured of one head of several; fields as the arguments of `judge`."""

    variants: Mapping[str, VariantRecord]
    metric: str
    dev_rows: int
    logit_size: float = 1.0


def judge_heads(
    heads: Mapping[str, HeadVariants],
    limits: Limits,
    *,
    versions: Mapping[str, str],
    machine: Machine,
    notes: Sequence[str] = (),
) -> GateRecord:
    """The gate of one graph with several heads: of the mean over tasks, each task held to the limit on its drop.

    heads  by task; what is the graph's own, size and times, is the same in all
    """
    here = partial(judge, versions=versions, machine=machine)
    on_scores = replace(limits, max_latency_ms=None, max_size_mb=None)
    gates = {
        task: here(head.variants, on_scores, metric=head.metric, dev_rows=head.dev_rows, logit_size=head.logit_size)
        for task, head in heads.items()
    }
    together = {
        name: _mean_of_heads({task: gate.variants[name] for task, gate in gates.items()}, gates)
        for name in next(iter(gates.values())).variants
    }
    rows = sum(gate.dev_rows for gate in gates.values())
    gate = here(together, limits, metric=MEAN, dev_rows=rows, logit_size=math.inf, notes=notes)
    failures = {
        name: [
            *gate.verdict.failures.get(name, ()),
            *(f"{task}: {reason}" for task, own in gates.items() for reason in own.verdict.failures.get(name, ())),
        ]
        for name in together
    }
    of_heads = [f"{task}: {note}" for task, own in gates.items() for note in _score_notes(own.variants, own.dev_rows)]
    return replace(gate, verdict=_verdict(gate.variants, failures, [*gate.verdict.notes, *of_heads]))


def _mean_of_heads(variants: Mapping[str, VariantRecord], gates: Mapping[str, GateRecord]) -> VariantRecord:
    """One variant of all heads: the mean score with its error, the largest difference of logits, and each head's."""
    metrics = {task: gate.metric for task, gate in gates.items()}
    first = next(iter(variants.values()))
    errors = [variant.drop_standard_error for variant in variants.values()]
    logits = [variant.logits for variant in variants.values() if variant.logits is not None]
    return replace(
        first,
        scores=joint_scores({task: variant.scores for task, variant in variants.items()}, metrics),
        drop_standard_error=None if None in errors else math.hypot(*filter(None, errors)) / len(errors),
        logits=max(logits, key=lambda difference: difference.largest, default=None),
        heads={
            task: HeadRecord(metrics[task], variant.scores[metrics[task]], variant.drop, variant.drop_standard_error)
            for task, variant in variants.items()
        },
    )


def _verdict(
    variants: Mapping[str, VariantRecord], failures: Mapping[str, Sequence[str]], notes: Sequence[str]
) -> VerdictRecord:
    """The fastest of the exported variants that fail nothing goes."""
    passing = [name for name in FORMS if name in variants and not failures[name]]
    return VerdictRecord(
        go=bool(passing),
        ship=min(passing, key=lambda name: _limit_case(variants[name]).p50, default=None),
        failures={name: list(reasons) for name, reasons in failures.items() if reasons},
        notes=[*notes],
    )


def _with_drops(name: str, variants: Mapping[str, VariantRecord], metric: str) -> VariantRecord:
    """The variant with its drop below the PyTorch student and below the teacher, points."""
    drops = {
        other: 100.0 * (variants[other].scores[metric] - variants[name].scores[metric])
        for other in ("student", "teacher")
        if other in variants
    }
    drop = None if name == "teacher" else drops["student"]
    return replace(variants[name], drop=drop, drop_from_teacher=drops.get("teacher"))


def _limit_case(variant: VariantRecord) -> TimedCase:
    """The case that the latency limit is about: 128 tokens, where the encoder reads as many."""
    case = variant.limit_case
    assert case is not None  # what is exported here has been timed at batch 1
    return case


def _failures(name: str, variant: VariantRecord, limits: Limits, metric: str, logit_size: float) -> list[str]:
    """What of a variant is over a limit, and by how much."""
    case, megabytes = _limit_case(variant), variant.bytes / 1e6
    place = f"batch {case.batch}, length {case.length}"
    costs = {
        "max_latency_ms": (case.p95, " ms", "p95 of {} ms at " + place),
        "max_size_mb": (megabytes, " MB", "the file of {} MB"),
        "max_drop": (variant.drop, " points", metric + " {} points below the PyTorch student"),
        "max_drop_from_teacher": (variant.drop_from_teacher, " points", metric + " {} points below the teacher"),
    }
    failures = []
    for limit, (value, unit, what) in costs.items():
        most = getattr(limits, limit)
        if value is not None and most is not None and value - most > ROUNDING:
            excess = f"{short(value - most)}{unit} over {as_option(limit)} {most:g}"
            failures.append(f"{what.format(short(value))} is {excess}")
    if name == "onnx" and variant.logits is not None and not variant.logits.largest <= PARITY * logit_size:
        failures.append(
            f"its logits differ from the PyTorch student's by up to {short(variant.logits.largest)}, where float32 "
            f"leaves less than {short(PARITY * logit_size)}: the graph computes something else"
        )
    return failures


def _limit_notes(variants: Mapping[str, VariantRecord], limits: Limits) -> list[str]:
    if all(value is None for value in asdict(limits).values()):
        options = ", ".join(as_option(limit.name) for limit in fields(limits))
        return [f"no limits were given, so there was nothing to fail; set them with {options}"]
    length = _limit_case(variants["student"]).length
    if limits.max_latency_ms is not None and length < max(LENGTHS):
        return [f"latency is judged at length {length}: these models read no more tokens"]
    return []


def _speed_notes(variants: Mapping[str, VariantRecord]) -> list[str]:
    notes = []
    titles = {"student": "PyTorch", "onnx": "float32 in ONNX Runtime", "int8": "int8"}
    for name, other in (("onnx", "student"), ("int8", "onnx")):
        if name not in variants or other not in variants:
            continue
        mine, its = variants[name], variants[other]
        slower = [
            f"{short(one.p50)} ms against {short(two.p50)} at batch {one.batch}, length {one.length}"
            for one, two in zip(mine.latency, its.latency, strict=True)
            if one.p50 >= two.p50
        ]
        if slower:
            everywhere = "" if len(slower) == len(mine.latency) else " everywhere"
            note = f"{titles[name]} is not faster than {titles[other]}{everywhere} on this machine: p50 of "
            notes.append(note + "; ".join(slower))
        if name == "int8" and mine.bytes >= its.bytes:
            sizes = f"{short(mine.bytes / 1e6)} MB against {short(its.bytes / 1e6)}"
            notes.append(f"int8 is no smaller than float32: {sizes}")
    return notes


def _score_notes(variants: Mapping[str, VariantRecord], dev_rows: int) -> list[str]:
    return [
        f"{name} scores {short(abs(drop))} points {'below' if drop > 0 else 'above'} the PyTorch student, less than "
        f"the standard error of that difference on {dev_rows:,} rows ({short(error)} points): dev is too small to tell "
        "them apart"
        for name in FORMS
        if name in variants
        and (drop := variants[name].drop) is not None
        and (error := variants[name].drop_standard_error) is not None
        and LEAST_SHOWN <= abs(drop) < error
    ]
