"""A chain of operators from the command line: distilled, recorded, shown, exported, judged, and kept layers of."""

import json
from pathlib import Path

import pytest

from emdistill.cli import main
from emdistill.models.encoder import load_classifier
from emdistill.runs.flows import read_flows
from emdistill.runs.record import read_run

OPERATORS = ["a", "c3", "f", "d3", "a", "f"]


@pytest.fixture(scope="module")
def run(place, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("chain") / "run"
    words = ["--student", "chain:acfd3af", "--method", "balanced", "--mapping", "emd", "--training.flow_steps=2"]
    assert main(place.distill(*words, "--objective.cost_attention", "inverse", "--output", str(folder))) == 0
    return folder


def test_a_run_tells_which_operator_learned_from_which_layer(run: Path) -> None:
    record = read_run(run)
    assert record.student is not None
    assert record.student.shape.layers == 6
    assert record.student.shape.attending == (0, 4)
    last = read_flows(run / "flows.jsonl")[-1]
    hidden, attention = (last.flows[term] for term in ("hidden_states", "attention_scores"))
    assert [len(hidden), len(hidden[0])] == [len(attention), len(attention[0])] == [6, 4]
    assert [layer for layer, row in enumerate(attention) if any(row)] == [0, 4]
    assert [layer for layer, weight in enumerate(last.student_weights["attention_scores"]) if weight] == [0, 4]
    assert all(map(any, hidden))
    assert (run / "report.html").is_file()
    assert load_classifier(run / "student").config.operators == OPERATORS


@pytest.mark.usefixtures("quick_export")
def test_it_is_exported_in_float32_and_int8_and_judged(run: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert main(["export", "--int8", str(run), "--max-size-mb", "1", "--threads", "1"]) == 0
    gate = json.loads((run / "onnx" / "gate.json").read_text(encoding="utf-8"))
    assert gate["variants"]["onnx"]["logits"]["largest"] < 1e-4
    assert gate["variants"]["int8"]["bytes"] < gate["variants"]["onnx"]["bytes"]


def test_some_of_its_operators_make_a_student(place, run: Path, tmp_path: Path) -> None:
    words = ["--teacher", f"{run}/student", "--student", "0,2,3", "--check_teacher=false"]
    words += ["--teacher_cache", "states", "--method", "bert-emd"]
    assert main(place.distill(*words, "--output", str(tmp_path / "run"))) == 0
    assert load_classifier(tmp_path / "run" / "student").config.operators == ["a", "f", "d3"]
