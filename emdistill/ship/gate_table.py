"""A gate.json on the terminal: two tables, and the verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from emdistill.console import ABSENT, plain_table
from emdistill.ship.gate import judged_time, short

NAMES = {"teacher": "teacher", "student": "student", "onnx": "student, ONNX", "int8": "student, int8"}
WORTH_CAPTION = (
    "drop: points below the PyTorch student ± standard error; logits: largest and mean difference to it; "
    "agrees: with the teacher; load: without imports; peak: memory of a process that loads it"
)


Rows = tuple[Sequence[str], list[list[str]]]
"""Headings of all columns but the first, and the cells of each line."""


def gate_tables(record: Mapping[str, Any]) -> list[Table]:
    """What each variant is worth, and how fast it is; MB = 10⁶ bytes."""
    machine = record["machine"]
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
    first = NAMES[next(iter(record["variants"]))]
    return [
        _table(f"on {record['dev_rows']:,} rows of dev", worth_rows(record), WORTH_CAPTION),
        _table(
            f"{machine['cpu']}, {threads}; ms a batch without padding",
            speed_rows(record),
            f"batch × length; speed-up: of the median, against the {first}",
        ),
    ]


def worth_rows(record: Mapping[str, Any]) -> Rows:
    """Score, differences, size and what loading takes: a line a variant."""
    metric = record["metric"]
    headings = (metric.replace("_", "\n"), "drop", "logits", "agrees", "file\nMB", "load\ns", "peak\nMB")
    rows = [
        [
            NAMES[name],
            f"{variant['scores'][metric]:.4f}",
            _drop(variant),
            _logits(variant["logits"]),
            _cell(variant["agreement"], ".3f"),
            f"{variant['bytes'] / 1e6:.1f}",
            _cell(variant["load_seconds"], ".2f"),
            _cell(variant["peak_mb"], ",.0f"),
        ]
        for name, variant in record["variants"].items()
    ]
    return headings, rows


def speed_rows(record: Mapping[str, Any]) -> Rows:
    """Latency of every batch and length: a line a variant; speed-up is against the first one."""
    variants = record["variants"]
    rows = [
        [
            f"{yardstick['batch']} × {yardstick['length']}  {NAMES[name]}",
            *(_milliseconds(timed[percentile]) for percentile in ("p50", "p95", "p99")),
            short(timed["throughput"]),
            f"{yardstick['p50'] / timed['p50']:.1f}×",
            str(timed["calls"]),
        ]
        for place, yardstick in enumerate(next(iter(variants.values()))["latency"])
        for name, variant in variants.items()
        for timed in [variant["latency"][place]]
    ]
    return ("p50", "p95", "p99", "sentences\na second", "speed-up", "calls"), rows


def verdict_lines(record: Mapping[str, Any]) -> list[str]:
    """The verdict of a gate.json in words: go or no-go, what fails by how much, and the notes."""
    judged = record["verdict"]
    if judged["go"]:
        ship = record["variants"][judged["ship"]]
        case = judged_time(ship) or {}
        lines = [
            f"go: ship {judged['ship']} ({short(ship['bytes'] / 1e6)} MB, p95 of {short(case['p95'])} ms at batch 1, "
            f"length {case['length']}, {record['metric']} {ship['scores'][record['metric']]:.4f})"
        ]
    else:
        lines = ["no-go: no exported model keeps every limit"]
    lines += [f"{name}: {reason}" for name, reasons in judged["failures"].items() for reason in reasons]
    return lines + [f"note: {note}" for note in judged["notes"]]


def _table(title: str, cells: Rows, caption: str) -> Table:
    headings, rows = cells
    table = plain_table(title, caption)
    table.add_column("", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _cell(value: float | None, form: str) -> str:
    return ABSENT if value is None else format(value, form)


def _drop(variant: Mapping[str, Any]) -> str:
    drop, error = variant["drop"], variant["drop_standard_error"]
    if drop is None or error is None:  # the teacher, and the PyTorch student itself
        return ABSENT
    return f"{drop + 0.0:.2f} ± {error:.2f}"


def _logits(difference: Mapping[str, float] | None) -> str:
    return ABSENT if difference is None else f"{difference['largest']:.0e}, {difference['mean']:.0e}"


def _milliseconds(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
