"""A run has one owner; what stands in its folder is touched only once the new run has begun."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from messages import names

from emdistill.errors import BusyError, Interrupted, OutputError
from emdistill.runs.open_run import (
    OWN_FILES,
    check_output,
    check_same_run,
    damaged_file,
    keep_record_alone,
    open_run,
    remove,
)
from emdistill.runs.places import LOCK
from emdistill.runs.record import RunRecord, read_run, write_run

CONFIG = {"seed": 1, "student": "3", "objective": {"beta": 1.0}, "training": {"learning_rate": 1e-4}, "output": "run"}
HASHES = {"teacher": "aa", "train.csv": "bb"}


def record(**changes: Any) -> RunRecord:
    return replace(RunRecord(config=CONFIG, seed=1, hashes=HASHES), **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    write_run(folder, record(timings={"training_seconds": 10.0}))
    (folder / "student").mkdir()
    (folder / "student" / "model.safetensors").write_bytes(b"weights")
    (folder / "checkpoints").mkdir()
    (folder / "notes.txt").write_text("the user's own")
    return folder


def standing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ------------------------------------------------------------------------------------------------- the claim


def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with names(OutputError, tmp_path / "link", tmp_path / "nowhere"):
        check_output(tmp_path / "link", overwrite=False, resume=False)


def test_a_new_or_empty_folder_may_be_written_and_is_not_touched(tmp_path: Path) -> None:
    check_output(tmp_path / "deep" / "run", overwrite=False, resume=False)
    assert not (tmp_path / "deep").exists()
    check_output(tmp_path, overwrite=False, resume=False)
    check_output(tmp_path, overwrite=True, resume=False)  # there is nothing to replace, and that is no fault
    assert not list(tmp_path.iterdir())


def test_a_run_is_replaced_or_resumed_only_when_asked(folder: Path) -> None:
    check_output(folder, overwrite=True, resume=False)
    check_output(folder, overwrite=False, resume=True)
    with names(OutputError, folder, "--resume", "--overwrite"):
        check_output(folder, overwrite=False, resume=False)
    with names(OutputError, "--resume", "--overwrite"):
        check_output(folder, overwrite=True, resume=True)


def test_what_is_no_run_is_never_replaced(tmp_path: Path, folder: Path) -> None:
    (folder / "run.json").unlink()
    for overwrite in (False, True):
        with names(OutputError, folder, "--output"):
            check_output(folder, overwrite=overwrite, resume=False)
    with names(OutputError, folder, "--resume"):
        check_output(folder, overwrite=False, resume=True)
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with names(OutputError, tmp_path / "file", "--output"):
            check_output(place, overwrite=False, resume=False)


def test_a_place_that_may_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    with names(OutputError, tmp_path, "--output"):
        check_output(tmp_path / "deep" / "run", overwrite=False, resume=False)


@pytest.mark.parametrize("read", ["run/student", "run", "other/../run/student", "run/student/model.safetensors"])
def test_a_run_may_not_replace_what_it_reads(tmp_path: Path, folder: Path, read: str) -> None:
    with names(OutputError, tmp_path / read, "--output"):
        check_output(folder, overwrite=True, resume=False, reads=[None, str(tmp_path / read)])


def test_nor_what_a_pattern_names(tmp_path: Path, folder: Path) -> None:
    with names(OutputError, folder / "run.json", "--output"):
        check_output(folder, overwrite=True, resume=False, reads=[f"{tmp_path}/*/*.json"])


def test_what_stands_beside_the_runs_own_files_may_be_read(tmp_path: Path, folder: Path) -> None:
    reads = [str(folder / "notes.txt"), str(tmp_path / "teacher"), "owner/model", "3", None]
    check_output(folder, overwrite=True, resume=False, reads=reads)


def test_a_second_owner_is_refused_while_the_first_one_is_at_it(folder: Path) -> None:
    with open_run(folder, resume=True):
        for options in ({"resume": True}, {"overwrite": True}):
            with names(BusyError, folder), open_run(folder, **options):
                pass
        assert (folder / LOCK).exists()
    assert LOCK not in standing(folder)
    with open_run(folder, resume=True):  # free again
        pass


def test_a_run_that_is_refused_leaves_nothing_and_takes_nothing(tmp_path: Path, folder: Path) -> None:
    before = standing(folder)
    for place, options in ((folder, {"overwrite": True}), (tmp_path / "deep" / "new", {})):
        with pytest.raises(ZeroDivisionError), open_run(place, **options):
            raise ZeroDivisionError
    assert standing(folder) == before
    assert not (tmp_path / "deep").exists()


def test_another_process_of_the_same_training_claims_and_writes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (folder / "run.json").read_bytes()
    with open_run(folder, overwrite=True):
        monkeypatch.setenv("RANK", "1")
        with open_run(folder, overwrite=True) as second:
            second.begin(record(seed=2))
            with second.timed("training_seconds"):
                pass
            second.finish()
        monkeypatch.setenv("RANK", "0")
    assert (folder / "run.json").read_bytes() == before
    assert (folder / "student").exists()


@pytest.mark.parametrize(
    ("options", "begins", "goes_on"),
    [({"overwrite": True}, False, False), ({"overwrite": True}, True, True), ({"resume": True}, False, True)],
)
def test_an_interruption_tells_whether_there_is_something_to_go_on_with(
    folder: Path, options: dict[str, bool], begins: bool, goes_on: bool
) -> None:
    def interrupted() -> None:
        with open_run(folder, **options) as run:
            if begins:
                run.begin(record())
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stop:
        interrupted()
    assert stop.value.begun == goes_on


# ------------------------------------------------------------------------------------------------- the life of a run


def test_a_new_run_replaces_the_old_one_when_it_begins(folder: Path) -> None:
    with open_run(folder, overwrite=True) as run:
        assert not run.is_finished(record(seed=2))
        assert (folder / "student").exists()
        run.begin(record(seed=2), keep=("checkpoints",))
        assert standing(folder) == {"run.json", "checkpoints", "notes.txt", LOCK}
        assert (read_run(folder).seed, read_run(folder).status) == (2, "running")
        run.finish()
    assert standing(folder) == {"run.json", "notes.txt"}
    assert read_run(folder).is_finished


def test_seconds_add_up_over_sessions_whatever_ends_them(folder: Path) -> None:
    def session() -> None:
        with open_run(folder, resume=True) as run:
            now = record()
            assert not run.is_finished(now)
            run.begin(now)
            with run.timed("training_seconds"):
                time.sleep(0.01)
                raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        session()
    assert 10.0 < read_run(folder).timings["training_seconds"] < 11.0
    assert "student" in standing(folder)


def test_a_finished_run_has_nothing_left_to_do(folder: Path) -> None:
    write_run(folder, record(status="finished"))
    with open_run(folder, resume=True) as run:
        assert run.is_finished(record())
    assert "checkpoints" not in standing(folder)  # left behind where a run was stopped just after it had finished


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({}, []),
        ({"config": CONFIG | {"seed": 2}}, ["config.seed: 1 then, 2 now"]),
        ({"config": CONFIG | {"student": "4"}, "hashes": HASHES | {"teacher": "cc"}},
         ["config.student: '3' then, '4' now", "hashes.teacher: 'aa' then, 'cc' now"]),
        ({"hashes": HASHES | {"dev.csv": "dd"}}, ["hashes.dev.csv: None then, 'dd' now"]),
        ({"config": CONFIG | {"output": "run/", "teacher": "t/", "data": "d", "dev": None}}, []),
        ({"config": CONFIG | {"an option of a later version": 3}}, []),
        ({"config": CONFIG | {"objective": {"beta": 1.0, "an option of a later version": 3}}}, []),
        ({"config": CONFIG | {"objective": {"beta": 2.0}}}, ["config.objective.beta: 1.0 then, 2.0 now"]),
        ({"config": CONFIG | {"training": {"learning_rate": 1e-4, "max_steps": 9}}},
         ["config.training.max_steps: None then, 9 now"]),
        ({"config": CONFIG | {"training": {"learning_rate": 1e-3}}},
         ["config.training.learning_rate: 0.0001 then, 0.001 now"]),
    ],
)  # fmt: skip
def test_a_run_is_resumed_as_it_was_started(folder: Path, change: dict[str, Any], differs: list[str]) -> None:
    """What names a place may differ, for its contents are compared by hash; so may options that were added later."""
    if not differs:
        check_same_run(folder, read_run(folder), record(**change))
        return
    with pytest.raises(OutputError) as caught:
        check_same_run(folder, read_run(folder), record(**change))
    assert [line.strip() for line in str(caught.value).splitlines()[1:-1]] == differs


@pytest.mark.parametrize("name", ["dev", "unlabelled"])
def test_what_is_left_out_is_no_other_place(folder: Path, name: str) -> None:
    """Forgotten with --resume, it is read by nobody, and has no hash that could differ."""
    write_run(folder, record(config=CONFIG | {name: "a.csv"}, hashes=HASHES | {f"{name} a.csv": "cc"}))
    with names(OutputError, f"config.{name}", "a.csv", None):
        check_same_run(folder, read_run(folder), record(config=CONFIG | {name: None}))


def test_files_may_have_moved(folder: Path) -> None:
    then, now = ({"augmented": f"{place}/more.jsonl", "mapping": f"{place}/best.json"} for place in ("old", "new"))
    hashes = HASHES | {"augmented": "cc", "mapping": "dd"}
    write_run(folder, record(config=CONFIG | then, hashes=hashes))
    check_same_run(folder, read_run(folder), record(config=CONFIG | now, hashes=hashes))
    with names(OutputError, "hashes.mapping", "dd", "ee"):
        check_same_run(folder, read_run(folder), record(config=CONFIG | now, hashes=hashes | {"mapping": "ee"}))
    with names(OutputError, "config.mapping", "uniform"):
        check_same_run(folder, read_run(folder), record(config=CONFIG | {"mapping": "uniform"}, hashes=HASHES))


def test_a_student_folder_is_known_by_its_weights(folder: Path) -> None:
    """It may have moved, not changed; an earlier version kept no hash of it."""
    then, now = ({"student": f"{place}/small", "student_source": f"{place}/base"} for place in ("old", "new"))
    hashes = HASHES | {"student": "cc", "student_source": "dd"}
    write_run(folder, record(config=CONFIG | then))
    check_same_run(folder, read_run(folder), record(config=CONFIG | then, hashes=hashes))
    write_run(folder, record(config=CONFIG | then, hashes=hashes))
    check_same_run(folder, read_run(folder), record(config=CONFIG | now, hashes=hashes))
    with names(OutputError, "hashes.student", "cc", "ee"):
        check_same_run(folder, read_run(folder), record(config=CONFIG | then, hashes=hashes | {"student": "ee"}))


def test_a_step_has_as_many_rows_however_they_are_shared_out(folder: Path) -> None:
    """Among processes and accumulated gradients; of a record without their number the options are compared."""
    training = {"learning_rate": 1e-4, "per_device_train_batch_size": 16, "gradient_accumulation_steps": 2}
    now = record(config=CONFIG | {"training": training}, rows_per_step={"joint": 64})
    with names(OutputError, "config.training.per_device_train_batch_size", "None", 16):
        check_same_run(folder, read_run(folder), now)
    write_run(folder, record(rows_per_step={"joint": 64}))
    check_same_run(folder, read_run(folder), now)
    with names(OutputError, "joint", 64, 32, "--training.per_device_train_batch_size"):
        check_same_run(folder, read_run(folder), replace(now, rows_per_step={"joint": 32}))


def test_removing_takes_a_runs_own_files_only(folder: Path) -> None:
    remove(folder, ["checkpoints", "flows.jsonl"])
    assert standing(folder) == {"run.json", "student", "notes.txt"}
    remove(folder, OWN_FILES)
    assert standing(folder) == {"notes.txt"}
    remove(folder.parent / "absent", OWN_FILES)


@pytest.mark.parametrize("lost", ["student", "flows.jsonl"])
def test_a_finished_run_that_has_lost_a_result_is_not_whole(folder: Path, lost: str) -> None:
    (folder / "flows.jsonl").write_text("{}\n")
    with open_run(folder, resume=True) as run:
        run.begin(record())
        run.finish()
    assert not damaged_file(folder, read_run(folder))
    remove(folder, [lost])
    assert lost in damaged_file(folder, read_run(folder))
    with open_run(folder, resume=True) as run:
        assert not run.is_finished(record())


def test_a_run_of_which_the_record_alone_is_kept_is_whole(folder: Path) -> None:
    with open_run(folder, resume=True) as run:
        run.begin(record())
        run.finish()
    keep_record_alone(folder)
    assert standing(folder) == {"run.json", "notes.txt"}
    before = read_run(folder)
    assert before.is_finished
    assert not damaged_file(folder, before)
    keep_record_alone(folder / "absent")
