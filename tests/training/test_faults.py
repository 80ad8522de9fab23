"""Nothing is lost where a write fails or a file is damaged; benchmarks/faults.py is the long form."""

import errno
import io
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from messages import names, unnamed
from training_runs import AtStep, assert_same_outcome

from emdistill.errors import Interrupted, OutputError
from emdistill.files import (
    MANIFEST,
    damage,
    files_written_whole,
    folder_written_whole,
    seal,
    storage_errors,
    write_whole,
)
from emdistill.stopping import WARNINGS

OPERATIONS = [(os, "fsync"), (os, "replace"), (os, "rename")]


@contextmanager
def failing(n: int) -> Iterator[list[str]]:
    """The n-th flush, rename or file that is opened to be written, from here on, meets a full disk; 0: none does."""
    done: list[str] = []

    def count(name: str) -> None:
        if threading.current_thread() is not threading.main_thread():  # TensorBoard's, whose turn may come any time
            return
        done.append(name)
        if len(done) == n:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def spied(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            count(name)
            return original(*args, **options)

        return call

    def opened(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if set(mode) & set("wa+x"):
            count("open")
        return original_open(file, mode, *args, **options)

    original_open = io.open
    with pytest.MonkeyPatch.context() as patch:
        for module, name in OPERATIONS:
            patch.setattr(module, name, spied(name, getattr(module, name)))
        patch.setattr(io, "open", opened)
        patch.setattr("builtins.open", opened)
        yield done


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def one_file(place: Path) -> None:
    write_whole(place / "a", "new")


def one_folder(place: Path) -> None:
    with folder_written_whole(place / "folder") as part:
        (part / "a").write_text("new")


def several_files(place: Path) -> None:
    with files_written_whole(place) as part:
        (part / "a").write_text("new")


@pytest.mark.parametrize("write", [one_file, one_folder, several_files])
def test_a_full_disk_at_any_write_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    (tmp_path / "counted").mkdir()
    with failing(0) as every:
        write(tmp_path / "counted")
    assert "fsync" in every
    for n in range(1, len(every) + 1):
        place = tmp_path / str(n)
        (place / "folder").mkdir(parents=True)
        for file in (place / "a", place / "folder" / "a"):
            file.write_text("old")
        with pytest.raises(OSError, match="No space"), failing(n):
            write(place)
        assert set(contents(place)) == {"a", "folder/a"}
        assert set(contents(place).values()) <= {"old", "new"}


def test_a_folder_that_a_kill_left_aside_is_put_back(tmp_path: Path) -> None:
    aside = tmp_path / ".model-1" / "old"
    aside.mkdir(parents=True)
    (aside / "a").write_text("old")
    with folder_written_whole(tmp_path / "model"):
        assert (tmp_path / "model" / "a").read_text() == "old"


@pytest.mark.parametrize("harm", ["a bit", "cut", "gone", "manifest", "no manifest"])
def test_a_sealed_folder_knows_what_became_of_it(tmp_path: Path, harm: str) -> None:
    file, manifest = tmp_path / "weights", tmp_path / MANIFEST
    file.write_bytes(b"0123456789")
    seal(tmp_path)
    assert damage(tmp_path) == ""
    if harm == "a bit":
        file.write_bytes(b"0123456788")
    elif harm == "cut":
        file.write_bytes(b"01234")
    elif harm == "gone":
        file.unlink()
    elif harm == "manifest":
        manifest.write_text("{")
    else:
        manifest.unlink()
    assert not unnamed(damage(tmp_path), MANIFEST if "manifest" in harm else "weights")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),  # torch.save
        Exception("No space left on device (os error 28)"),  # safetensors, tokenizers
    ],
)
def test_what_a_disk_refuses_is_an_error_of_this_project(tmp_path: Path, error: Exception) -> None:
    with names(OutputError, tmp_path), storage_errors(tmp_path):
        raise error


def test_other_errors_are_what_they_are(tmp_path: Path) -> None:
    for error in (RuntimeError("shapes differ"), FileNotFoundError(errno.ENOENT, "no such file")):
        with pytest.raises(type(error)), storage_errors(tmp_path):
            raise error


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_training_whose_checkpoint_meets_a_full_disk_goes_on_from_the_one_before(
    new_run: Any, finished_run: Any, share: float
) -> None:
    """At an early, a middle and a late write; the student is that of the undisturbed run, bit for bit."""
    with failing(0) as every:
        new_run("counted").go()
    with pytest.raises((OSError, OutputError)), failing(round(share * len(every))):
        new_run().go()
    resumed = new_run()
    resumed.go(resume=True)
    assert_same_outcome(finished_run(), resumed)


def test_a_bit_that_flips_in_a_checkpoint_is_named_and_the_one_before_is_taken(
    new_run: Any, finished_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Interrupted):
        new_run().go(AtStep(8))
    newest = new_run().folder / "checkpoints" / "joint" / "checkpoint-9"
    weights = newest / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    resumed = new_run()
    resumed.go(resume=True)
    assert not unnamed(capsys.readouterr().err, newest, "model.safetensors")
    assert_same_outcome(finished_run(), resumed)


def test_a_checkpoint_whose_best_one_is_lost_is_passed_over(new_run: Any, finished_run: Any) -> None:
    """What the best epoch taught cannot be had from later ones."""
    with pytest.raises(Interrupted):
        new_run().go(AtStep(8), choose=True)
    shutil.rmtree(new_run().folder / "checkpoints" / "joint" / "checkpoint-6")
    resumed = new_run()
    resumed.go(resume=True, choose=True)
    assert_same_outcome(finished_run(choose=True), resumed)


@pytest.mark.parametrize("warning", WARNINGS, ids=lambda number: number.name)
def test_a_warning_ends_with_a_checkpoint_however_often_it_comes(new_run: Any, warning: signal.Signals) -> None:
    """As `timeout`, batch systems and terminals that are closed send it: to the process, and to its group."""
    before = signal.getsignal(warning)

    def warn_twice() -> None:
        signal.raise_signal(warning)
        signal.raise_signal(warning)

    with names(Interrupted, 4, "'joint'"):
        new_run().go(AtStep(3, action=warn_twice))
    assert (new_run().folder / "checkpoints" / "joint" / "checkpoint-4" / MANIFEST).is_file()
    assert signal.getsignal(warning) == before


@pytest.mark.parametrize("met", [signal.SIG_IGN, lambda number, frame: None], ids=["ignored", "by the caller"])
def test_a_warning_that_somebody_else_meets_stops_nothing(new_run: Any, finished_run: Any, met: Any) -> None:
    """nohup has SIGHUP ignored; a program that calls this one may requeue its job at SIGUSR1."""
    before = signal.signal(WARNINGS[-1], met)
    try:
        run = new_run()
        run.go(AtStep(3, action=lambda: signal.raise_signal(WARNINGS[-1])))
    finally:
        signal.signal(WARNINGS[-1], before)
    assert_same_outcome(finished_run(), run)
