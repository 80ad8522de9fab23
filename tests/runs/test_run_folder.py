from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from emdistill.errors import OutputError
from emdistill.runs.run_folder import (
    OWN_FILES,
    check_output,
    check_same_run,
    clear_run,
    describe_data,
    file_hashes,
    read_run,
    versions,
    write_run,
)
from emdistill.tasks.task import DataFile, Task, TaskData

RUN = {"status": "running", "config": {"seed": 1, "student": "3"}, "hashes": {"teacher": "aa", "train.csv": "bb"}}


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    write_run(folder, RUN)
    (folder / "student").mkdir()
    (folder / "student" / "model.safetensors").write_bytes(b"weights")
    (folder / "notes.txt").write_text("the user's own")
    return folder


def test_a_new_or_empty_folder_may_be_written_and_is_not_touched(tmp_path: Path) -> None:
    check_output(tmp_path / "deep" / "run", overwrite=False, resume=False)
    assert not (tmp_path / "deep").exists()
    check_output(tmp_path, overwrite=False, resume=False)
    check_output(tmp_path, overwrite=True, resume=False)  # there is nothing to replace, and that is no fault
    assert not list(tmp_path.iterdir())


def test_a_run_is_replaced_or_resumed_only_when_asked(run_folder: Path) -> None:
    check_output(run_folder, overwrite=True, resume=False)
    check_output(run_folder, overwrite=False, resume=True)
    with pytest.raises(OutputError, match="already holds a run; --resume goes on with it, --overwrite replaces it"):
        check_output(run_folder, overwrite=False, resume=False)
    with pytest.raises(OutputError, match="exclude each other"):
        check_output(run_folder, overwrite=True, resume=True)


def test_what_is_no_run_is_never_replaced(tmp_path: Path, run_folder: Path) -> None:
    (run_folder / "run.json").unlink()
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="is not empty and holds no run of emdistill"):
            check_output(run_folder, overwrite=overwrite, resume=False)
    with pytest.raises(OutputError, match="holds no run to resume; leave out --resume"):
        check_output(run_folder, overwrite=False, resume=True)
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with pytest.raises(OutputError, match="is a file; --output names a folder"):
            check_output(place, overwrite=False, resume=False)


def test_a_place_that_may_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    with pytest.raises(OutputError, match="may not be written to; choose another --output"):
        check_output(tmp_path / "deep" / "run", overwrite=False, resume=False)


@pytest.mark.parametrize("read", ["run/student", "run", "other/../run/student", "run/student/model.safetensors"])
def test_a_run_may_not_replace_what_it_reads(tmp_path: Path, run_folder: Path, read: str) -> None:
    with pytest.raises(OutputError, match=f"{read} is read by this run"):
        check_output(run_folder, overwrite=True, resume=False, inputs=[None, str(tmp_path / read)])


def test_what_stands_beside_the_runs_own_files_may_be_read(tmp_path: Path, run_folder: Path) -> None:
    reads = [str(run_folder / "notes.txt"), str(tmp_path / "teacher"), "owner/model", "3", None]
    check_output(run_folder, overwrite=True, resume=False, inputs=reads)


def test_clearing_removes_a_runs_own_files_only(run_folder: Path) -> None:
    (run_folder / "flows.jsonl").write_text("")
    clear_run(run_folder, only=("checkpoints", "flows.jsonl"))
    assert {path.name for path in run_folder.iterdir()} == {"run.json", "student", "notes.txt"}
    clear_run(run_folder)
    assert {path.name for path in run_folder.iterdir()} == {"notes.txt"}
    clear_run(run_folder.parent / "absent")
    assert "run.json" in OWN_FILES


def test_run_json_is_written_whole_and_read_back(run_folder: Path) -> None:
    write_run(run_folder, {**RUN, "name": "Straße"})
    assert read_run(run_folder) == {**RUN, "name": "Straße"}
    assert not list(run_folder.glob("*.part"))
    (run_folder / "run.json").write_text('{"status":')
    with pytest.raises(OutputError, match=r"is broken .*; start again with --overwrite"):
        read_run(run_folder)
    (run_folder / "run.json").unlink()
    with pytest.raises(OutputError, match="it is no run folder"):
        read_run(run_folder)


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({}, []),
        ({"config": {"seed": 2, "student": "3"}}, ["config.seed: 1 then, 2 now"]),
        ({"config": {"seed": 1, "student": "4"}, "hashes": {"teacher": "cc", "train.csv": "bb"}},
         ["config.student: '3' then, '4' now", "hashes.teacher: 'aa' then, 'cc' now"]),
        ({"hashes": {"teacher": "aa", "train.csv": "bb", "dev.csv": "dd"}}, ["hashes.dev.csv: None then, 'dd' now"]),
        ({"config": {"seed": 1, "student": "3", "output": "run/", "teacher": "t/", "data": "d", "dev": None}}, []),
    ],
)  # fmt: skip
def test_a_run_is_resumed_as_it_was_started(run_folder: Path, change: dict[str, Any], differs: list[str]) -> None:
    """What names a place may differ: its contents are compared by hash."""
    if not differs:
        check_same_run(run_folder, RUN | change)
        return
    with pytest.raises(OutputError) as caught:
        check_same_run(run_folder, RUN | change)
    assert [line.strip() for line in str(caught.value).splitlines()[1:-1]] == differs


def test_data_is_described_and_hashed_by_file() -> None:
    task = Task("reviews", "classification", ("bad", "good"), ("accuracy",))
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    files = (DataFile(Path("a/reviews.csv"), 2, "11"), DataFile(Path("a/dev.csv"), 1, "22"))
    data = TaskData(task, rows, {"dev": rows.select([0])}, files)
    assert file_hashes(data) == {"reviews.csv": "11", "dev.csv": "22"}
    described = describe_data(data)
    assert json.loads(json.dumps(described)) == described
    assert (described["train_rows"], described["evaluation_rows"]) == (2, {"dev": 1})
    twins = (DataFile(Path("a/data.csv"), 2, "11"), DataFile(Path("b/data.csv"), 1, "22"))
    assert file_hashes(TaskData(task, rows, {}, twins)) == {"a/data.csv": "11", "b/data.csv": "22"}


def test_versions_name_what_decides_a_result() -> None:
    assert {"emdistill", "torch", "transformers", "datasets", "POT", "numpy", "python", "date"} == versions().keys()
