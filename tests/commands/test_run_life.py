"""A run over its life: refused before the old one is touched, mended after a kill, written by one process."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from many_processes import RunInProcesses, forking
from messages import unnamed
from run_folders import contents, read_record, write_record
from safetensors.numpy import load_file

from emdistill.cli import main
from emdistill.commands import distill as distill_module
from emdistill.runs.flows import read_flows
from emdistill.runs.record import read_run

PARAGRAPH = "the movie was good and it was not bad and the book of it is very good. " * 4 + "\n\n"


@pytest.mark.parametrize("options", [[], ["--task", "text"]], ids=["task", "raw text"])
def test_a_run_that_cannot_take_a_step_takes_nothing_from_the_old_one(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    """Whatever fails in a first step fails before the folder is touched."""
    run = tmp_path / "run"
    command = place.distill("--output", str(run))
    assert main(command) == 0
    before = contents(run)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("this encoder cannot be captured")

    monkeypatch.setattr("emdistill.training.lesson.capture", broken)
    if options:
        (tmp_path / "text.txt").write_text(PARAGRAPH * 40)
        command = ["distill", "--teacher", f"{place.folder}/encoder", "--data", f"{tmp_path}/text.txt", *options]
        command += ["--student", "2", "--max_length", "16", "--output", str(run)]
    with pytest.raises(RuntimeError):
        main([*command, "--overwrite"])
    assert contents(run) | before == contents(run)  # the tokens of a text may stand beside it
    with pytest.raises(RuntimeError):
        main([*command[:-1], str(tmp_path / "new")])
    assert not (tmp_path / "new" / "run.json").exists()


def test_fine_tuning_that_cannot_take_a_step_keeps_the_old_model(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["finetune", "--model", f"{place.folder}/encoder", "--data", f"{place.folder}/reviews.csv"]
    command += [*place.reviews, *place.quiet, "--training.max_steps", "2", "--output", str(tmp_path / "teacher")]
    assert main(command) == 0
    before = contents(tmp_path / "teacher")
    monkeypatch.setattr("emdistill.training.lesson.capture", None)
    with pytest.raises(TypeError):
        main([*command, "--overwrite"])
    assert contents(tmp_path / "teacher") == before


def test_a_kill_between_score_and_page_is_mended_by_resuming(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def killed(*_: Any, **__: Any) -> None:
        raise SystemExit(137)

    with monkeypatch.context() as patch:
        patch.setattr(distill_module, "write_run_report", killed)
        with pytest.raises(SystemExit):
            main(place.distill("--output", str(run)))
    half = read_run(run)
    assert not half.is_finished
    assert not (run / "report.html").exists()
    assert main(place.distill("--output", str(run), "--resume")) == 0
    whole = read_run(run)
    assert whole.is_finished
    assert (run / "report.html").exists()
    assert not (run / "checkpoints").exists()
    assert whole.scores == half.scores
    assert whole.timings["training_seconds"] >= half.timings["training_seconds"] > 0


@pytest.mark.parametrize("option", ["--student", "--student-source"])
def test_a_student_whose_folder_was_changed_is_another_run(
    place: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_encoder: Any, option: str
) -> None:
    small = tmp_path / "small"
    shutil.copytree(place.folder / "encoder", small)
    short = ["--method", "soft-targets", "--training.max_steps=1", option, str(small)]
    command = place.distill("--output", str(tmp_path / "run"), *short)
    assert main(command) == 0
    tiny_encoder("bert", layers=4, width=24, heads=4, seed=9).save_pretrained(small)
    capsys.readouterr()
    assert main([*command, "--resume"]) == 2
    assert f"hashes.{option.strip('-').replace('-', '_')}" in capsys.readouterr().err


THREE_EPOCHS = ("--training.num_train_epochs=3", "--keep-checkpoints")


@pytest.fixture(scope="module")
def uninterrupted(place: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its checkpoints; leave it as it is."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert main(place.distill("--output", str(run), *THREE_EPOCHS)) == 0
    return run


@pytest.mark.parametrize("damaged", ["model.safetensors", "optimizer.pt", "trainer_state.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    place: Any, uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: str
) -> None:
    """A run that is killed in its third epoch, its last checkpoint cut short: it ends as the uninterrupted one."""
    run = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    student = (run / "student" / "model.safetensors").read_bytes()
    write_record(run, read_record(run) | {"status": "running"})
    shutil.rmtree(run / "checkpoints" / "joint" / "finished")
    steps = sorted((run / "checkpoints" / "joint").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    assert len(steps) == 2
    file = steps[-1] / damaged
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    capsys.readouterr()
    assert main(place.distill("--output", str(run), *THREE_EPOCHS, "--resume")) == 0
    assert steps[-1].name in capsys.readouterr().err
    assert (run / "student" / "model.safetensors").read_bytes() == student


@pytest.fixture(scope="module")
def run_in_processes() -> Iterator[RunInProcesses]:
    with forking() as run:
        yield run


def without_dropout(place: Any, folder: Path) -> Path:
    """The teacher, whose students have no dropout: each process draws its own."""
    teacher = Path(shutil.copytree(place.folder / "teacher", folder / "teacher"))
    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(json.dumps(config | {name: 0.0 for name in config if "dropout" in name}))
    return teacher


def test_two_processes_write_one_run_once(place: Any, run_in_processes: RunInProcesses, tmp_path: Path) -> None:
    """One student learned by two gloo processes; what the folder holds is what one process writes, and learns."""
    short = ["--training.flow_steps=1", "--training.max_steps=4", "--training.logging_steps=1", "--mapping=emd"]
    short.append("--teacher_cache=states")  # which both compute
    half = "--training.per_device_train_batch_size=8"
    short.append(f"--teacher={without_dropout(place, tmp_path)}")
    code, told = run_in_processes(2, place.distill("--output", f"{tmp_path}/two", *short, half), tmp_path)
    assert code == 0, told
    assert not unnamed(told["0.out"], "teacher on dev", f"{tmp_path}/two")
    assert told["1.out"] == ""  # one of them speaks
    assert read_run(tmp_path / "two").is_finished
    assert main(place.distill("--output", f"{tmp_path}/one", *short)) == 0
    flows = [list(read_flows(tmp_path / name / "flows.jsonl")) for name in ("one", "two")]
    assert [record.step for record in flows[1]] == [1, 2, 3, 4]
    for ours, alone in zip(flows[1], flows[0], strict=True):
        for side in ("flows", "student_weights", "teacher_weights"):
            for term, numbers in getattr(alone, side).items():
                np.testing.assert_allclose(getattr(ours, side)[term], numbers, atol=1e-5)
    losses = [
        [entry["loss"] for entry in read_run(tmp_path / name).log[0].log if "loss" in entry] for name in ("one", "two")
    ]
    assert len(losses[0]) == 4
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    one, two = (
        sorted(re.sub(r"events\.\S*", "events", file.relative_to(folder).as_posix()) for file in folder.rglob("*"))
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two


def test_where_the_first_process_refuses_all_end_and_it_alone_speaks(
    place: Any, run_in_processes: RunInProcesses, tmp_path: Path
) -> None:
    """The other one waits for it where processes meet, in C++, where Python hears no signal."""
    started = time.monotonic()
    code, told = run_in_processes(2, place.distill("--output", f"{tmp_path}/none", "--resume"), tmp_path)
    assert (code, told["1.err"]) == (2, "")
    assert not unnamed(told["0.err"], f"{tmp_path}/none", "--resume")
    assert time.monotonic() - started < 100


def test_a_full_disk_of_the_first_process_ends_the_other_without_a_trace(
    place: Any, run_in_processes: RunInProcesses, tmp_path: Path
) -> None:
    words = place.distill("--output", f"{tmp_path}/run", "--training.save_strategy=steps", "--training.save_steps=2")
    code, told = run_in_processes(2, words, tmp_path, longest=50_000)  # of a checkpoint's 70,000
    assert code == 2
    assert not unnamed(told["0.err"], f"{tmp_path}/run", "checkpoint-2")
    assert "Traceback" not in told["1.err"]


def test_a_run_goes_on_in_another_number_of_processes(
    place: Any, run_in_processes: RunInProcesses, tmp_path: Path
) -> None:
    """From the middle of its second epoch, where one process was asked to stop: as a run that nobody has stopped."""
    words = [f"--teacher={without_dropout(place, tmp_path)}", "--select=last", "--rows=64", "--keep_checkpoints"]
    words += ["--training.num_train_epochs=2", "--training.learning_rate=1e-3"]
    words += ["--training.save_strategy=steps", "--training.save_steps=3"]

    def command(name: str, processes: int, *further: str) -> list[str]:
        rows = f"--training.per_device_train_batch_size={16 // processes}"
        return place.distill("--output", f"{tmp_path}/{name}", *words, *further, rows)

    def checkpoints(name: str) -> set[str]:
        return {path.name for path in (tmp_path / name / "checkpoints" / "joint").iterdir()}

    code, told = run_in_processes(2, command("two", 2), tmp_path, stop_at=5)  # of 8
    assert code == 130, told
    assert checkpoints("two") == {"checkpoint-3", "checkpoint-5"}
    assert main(command("two", 1, "--resume")) == 0

    assert main(command("one", 1)) == 0
    whole = load_file(tmp_path / "one" / "student" / "model.safetensors")
    record = read_record(tmp_path / "one")
    write_record(tmp_path / "one", record | {"status": "running"})  # as it stood after step 6
    for later in ("finished", "checkpoint-8"):
        shutil.rmtree(tmp_path / "one" / "checkpoints" / "joint" / later)
    code, told = run_in_processes(2, command("one", 2, "--resume"), tmp_path)
    assert code == 0, told

    for name in ("one", "two"):
        weights = load_file(tmp_path / name / "student" / "model.safetensors")
        for part, expected in whole.items():
            assert np.linalg.norm(weights[part] - expected) < 1e-5 * np.linalg.norm(expected), (name, part)
