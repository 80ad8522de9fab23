"""What cannot be used is refused before training, with the reason and the mend, and nothing is written."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from emdistill.cli import main


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def table(row: int = 0, **cells: str) -> str:
    """A CSV file of 40 reviews, without commas; `cells` replace those of one row, which is line row + 1."""
    rows = [{"id": str(i), "body": f"it was {'good' if i % 2 else 'bad'}", "stars": str(i % 2)} for i in range(1, 41)]
    rows[row - 1] |= cells
    return "id,body,stars\n" + "".join(",".join(row.values()) + "\n" for row in rows)


BAD_FILES = {
    "empty-text": table(4, body=" "),
    "absent-label": table(5, stars=""),
    "one-class": table().replace(",0\n", ",1\n"),
    "no-number": table(8, stars="high").replace(",0\n", ",0.5\n").replace(",1\n", ",1.25\n"),
    "ragged": table(2).replace("2,it was bad,0\n", "2,it was bad\n", 1),
    "broken-utf8": "id,body,stars\n1,good,good\n2,caf\udce9,bad\n",
    "empty": "",
}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty-text", "empty-text.csv:5: column 'body' is empty"),
        ("absent-label", "absent-label.csv:6: there is no label in column 'stars'"),
        ("one-class", "one-class.csv: every label is '1'; at least two classes are needed"),
        ("no-number", "no-number.csv:9: label 'high' is no number"),
        ("broken-utf8", "broken-utf8.csv:3: byte 6 of this line (0xe9) is not UTF-8; save the file as UTF-8"),
        ("ragged", "ragged.csv:3: 2 cells, but there are 3 columns"),
        ("empty", "empty.csv: the file is empty"),
    ],
)
def test_bad_rows_are_refused_with_file_and_line(place, tmp_path: Path, capsys, name: str, message: str) -> None:
    file = tmp_path / f"{name}.csv"
    file.write_bytes(BAD_FILES[name].encode("utf-8", "surrogateescape"))
    finetune = ["finetune", "--model", f"{place}/encoder", *place.reviews]
    for words in (place.distill(), finetune):
        words += ["--data", str(file), "--output", f"{tmp_path}/run"]
        assert main(words) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_an_unknown_label_in_the_development_set_is_refused(place, tmp_path: Path, capsys) -> None:
    (tmp_path / "dev.csv").write_text(table().replace(",0\n", ",bad\n").replace(",1\n", ",goood\n"))
    assert main(place.distill("--output", f"{tmp_path}/run", "--dev", f"{tmp_path}/dev.csv")) == 2
    err = capsys.readouterr().err
    assert "dev.csv:2: label 'goood' is unknown; the task's labels are: bad, good. Did you mean 'good'?" in err
    assert not (tmp_path / "run").exists()


def damage_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def change_config(**entries: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | entries))

    return change


def untrain(folder: Path) -> None:
    """The same score for every text."""
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"] *= 0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def drop_head(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("classifier")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


TEACHERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut short": (damage_weights, "its safetensors file is damaged or cut short"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights (model.safetensors)"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "holds no tokenizer"),
    "broken tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{"), "its tokenizer cannot be loaded"),
    "no head": (drop_head, "has no trained classification head"),
    "labels in another order": (
        change_config(id2label={"0": "good", "1": "bad"}, label2id={"good": 0, "bad": 1}),
        "teacher and data have their labels in another order",
    ),
    "near chance": (untrain, "it has nothing to teach"),
    "a score": (change_config(problem_type="regression"), "the teacher gives a score, the task asks for classes"),
}


@pytest.mark.parametrize("name", TEACHERS)
def test_a_teacher_that_cannot_teach_is_refused(place, tmp_path: Path, capsys, name: str) -> None:
    spoil, message = TEACHERS[name]
    shutil.copytree(place.folder / "teacher", tmp_path / "teacher")
    spoil(tmp_path / "teacher")
    assert main(place.distill("--teacher", f"{tmp_path}/teacher", "--output", f"{tmp_path}/run")) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_teacher_near_chance_may_be_let_pass(place, tmp_path: Path) -> None:
    shutil.copytree(place.folder / "teacher", tmp_path / "teacher")
    untrain(tmp_path / "teacher")
    words = ["--teacher", f"{tmp_path}/teacher", "--output", f"{tmp_path}/run", "--method", "hard-labels"]
    assert main(place.distill(*words, "--check-teacher", "false", "--training.max_steps=1")) == 0


def test_a_student_with_another_vocabulary_is_refused(place, tmp_path: Path, capsys, tokenizer_factory) -> None:
    shutil.copytree(place.folder / "encoder", tmp_path / "small")
    words = [*tokenizer_factory().get_vocab()]
    tokenizer_factory((*words[:5], *sorted(words[5:]))).save_pretrained(tmp_path / "small")
    assert main(place.distill("--student", f"{tmp_path}/small", "--output", f"{tmp_path}/run")) == 2
    err = capsys.readouterr().err
    assert "TokenizerError" in err
    assert "differ in the ids of" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--student", "9"], "this teacher has 4 layers; --student asks for 9 of them"),
        (["--student", "1,3,9"], "this teacher has 4 layers (0..3); --student names layer 9"),
        (["--student", "3,1"], "name each layer once, in increasing order"),
        (["--student", "2x16x2x32", "--student-birth", "fresh"], "choose --objective.heads mean or match"),
        (["--student", "2x15x4x30"], "the width must be a multiple of the number of heads"),
        (["--student", "2x16x4x32", "--objective.projection", "none"], "choose --objective.projection shared"),
        (["--student", "./nowhere"], "--student './nowhere' names neither layers, a shape, a folder nor a hub id"),
        (["--data", "{tmp}/review.csv"], "review.csv: there is no such file"),
        (["--data", "{place}"], "holds the GLUE tasks SST-2; say which one with --task"),
        (["--data", "{place}/SST-2"], "looks like the GLUE task SST-2; say --task sst2"),
        (["--task", "rte", "--data", "{place}/SST-2"], "SST-2"),
        (["--task", "sts"], "stsb"),
        (["--text", "boddy"], "Did you mean 'body'?"),
        (["--teacher", "{tmp}/nowhere"], "there is no folder {tmp}/nowhere"),
        (["--teacher", "{place}/reviews.csv"], "is a file; name the folder of the encoder"),
        (["--max-length", "1000"], "this encoder reads 128 tokens at most"),
        (["--objective.alpha", "2"], "--objective.alpha is a share between 0 and 1"),
        (["--objective.beta", "-1"], "a weight is 0 (off) or above"),
        (["--objective.beta", "0", "--objective.prediction", "0"], "the objective has no loss"),
        (["--objective.cost_floor", "7"], "cost_floor=7 must lie between"),
        (["--training.learning_rate", "-1"], "--training.learning_rate must be at least 0"),
        (["--training.per_device_train_batch_size", "0"], "per_device_train_batch_size must be at least 1"),
        (["--training.lr_scheduler_type", "lin"], "lin is not a valid SchedulerType"),
        (["--output", "{place}/new.csv"], "new.csv is a file; --output names a folder"),
        (["--output", "{place}/new.csv/run"], "new.csv is a file; --output names a folder"),
        (["--output", "{place}"], "is not empty and holds no run of emdistill"),
        (["--output", "{tmp}/run", "--resume"], "holds no run to resume"),
        (["--overwrite", "--output", "{place}/teacher"], "is read by this run, whose output would replace it"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_used_are_refused(place, tmp_path: Path, capsys, words: list[str], message: str) -> None:
    before = contents(place.folder)
    words, message = (
        [word.format(tmp=tmp_path, place=place.folder) for word in words],
        message.replace("{tmp}", str(tmp_path)),
    )
    assert main(place.distill("--output", f"{tmp_path}/run", *words)) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()
    assert contents(place.folder) == before


def test_a_student_is_not_replaced_by_a_run_that_learns_from_it(place, tmp_path: Path, capsys) -> None:
    shutil.copytree(place.folder / "run", tmp_path / "run")
    before = contents(tmp_path / "run")
    words = ["--teacher", f"{tmp_path}/run/student", "--student", "1", "--output", f"{tmp_path}/run", "--overwrite"]
    assert main(place.distill(*words)) == 2
    assert "is read by this run, whose output would replace it" in capsys.readouterr().err
    assert contents(tmp_path / "run") == before


def test_bad_input_does_not_destroy_the_run_that_was_to_be_replaced(place, tmp_path: Path, capsys) -> None:
    shutil.copytree(place.folder / "run", tmp_path / "run")
    shutil.copytree(place.folder / "teacher", tmp_path / "teacher")
    untrain(tmp_path / "teacher")
    (tmp_path / "bad.csv").write_text(BAD_FILES["empty-text"])
    before = contents(tmp_path / "run")
    for words in (
        ["--data", f"{tmp_path}/bad.csv"],
        ["--student", "9"],
        ["--teacher", f"{tmp_path}/teacher"],
        ["--training.lr_scheduler_type", "lin"],
    ):
        assert main(place.distill("--output", f"{tmp_path}/run", *words, "--overwrite")) == 2
        assert contents(tmp_path / "run") == before
    capsys.readouterr()


SPOILED_LOSS = """
import torch

from emdistill.losses import HardLabels, Objective
from emdistill.training.stage import Stage


class Spoiled(HardLabels):
    calls = 0

    def forward(self, student, teacher, batch):
        Spoiled.calls += 1
        (value,) = super().forward(student, teacher, batch).values()
        return {"hard_labels": value * float("nan") if Spoiled.calls > 10 else value}


def method(student, teacher, *, predictions: str = "classes"):
    return [Stage("labels", Objective([Spoiled()], {"hard_labels": 1.0}))]
"""


def test_a_nan_loss_ends_the_run_and_keeps_what_was_good(place, tmp_path: Path, capsys) -> None:
    (tmp_path / "spoiled.py").write_text(SPOILED_LOSS)
    words = [
        "--method",
        f"{tmp_path}/spoiled.py:method",
        "--output",
        f"{tmp_path}/run",
        "--training.num_train_epochs=3",
    ]
    assert main(place.distill(*words)) == 2
    err = capsys.readouterr().err
    assert "TrainingError: step 11: the loss term hard_labels is NaN or infinite" in err
    checkpoint = tmp_path / "run" / "checkpoints" / "labels" / "checkpoint-9"
    assert str(checkpoint) in err
    kept = load_file(checkpoint / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in kept.values())
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "running"
