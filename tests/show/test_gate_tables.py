"""A gate's tables and verdict, on the terminal and on the ONNX card."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from messages import unnamed
from rich.console import Console
from run_folders import HOSTILE, add_gate

from emdistill.console import print_table
from emdistill.runs.gate_record import GateRecord, VerdictRecord, read_gate
from emdistill.show.cards import Reads, onnx_card
from emdistill.show.gate_tables import gate_tables, verdict_lines
from emdistill.tasks import KINDS

TIMES = {"teacher": 100.0, "student": 10.0, "onnx": 6.0, "int8": 2.5}


@pytest.fixture
def gate(tmp_path: Path) -> GateRecord:
    machine = {"cpu": "a [bold]processor", "cores": 2, "threads": 1}
    add_gate(tmp_path, milliseconds=TIMES, machine=machine, notes=["an aside"])
    gate = read_gate(tmp_path)
    assert gate is not None
    return gate


def changed(gate: GateRecord, variant: str, **values: Any) -> GateRecord:
    return replace(gate, variants=gate.variants | {variant: replace(gate.variants[variant], **values)})


def test_the_tables_fit_a_terminal_and_leave_nothing_out(gate: GateRecord, capsys: pytest.CaptureFixture[str]) -> None:
    gate = changed(changed(gate, "student", agreement=None), "int8", drop_standard_error=0.4)
    for table in gate_tables(gate):
        print_table(table, Console(width=80))
    shown = capsys.readouterr().out
    assert "…" not in shown
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "student, int8 0.7900 1.00 ± 0.40 1e-05, 1e-06 0.900 17.6 0.20 35" in lines
    assert "a [bold]processor, 1 thread;" in shown
    assert "1 × 128 student, int8 2.50 3.00 3.50 400 40.0× 50" in lines  # 100 ms against 2.5
    assert "student 0.8000 – – – 69.6 0.20 139" in lines


def test_a_variant_that_was_not_timed_has_no_line_of_its_speed(gate: GateRecord) -> None:
    speed = gate_tables(changed(gate, "onnx", latency=()))[1]
    assert len(speed.lines) == 12
    assert not any("ONNX" in line[0] for line in speed.lines)


def test_the_verdict_in_words(gate: GateRecord) -> None:
    lines = verdict_lines(gate)
    assert not unnamed(lines[0], "go", "int8", "17.6 MB", "3 ms", "batch 1", "length 128", "accuracy 0.7900")
    assert not unnamed(lines[1], "onnx", "7.2 ms")
    assert len(lines) == 3
    assert not unnamed(lines[2], "an aside")
    assert "p95" not in verdict_lines(changed(gate, "int8", latency=()))[0]
    assert verdict_lines(replace(gate, verdict=VerdictRecord(False, None)))[0].startswith("no-go")


def test_the_onnx_card_tells_use_figures_and_verdict(gate: GateRecord) -> None:
    card = onnx_card(gate, Reads("reviews", KINDS["classification"], ("bad", "good"), True, 128))
    told = ("128 tokens", "`bad`, `good`", "python example.py", "`onnx/model_int8.onnx`", "dynamic", "17.6 MB")
    assert not unnamed(card, *told, "| student, int8 | 0.7900 |", "| 1 × 128  student, ONNX |", *verdict_lines(gate))
    assert not unnamed(card, "onnxruntime 1.31.0", "torch 2.13.0")
    assert not unnamed(onnx_card(gate, Reads("stars", KINDS["regression"], (), False, 64)), "64 tokens")
    assert not unnamed(
        onnx_card(gate, Reads("tags", KINDS["multi-label"], ("a", "b"), False, 64)), "64 tokens", "`a`, `b`"
    )


def test_no_name_leaves_its_place_on_the_onnx_card(gate: GateRecord) -> None:
    labels = ("a`b", "``", *HOSTILE)
    card = onnx_card(gate, Reads("x\n# y", KINDS["classification"], labels, False, 128))
    assert "``a`b``, ``` `` ```" in card
    assert "\n# y" not in card
