"""flows.jsonl: what is written comes back, and a crash costs one line at most."""

import json
from pathlib import Path

import pytest
from messages import names, unnamed

from emdistill.errors import DataError
from emdistill.runs.flows import FlowRecord, append_flows, read_flows, truncate_flows


def record(step: int, stage: str = "joint", share: float = 0.25) -> FlowRecord:
    flow = [[share, 0.5 - share], [0.5, 0.0]]
    weights = {"hidden_states": [0.5, 0.5]}
    return FlowRecord(step, stage, {"hidden_states": flow}, weights, weights)


def write(path: Path, *records: FlowRecord) -> Path:
    for each in records:
        append_flows(path, each)
    return path


def steps(path: Path) -> list[tuple[str, int]]:
    return [(each.stage, each.step) for each in read_flows(path)]


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    records = [record(0), record(50, "zwei", 0.125), FlowRecord(100, "fixed", {"embeddings": [[1.0, 2.0, 0.0]]})]
    assert read_flows(write(tmp_path / "flows.jsonl", *records)) == records


def test_a_line_is_the_documented_object_with_seven_significant_digits(tmp_path: Path) -> None:
    flow = [[1 / 3, 1.23456789e-9]]
    path = write(tmp_path / "flows.jsonl", FlowRecord(7, "joint", {"hidden_states": flow}, {}, {}))
    assert path.read_bytes().endswith(b"\n")
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "step": 7,
        "stage": "joint",
        "flows": {"hidden_states": [[0.3333333, 1.234568e-9]]},
        "student_weights": {},
        "teacher_weights": {},
        "crc32": "be56abbf",
    }


@pytest.mark.parametrize("kept_bytes", [1, 40, -1])
def test_a_crash_at_any_byte_costs_only_the_line_being_written(tmp_path: Path, kept_bytes: int) -> None:
    path = write(tmp_path / "flows.jsonl", record(0), record(1))
    whole = path.read_bytes()
    last_line = whole.splitlines(keepends=True)[1]
    path.write_bytes(whole[: -len(last_line)] + last_line[:kept_bytes])
    assert steps(path) == [("joint", 0)]

    truncate_flows(path, 9, stage="joint")
    append_flows(path, record(2))
    assert steps(path) == [("joint", 0), ("joint", 2)]


def test_a_file_that_holds_nothing_but_a_cut_line_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "flows.jsonl"
    path.write_bytes(b'{"step": 0, "sta')
    assert read_flows(path) == []
    truncate_flows(path, 9, stage="joint")
    assert path.read_bytes() == b""


def line(**changes: object) -> bytes:
    whole = {"step": 1, "stage": "a", "flows": {"x": [[0.5, 0.5]]}, "student_weights": {}, "teacher_weights": {}}
    return json.dumps({**whole, **changes}).encode()


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (b'{"step": 0, "sta', ["JSON"]),
        (b"", ["JSON"]),
        (b"\xff\xfe", ["JSON"]),
        (b'["step"]', ["object"]),
        (b'{"step": 0}', ["stage"]),
        (line(more=1), ["more"]),
        (line(step=-1), ["step"]),
        (line(step=1.5), ["step"]),
        (line(stage=2), ["stage"]),
        (line(flows=[]), ["flows"]),
        (line(flows={"x": [[1], [1, 2]]}), ["'x'"]),
        (line(flows={"x": []}), ["flows.x"]),
        (line(flows={"x": [[float("nan")]]}), ["flows.x.0.0"]),
        (line(student_weights={"x": [0.5, 0.5]}), ["'student_weights'", "'x'", 1]),
        (line(teacher_weights={"x": [1.0]}), ["'teacher_weights'", "'x'", 2]),
        (line(teacher_weights={"y": [1.0]}), ["'teacher_weights'", "'y'"]),
    ],
)
def test_any_other_broken_line_is_named_by_file_and_line(tmp_path: Path, broken: bytes, named: list[object]) -> None:
    path = write(tmp_path / "flows.jsonl", record(0))
    path.write_bytes(path.read_bytes() + broken + b"\n" + path.read_bytes())
    with names(DataError, f"{path}:2", *named):
        read_flows(path)


def test_a_record_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    path = write(tmp_path / "flows.jsonl", record(0))
    before = path.read_bytes()
    with names(DataError, "step 1", "'joint'", "flows.hidden_states.0.0"):
        append_flows(path, record(1, share=float("nan")))
    assert path.read_bytes() == before


def test_a_missing_file_is_an_error_to_read_and_nothing_to_truncate(tmp_path: Path) -> None:
    with names(DataError, tmp_path / "flows.jsonl"):
        read_flows(tmp_path / "flows.jsonl")
    truncate_flows(tmp_path / "flows.jsonl", 10, stage="joint")
    assert list(tmp_path.iterdir()) == []


def test_truncation_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    path = write(tmp_path / "flows.jsonl", record(0), record(50), record(100))
    truncate_flows(path, 50, stage="joint")
    assert steps(path) == [("joint", 0), ("joint", 50)]
    assert list(tmp_path.iterdir()) == [path]


def test_truncation_keeps_finished_stages_and_drops_later_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "flows.jsonl", record(90, "one"), record(10, "two"), record(20, "two"), record(5, "three"))
    with path.open("ab") as file:
        file.write(b'{"step": 6, "st')
    truncate_flows(path, 10, stage="two", finished_stages=["one"])
    assert steps(path) == [("one", 90), ("two", 10)]
    assert path.read_bytes().endswith(b"\n")


def flip(path: Path, old: bytes, new: bytes) -> None:
    """A damage that JSON does not see: one digit for another."""
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def test_a_digit_that_changes_is_found_by_the_lines_checksum(tmp_path: Path) -> None:
    path = write(tmp_path / "flows.jsonl", record(0), record(1), record(2))
    flip(
        path,
        b'"step": 1, "stage": "joint", "flows": {"hidden_states": [[0.25',
        b'"step": 1, "stage": "joint", "flows": {"hidden_states": [[0.24',
    )
    with names(DataError, f"{path}:2", "checksum"):
        read_flows(path)


def test_a_resumed_run_names_a_damaged_line_and_leaves_it_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "flows.jsonl", record(0), record(1), record(2))
    flip(path, b'"step": 1', b'"step": 7')
    truncate_flows(path, 9, stage="joint")
    assert steps(path) == [("joint", 0), ("joint", 2)]
    assert not unnamed(capsys.readouterr().err, f"{path}:2", "checksum")


def test_lines_of_an_earlier_version_have_no_checksum(tmp_path: Path) -> None:
    path = write(tmp_path / "flows.jsonl", record(3))
    without = json.loads(path.read_text())
    del without["crc32"]
    path.write_text(json.dumps(without) + "\n")
    assert read_flows(path) == [record(3)]
