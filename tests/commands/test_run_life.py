"""A run over its life: refused before the old one is touched, mended after a kill, written by one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from emdistill.cli import main
from emdistill.commands import distill as distill_module
from emdistill.runs.flows import read_flows
from emdistill.runs.record import read_run

PARAGRAPH = "the movie was good and it was not bad and the book of it is very good. " * 4 + "\n\n"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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

    monkeypatch.setattr("emdistill.training.dry_step.capture", broken)
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
    monkeypatch.setattr("emdistill.training.dry_step.capture", None)
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


@pytest.mark.parametrize("damaged", ["model.safetensors", "optimizer.pt", "trainer_state.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    place: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: str
) -> None:
    """A run that is killed in its third epoch, its last checkpoint cut short: it ends as the uninterrupted one."""
    run = tmp_path / "run"
    words = ["--training.num_train_epochs=3", "--keep_checkpoints"]
    assert main(place.distill("--output", str(run), *words)) == 0
    student = (run / "student" / "model.safetensors").read_bytes()
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"status": "running"}))
    (run / "checkpoints" / "joint" / "finished.safetensors").unlink()
    steps = sorted((run / "checkpoints" / "joint").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    assert len(steps) == 2
    file = steps[-1] / damaged
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    capsys.readouterr()
    assert main(place.distill("--output", str(run), *words, "--resume")) == 0
    assert steps[-1].name in capsys.readouterr().err
    assert (run / "student" / "model.safetensors").read_bytes() == student


def test_two_processes_write_one_run_once(place: Any, tmp_path: Path) -> None:
    """One student learned by two gloo processes; what the folder holds is what one process writes."""
    command = place.distill("--output", str(tmp_path / "two"), "--training.flow_steps=1", "--training.max_steps=4")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*launch, "emdistill.cli", *command], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("teacher on dev") == 1
    run = read_run(tmp_path / "two")
    assert run.is_finished
    assert [record.step for record in read_flows(tmp_path / "two" / "flows.jsonl")] == [1, 2, 3, 4]
    assert not list((tmp_path / "two").rglob("*.part"))
    alone = place.distill("--output", str(tmp_path / "one"), "--training.flow_steps=1", "--training.max_steps=4")
    assert main(alone) == 0
    names = {path.relative_to(tmp_path / "one").as_posix() for path in (tmp_path / "one").rglob("*")}
    both = {path.relative_to(tmp_path / "two").as_posix() for path in (tmp_path / "two").rglob("*")}
    assert {name for name in both if "events" not in name} == {name for name in names if "events" not in name}
    assert len([name for name in both if "events" in name]) == len([name for name in names if "events" in name])
    assert torch.get_num_threads() == 1
