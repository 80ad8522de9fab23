"""The command line as a user types it, end to end on a tiny random encoder and a few learnable sentences."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from emdistill import StudentArtifact, distill
from emdistill.cli import VERBS, main
from emdistill.models.encoder import fingerprint
from emdistill.runs.answers import read_predictions


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_run_folder_holds_what_it_says(place) -> None:
    names = {path.name for path in (place.folder / "run").iterdir()}
    assert names == {
        "student",
        "run.json",
        "predictions.jsonl",
        "flows.jsonl",
        "report.html",
        "plotly.min.js",
        "tensorboard",
    }
    student = {path.name for path in (place.folder / "run" / "student").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= student
    assert "emdistill" in (place.folder / "run" / "student" / "README.md").read_text(encoding="utf-8")
    assert [record.step for record in StudentArtifact(place.folder / "run").flows()][:3] == [1, 2, 4]
    assert list((place.folder / "run" / "tensorboard").rglob("events.*"))


def test_the_answers_kept_are_those_that_were_scored(place) -> None:
    run = json.loads((place.folder / "run" / "run.json").read_text(encoding="utf-8"))
    (found,) = read_predictions(place.folder / "run" / "predictions.jsonl").values()
    assert len(found) == run["task"]["evaluation_rows"]["dev"]
    for name, logits in (("teacher", found.teacher), ("student", found.student)):
        assert run["scores"][name]["accuracy"] == (logits.argmax(axis=1) == found.labels).mean()


def test_run_json_tells_how_the_student_was_made(place) -> None:
    run = json.loads((place.folder / "run" / "run.json").read_text(encoding="utf-8"))
    assert run["status"] == "finished"
    assert run["scores"]["teacher"]["accuracy"] == 1.0
    assert run["scores"]["student"]["accuracy"] >= 0.9
    assert run["scores"]["student"].keys() == run["scores"]["teacher"].keys() == {"accuracy", "macro_f1"}
    assert run["config"]["student"] == "2"
    assert run["config"]["training"]["learning_rate"] == 5e-3
    assert run["config"]["objective"]["cost_attention"] == "inverse"
    assert run["seed"] == run["config"]["seed"] == 42
    assert {"emdistill", "torch", "transformers", "python", "date"} <= run["versions"].keys()
    teacher = AutoModelForSequenceClassification.from_pretrained(place.folder / "teacher")
    assert run["hashes"]["teacher"] == fingerprint(teacher)
    assert run["hashes"]["reviews.csv"] == hashlib.sha256((place.folder / "reviews.csv").read_bytes()).hexdigest()
    assert run["timings"]["training_seconds"] > 0
    assert run["timings"]["teacher_evaluation_seconds"] > 0
    assert "16 of the 160 training examples are held out" in run["task"]["held_out"]
    assert "14 rows held out of train" in run["selection"]
    assert run["objective"]["joint"].startswith("L = ")
    assert run["teacher"]["parameters"] == teacher.num_parameters() > run["student"]["parameters"]
    (stage,) = run["log"]
    assert any("terms/hidden_states" in entry for entry in stage["log"])


def test_the_teachers_own_run_json_has_its_score(place) -> None:
    run = json.loads((place.folder / "teacher" / "run.json").read_text(encoding="utf-8"))
    assert run["scores"]["teacher"]["accuracy"] == 1.0
    assert run["task"]["labels"] == ["bad", "good"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in (place.folder / "teacher").iterdir()
    }


STANDS_ALONE = """
import sys

sys.modules["emdistill"] = None  # as where it is not installed
from transformers import AutoModelForSequenceClassification, pipeline

folder = sys.argv[1]
model, report = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
assert not report["missing_keys"] and not report["unexpected_keys"], report
print(*(found["label"] for found in pipeline("text-classification", folder)(["the movie was good", "it was bad"])))
"""


def test_the_student_loads_where_emdistill_is_not_installed(place) -> None:
    command = [sys.executable, "-I", "-c", STANDS_ALONE, str(place.folder / "run" / "student")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["good", "bad"]
    keys = load_file(place.folder / "run" / "student" / "model.safetensors").keys()
    assert not [key for key in keys if "objective" in key or "projection" in key or "mapping" in key]


def test_a_run_is_not_replaced_unasked(place, tmp_path: Path, capsys) -> None:
    shutil.copytree(place.folder / "run", tmp_path / "run")
    before = contents(tmp_path / "run")
    again = place.distill("--output", f"{tmp_path}/run", "--training.num_train_epochs=3")
    again += ["--training.flow_steps=2", "--training.logging_steps=2"]
    assert main(again) == 2
    assert "already holds a run; --resume goes on with it, --overwrite replaces it" in capsys.readouterr().err
    assert main([*again, "--overwrite", "--resume"]) == 2
    assert "exclude each other" in capsys.readouterr().err
    assert main([*again, "--resume"]) == 0
    assert "is finished already; nothing to do" in capsys.readouterr().out
    assert main([*again, "--resume", "--seed", "1"]) == 2
    err = capsys.readouterr().err
    assert "config.seed: 42 then, 1 now" in err
    assert "output" not in err.split("another configuration")[1].split("resume it")[0]
    assert contents(tmp_path / "run") == before


def test_overwrite_makes_the_same_run_again(place, tmp_path: Path, capsys) -> None:
    shutil.copytree(place.folder / "run", tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("the user's own")
    words = ["--training.num_train_epochs=3", "--training.flow_steps=2", "--training.logging_steps=2"]
    assert main(place.distill("--output", f"{tmp_path}/run", *words, "--overwrite")) == 0
    assert (tmp_path / "run" / "notes.txt").is_file()
    for name in ("student/model.safetensors", "flows.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (place.folder / "run" / name).read_bytes()
    out, _ = capsys.readouterr()
    assert out.splitlines()[-1] == f"{tmp_path}/run: student/ is the model, run.json the record"
    assert "teacher on dev: accuracy 1.0000" in out


def test_finetuning_again_is_refused_and_resumed_alike(place, capsys) -> None:
    words = [
        "finetune",
        "--model",
        f"{place.folder}/encoder",
        "--data",
        f"{place.folder}/reviews.csv",
        *place.reviews,
        *place.fast,
        *place.quiet,
    ]
    words += ["--output", f"{place.folder}/teacher", "--training.num_train_epochs=8"]
    before = contents(place.folder / "teacher")
    assert main(words) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    assert "is finished already; nothing to do" in capsys.readouterr().out
    assert contents(place.folder / "teacher") == before


def test_a_glue_folder_gives_teacher_and_fresh_student(place, tmp_path: Path, capsys) -> None:
    glue = ["--task", "sst2", "--data", f"{place.folder}/SST-2"]
    words = ["--model", f"{place.folder}/encoder", *glue, *place.fast, *place.quiet, "--training.num_train_epochs=4"]
    assert main(["finetune", *words, "--output", f"{tmp_path}/teacher"]) == 0
    assert "dev: accuracy" in capsys.readouterr().out
    words = ["--teacher", f"{tmp_path}/teacher", *glue, "--student", "2x16", "--objective.heads", "mean", *place.fast]
    words += ["--training.num_train_epochs=1", "--select", "dev", "--keep-checkpoints"]
    assert main(["distill", *words, "--output", f"{tmp_path}/run"]) == 0
    out, err = capsys.readouterr()
    assert "and flatters" in out
    assert "%|" in err  # progress is no result
    assert "%|" not in out
    student = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "student")
    assert (student.config.num_hidden_layers, student.config.hidden_size) == (2, 16)
    assert (tmp_path / "run" / "checkpoints").is_dir()
    assert main(["evaluate", "--model", f"{tmp_path}/run/student", *glue]) == 0
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert capsys.readouterr().out == f"accuracy\t{run['scores']['student']['accuracy']:.4f}\n"
    assert run["task"]["held_out"] is None


def test_from_python_with_scores_pairs_and_a_development_set(
    place, tmp_path: Path, tiny_encoder, tokenizer_factory
) -> None:
    rows = [[str(i), text, f"{len(text) % 5 + i % 7 / 10}"] for i, (text, _) in enumerate(place.sentences(60))]
    train = place.write_csv(tmp_path / "train.csv", rows, ("a", "b", "score"))
    dev = place.write_csv(tmp_path / "dev.csv", rows[:10], ("a", "b", "score"))
    tiny_encoder("bert", layers=2, width=16, labels=1).save_pretrained(tmp_path / "teacher")
    tokenizer_factory().save_pretrained(tmp_path / "teacher")
    artifact = distill(
        teacher=str(tmp_path / "teacher"), data=str(train), dev=str(dev), text="a", text_pair="b", label="score",
        student=1, method="soft-targets", output=str(tmp_path / "run"), check_teacher=False, select="last",
        training={"num_train_epochs": 1, "disable_tqdm": True}, **{"objective.alpha": 0.5},
    )  # fmt: skip
    assert artifact.scores["student"].keys() == {"pearson", "spearman"}
    assert artifact.run["task"]["evaluation_rows"] == {"dev": 10}
    assert artifact.flows() == []
    student, _ = artifact.load()
    assert (student.config.num_labels, student.config.num_hidden_layers) == (1, 1)


@pytest.mark.parametrize("verb", ["methods", "tasks", "students"])
def test_lists_have_a_line_each(verb: str, capsys) -> None:
    assert main([verb]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(line.split("  ", 1)[1].strip() for line in lines)
    assert main([verb, "--all"]) == 2


def test_help_of_every_verb(capsys) -> None:
    assert main(["--help"]) == main([]) == 0
    out = capsys.readouterr().out
    for verb, text in VERBS.items():
        assert f"{verb} " in out
        assert text in out
        assert main([verb, "--help"]) == 0
    assert "--text-pair TEXT_PAIR" in capsys.readouterr().out
    assert main(["distil"]) == 2
    assert (
        "there is no command 'distil'; `emdistill --help` lists them. Did you mean 'distill'?"
        in capsys.readouterr().err
    )


PRESSES_CTRL_C = """
import signal
import sys

from transformers import TrainerCallback

from emdistill.runs.flow_recorder import FlowRecorder
from emdistill.cli import main

record = FlowRecorder.on_step_end


def press(self, args, state, control, **more):
    if state.global_step == 5:
        signal.raise_signal(signal.SIGINT)
    return record(self, args, state, control, **more)


FlowRecorder.on_step_end = press
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_ctrl_c_exits_with_130_and_resume_finishes_the_same_student(place, tmp_path: Path) -> None:
    words = place.distill("--output", f"{tmp_path}/run", "--training.num_train_epochs=3")
    words += ["--training.flow_steps=2", "--training.logging_steps=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PRESSES_CTRL_C, *words], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 130, done.stderr
    assert "stopped at step 5 of 27 of stage 'joint'; the same command with --resume goes on from there" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "student").exists()
    command = [sys.executable, "-m", "emdistill.cli", *words, "--resume"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    for name in ("student/model.safetensors", "flows.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (place.folder / "run" / name).read_bytes()
