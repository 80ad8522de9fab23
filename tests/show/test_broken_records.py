"""Records that were changed by hand or cut off: refused by file and field wherever they are read, never a traceback."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from messages import names
from pages import Page
from run_folders import add_flows, add_gate, add_predictions, read_record, write_record, write_run_folder

from emdistill.errors import DataError, OutputError
from emdistill.runs.gate_record import GATE
from emdistill.ship.subject import read_subject
from emdistill.show.candidates import read_runs
from emdistill.show.run_report import write_run_report

TIMES = {"teacher": 40.0, "student": 20.0, "onnx": 10.0, "int8": 4.0}
ABSENT = object()
READERS: dict[str, Callable[[Path], object]] = {
    "report": write_run_report,
    "report of several": lambda r: read_runs([r]),
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = write_run_folder(tmp_path / "run")
    add_flows(folder)
    add_predictions(folder)
    add_gate(folder, milliseconds=TIMES)
    return folder


def put(values: Any, place: str, value: Any) -> Any:
    """The values with another one at this dotted place, or without it."""
    *path, last = place.split(".")
    inner = values
    for name in path:
        inner = inner[int(name) if isinstance(inner, list) else name]
    if value is ABSENT:
        del inner[last]
    else:
        inner[int(last) if isinstance(inner, list) else last] = value
    return values


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("limits", ABSENT),
        ("machine", 0.5),
        ("machine.threads", "several"),
        ("metric", "f2"),
        ("variants", []),
        ("variants.student", []),
        ("variants.onnx.scores", []),
        ("variants.onnx.scores", "none"),
        ("variants.onnx.scores.accuracy", ABSENT),
        ("variants.onnx.scores.accuracy", float("nan")),
        ("variants.onnx.bytes", None),
        ("variants.student.latency", ABSENT),
        ("variants.student.latency.1.p50", ABSENT),
        ("variants.student.latency.1.p50", {}),
        ("variants.student.latency.1.p50", 0.0),
        ("variants.student.latency.1.p95", ABSENT),
        ("variants.student.latency.1.p95", []),
        ("variants.student.latency.1.p95", float("inf")),
        ("variants.student.latency.1.batch", {}),
        ("verdict.failures", 0.5),
        ("verdict.ship", "int4"),
    ],
)
def test_a_gate_is_refused_by_file_and_field(run: Path, reader: str, place: str, value: Any) -> None:
    gate = put(json.loads((run / GATE).read_text(encoding="utf-8")), place, value)
    (run / GATE).write_text(json.dumps(gate), encoding="utf-8")
    field = re.compile(re.escape(place.rpartition(".")[2]) + "|" + re.escape(str(value)))
    with names(OutputError, run / GATE, field, "emdistill export"):
        READERS[reader](run)


@pytest.mark.parametrize("text", ["{", "[]", "3", '"text"', "[" * 100_000, "\xff"])
@pytest.mark.parametrize("file", ["run.json", str(GATE)])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_json_object_is_refused_by_file(run: Path, reader: str, file: str, text: str) -> None:
    (run / file).write_bytes(text.encode("latin-1"))
    with names(OutputError, run / file):
        READERS[reader](run)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("config.method", ABSENT),
        ("config.teacher", {}),
        ("config.data", 3),
        ("config.training", []),
        ("config.objective", "beta"),
        ("config.max_length", "long"),
        ("seed", []),
        ("seed", [42]),
        ("selection", None),
        ("status", "done"),
        ("log.0.log", 7),
        ("log.0.log.2", 7),
        ("rows.train", "many"),
        ("task.metrics", []),
        ("task.labels", 2),
        ("task.files.0", []),
        ("versions.torch", [2, 13]),
        ("task.files.0.sha256", ABSENT),
        ("task.evaluation_rows", {}),
        ("teacher", ABSENT),
        ("teacher.shape.width", ABSENT),
        ("student.parameters", "few"),
        ("scores.teacher", ABSENT),
        ("scores.teacher.accuracy", ABSENT),
        ("scores.student.accuracy", float("nan")),
        ("timings", {}),
        ("timings.training_seconds", []),
        ("hashes.teacher", ["t"]),
        ("versions", []),
    ],
)
def test_a_run_is_refused_by_file_and_field(run: Path, reader: str, place: str, value: Any) -> None:
    write_record(run, put(read_record(run), place, value))
    fields = "|".join(part for part in place.split(".") if part != "0")
    with names(OutputError, run / "run.json", re.compile(rf"\b({fields})\b")):
        READERS[reader](run)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("log.0.log.2.step", "third"),
        ("log.0.log.2.loss", "nan"),
        ("log.0.log.2.loss", []),
        ("log.0.log", []),
        ("log", []),
        ("selection", ABSENT),
        ("versions.torch", ABSENT),
        ("hashes.teacher", ABSENT),
        ("objective", {}),
        ("texts_cut_at_max_length", ABSENT),
        ("config.an_option_of_a_later_version", {"a": [1, {"b": None}]}),
        ("a_field_of_a_later_version", 1),
    ],
)
def test_what_a_page_can_do_without_leaves_it_standing(run: Path, place: str, value: Any) -> None:
    write_record(run, put(read_record(run), place, value))
    for reader in READERS.values():
        reader(run)
    assert "At a glance" in Page(run / "report.html").texts["h2"]


def test_answers_of_other_labels_are_refused_by_file(run: Path) -> None:
    add_predictions(run, labels=3)
    with names(DataError, run / "predictions.jsonl", 3, 2):
        write_run_report(run)


@pytest.mark.parametrize("text", ["{", "[]", '{"status": "finished", "config": {"method": "hard-labels"}}'])
def test_a_neighbours_broken_record_hinders_no_page(run: Path, text: str) -> None:
    for name in ("a-broken", "z-broken"):
        (run.parent / name / "onnx").mkdir(parents=True)
        (run.parent / name / "run.json").write_text(text)
        (run.parent / name / GATE).write_text(text)
    write_run_folder(run.parent / "labels", method="hard-labels", score=0.7)
    write_run_report(run)
    assert "student, labels alone" in Page(run / "report.html").texts["th"]


@pytest.mark.parametrize(
    ("place", "value"),
    [("task.files", [[]]), ("task.files.0.sha256", ABSENT), ("config.data", []), ("config.max_length", ABSENT)],
)
def test_an_export_refuses_a_broken_record(run: Path, place: str, value: Any) -> None:
    write_record(run, put(read_record(run), place, value))
    with names(OutputError, run / "run.json"):
        read_subject(str(run))
