"""run.json and gate.json: typed, versioned, and named field by field where they are broken."""

import json
import re
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from messages import names
from run_folders import write_run_folder

from emdistill.errors import OutputError
from emdistill.runs.describe import describe_data, file_hashes, versions
from emdistill.runs.record import RUN_FILE, VERSION, RunRecord, TaskRecord, read_run, write_run
from emdistill.tasks import KINDS
from emdistill.tasks.task import DataFile, Task, TaskData


def change(folder: Path, place: list[Any], value: Any) -> None:
    """Set the value at a place in run.json; `...` removes it."""
    content = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    inner = content
    for name in place[:-1]:
        inner = inner[name]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    (folder / RUN_FILE).write_text(json.dumps(content), encoding="utf-8")


def test_a_record_is_written_whole_and_read_back(tmp_path: Path) -> None:
    run = RunRecord(config={"task": "Straße", "training": {}}, seed=3, version=VERSION, rows={"train": 2})
    run.task = TaskRecord("t", "classification", ("a", "b"), ("accuracy",), {"dev": 2})
    write_run(tmp_path / "new", run)
    assert read_run(tmp_path / "new") == run
    assert [path.name for path in (tmp_path / "new").iterdir()] == [RUN_FILE]


def test_a_record_of_the_first_version_opens(tmp_path: Path) -> None:
    """It had no number, and for a fine-tuned teacher and for raw text it lacked what they have not."""
    run = read_run(write_run_folder(tmp_path / "run"))
    assert (run.version, run.is_finished) == (1, True)
    assert run.student is not None
    assert run.task is not None
    assert run.task.metric == "accuracy"
    for name in ("student", "teacher", "objective", "task", "arithmetic", "share_of_padding"):
        change(tmp_path / "run", [name], ...)
    run = read_run(tmp_path / "run")
    assert (run.student, run.task) == (None, None)


def test_what_a_later_version_adds_is_passed_over(tmp_path: Path) -> None:
    folder = write_run_folder(tmp_path / "run")
    change(folder, ["added later"], {"a": 1})
    change(folder, ["task", "added later"], 1)
    assert read_run(folder).is_finished


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["seed"], "seven"),
        (["seed"], ...),
        (["config"], []),
        (["task", "labels"], 3),
        (["task", "evaluation_rows", "dev"], None),
        (["student", "shape"], {"layers": 3}),
        (["timings", "training_seconds"], [1]),
        (["log"], [{"stage": "joint", "log": ["a"]}]),
        (["status"], "done"),
        (["scores", "student", "accuracy"], "high"),
    ],
)
def test_a_broken_field_is_named(tmp_path: Path, place: list[Any], value: Any) -> None:
    folder = write_run_folder(tmp_path / "run")
    change(folder, place, value)
    with names(OutputError, folder / RUN_FILE, re.compile(rf"\({place[0]}\b"), "--overwrite"):
        read_run(folder)


def test_damage_is_found_wherever_it_is(tmp_path: Path) -> None:
    run = RunRecord(config={"task": "Straße"}, seed=3, version=VERSION)
    write_run(tmp_path, run)
    written = (tmp_path / RUN_FILE).read_bytes()
    for place, byte in enumerate(written):
        content = bytearray(written)
        content[place] = byte ^ 1 << place % 8
        (tmp_path / RUN_FILE).write_bytes(content)
        with suppress(OutputError):  # else only space, or the name of the checksum, was hit
            assert read_run(tmp_path) == run
    for size in range(len(written) - 1):
        (tmp_path / RUN_FILE).write_bytes(written[:size])
        with pytest.raises(OutputError):
            read_run(tmp_path)
    (tmp_path / RUN_FILE).write_bytes(written.replace(b'"seed": 3', b'"seed": 7'))
    with names(OutputError, tmp_path / RUN_FILE, "--overwrite"):
        read_run(tmp_path)


@pytest.mark.parametrize("content", [b'{"status":', b"[1]", b"\xff", b"[" * 100_000, b"null"])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    with names(OutputError, tmp_path, RUN_FILE):
        read_run(tmp_path)
    (tmp_path / RUN_FILE).write_bytes(content)
    with names(OutputError, tmp_path / RUN_FILE, "--overwrite"):
        read_run(tmp_path)


def test_data_is_described_and_hashed_by_file() -> None:
    task = Task("reviews", KINDS["classification"], ("bad", "good"), ("accuracy",))
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    files = (DataFile(Path("a/reviews.csv"), 2, "11"), DataFile(Path("a/dev.csv"), 1, "22"))
    data = TaskData(task, rows, {"dev": rows.select([0])}, files)
    assert file_hashes(data) == {"reviews.csv": "11", "dev.csv": "22"}
    described = asdict(describe_data(data))
    assert (described["kind"], described["labels"]) == ("classification", ("bad", "good"))
    assert (described["train_rows"], described["evaluation_rows"]) == (2, {"dev": 1})
    twins = (DataFile(Path("a/data.csv"), 2, "11"), DataFile(Path("b/data.csv"), 1, "22"))
    assert file_hashes(TaskData(task, rows, {}, twins)) == {"a/data.csv": "11", "b/data.csv": "22"}


def test_versions_name_what_decides_a_result() -> None:
    assert {"emdistill", "torch", "transformers", "datasets", "POT", "numpy", "python", "date"} == versions().keys()
