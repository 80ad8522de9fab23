"""What cannot be used is refused before training, with the reason and the mend, and nothing is written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from messages import unnamed
from run_folders import contents
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from emdistill.cli import main
from emdistill.data.read import read_data
from emdistill.options import load_finetune_config


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
    ("name", "named"),
    [
        ("empty-text", ["empty-text.csv:5", "'body'"]),
        ("absent-label", ["absent-label.csv:6", "'stars'"]),
        ("one-class", ["one-class.csv", "'1'"]),
        ("no-number", ["no-number.csv:9", "'high'"]),
        ("broken-utf8", ["broken-utf8.csv:3", "0xe9"]),
        ("ragged", ["ragged.csv:3", "id, body, stars"]),
        ("empty", ["empty.csv"]),
    ],
)
def test_bad_rows_are_refused_with_file_and_line(place, tmp_path: Path, capsys, name: str, named: list[str]) -> None:
    file = tmp_path / f"{name}.csv"
    file.write_bytes(BAD_FILES[name].encode("utf-8", "surrogateescape"))
    finetune = ["finetune", "--model", f"{place}/encoder", *place.reviews]
    for words in (place.distill(), finetune):
        words += ["--data", str(file), "--output", f"{tmp_path}/run"]
        assert main(words) == 2
        assert not unnamed(capsys.readouterr().err, *named)
        assert not (tmp_path / "run").exists()


def test_an_unknown_label_in_the_development_set_is_refused(place, tmp_path: Path, capsys) -> None:
    (tmp_path / "dev.csv").write_text(table().replace(",0\n", ",bad\n").replace(",1\n", ",goood\n"))
    assert main(place.distill("--output", f"{tmp_path}/run", "--dev", f"{tmp_path}/dev.csv")) == 2
    assert not unnamed(capsys.readouterr().err, "dev.csv:2", "'goood'", "bad, good", "'good'")
    assert not (tmp_path / "run").exists()


def test_a_development_set_is_not_the_training_file(place, tmp_path: Path, capsys) -> None:
    train, dev = (tmp_path / name for name in ("train.csv", "dev.csv"))
    for file in (train, dev):
        file.write_text(table())
    words = [f"--data={train}", f"--dev={dev}", f"--output={tmp_path}/run"]
    finetune = ["finetune", "--model", f"{place.folder}/encoder", *place.reviews]
    for command in (place.distill(), finetune):
        assert main([*command, *words]) == 2
        assert not unnamed(capsys.readouterr().err, dev, "--dev")
        assert not (tmp_path / "run").exists()


def test_rows_of_the_development_set_that_are_learned_from_are_counted(tmp_path: Path) -> None:
    train, dev = (tmp_path / name for name in ("train.csv", "dev.csv"))
    train.write_text(table())
    dev.write_text("id,body,stars\n1,It was GOOD.,1\n2,it was very good,1\n3,it was bad,0\n")
    config = load_finetune_config(
        model="none", data=str(train), dev=str(dev), text="body", label="stars", output=str(tmp_path / "run")
    )
    (note,) = read_data(config).notes
    assert not unnamed(note, "2 of the 3", dev)
    dev.write_text("id,body,stars\n2,it was very good,1\n3,it was very bad,0\n")
    assert not read_data(config).notes


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
    "cut short": (damage_weights, "safetensors"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer"),
    "broken tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer"),
    "no head": (drop_head, "head"),
    "names on the wrong logits": (
        change_config(id2label={"0": "good", "1": "bad"}, label2id={"good": 0, "bad": 1}),
        "0.000",
    ),
    "near chance": (untrain, "0.500"),
    "a score": (change_config(problem_type="regression"), "--kind"),
}


@pytest.mark.parametrize("name", TEACHERS)
def test_a_teacher_that_cannot_teach_is_refused(place, tmp_path: Path, capsys, name: str) -> None:
    spoil, named = TEACHERS[name]
    shutil.copytree(place.folder / "teacher", tmp_path / "teacher")
    spoil(tmp_path / "teacher")
    assert main(place.distill("--teacher", f"{tmp_path}/teacher", "--output", f"{tmp_path}/run")) == 2
    err = capsys.readouterr().err
    assert named in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_a_teacher_near_chance_may_be_let_pass(place, tmp_path: Path) -> None:
    shutil.copytree(place.folder / "teacher", tmp_path / "teacher")
    untrain(tmp_path / "teacher")
    words = ["--teacher", f"{tmp_path}/teacher", "--output", f"{tmp_path}/run", "--method", "hard-labels"]
    assert main(place.distill(*words, "--check-teacher", "false", "--training.max_steps=1")) == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--student", "9"], ["--student", "9", "4"]),
        (["--student", "1,3,9"], ["--student", "9", "0..3"]),
        (["--student", "3,1"], ["3,1"]),
        (
            ["--student", "2x16x2x32", "--student-birth", "fresh", "--method", "bert-emd"],
            ["--objective.heads", "mean", "match"],
        ),
        (["--student", "2x15x4x30"], ["--student 2x15x4x30", "2x15"]),
        (["--student", "2x16x4x32", "--objective.projection", "none"], ["--objective.projection shared"]),
        (["--student", "./nowhere"], ["--student", "./nowhere"]),
        (["--data", "{tmp}/review.csv"], ["review.csv"]),
        (["--data", "{place}"], ["SST-2", "--task"]),
        (["--data", "{place}/SST-2"], ["SST-2", "--task sst2"]),
        (["--task", "rte", "--data", "{place}/SST-2"], ["SST-2", "rte"]),
        (["--task", "sts"], ["'sts'", "stsb"]),
        (["--text", "boddy"], ["'boddy'", "'body'"]),
        (["--teacher", "{tmp}/nowhere"], ["{tmp}/nowhere"]),
        (["--teacher", "{place}/reviews.csv"], ["{place}/reviews.csv"]),
        (["--max-length", "1000"], ["--max-length 1000", "128"]),
        (["--objective.alpha", "2"], ["--objective.alpha", "2.0"]),
        (["--objective.beta", "-1", "--method", "bert-emd"], ["--objective.beta -1"]),
        (["--objective.beta", "0", "--objective.prediction", "0", "--method", "bert-emd"], ["ConfigError"]),
        (["--objective.cost_floor", "7", "--method", "bert-emd"], ["cost_floor", "7"]),
        (["--training.learning_rate", "-1"], ["--training.learning_rate"]),
        (["--training.per_device_train_batch_size", "0"], ["--training.per_device_train_batch_size", "0"]),
        (["--training.lr_scheduler_type", "lin"], ["lin"]),
        (["--output", "{place}/new.csv"], ["--output", "{place}/new.csv"]),
        (["--output", "{place}/new.csv/run"], ["--output", "{place}/new.csv"]),
        (["--output", "{place}"], ["--output", "{place}"]),
        (["--output", "{tmp}/run", "--resume"], ["{tmp}/run"]),
        (["--overwrite", "--output", "{place}/teacher"], ["--output", "{place}/teacher"]),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    place, tmp_path: Path, capsys, words: list[str], named: list[str]
) -> None:
    before = contents(place.folder)
    words, named = (
        [word.replace("{tmp}", str(tmp_path)).replace("{place}", str(place.folder)) for word in given]
        for given in (words, named)
    )
    assert main(place.distill("--output", f"{tmp_path}/run", *words)) == 2
    err = capsys.readouterr().err
    assert not unnamed(err, *named)
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()
    assert contents(place.folder) == before


def test_a_student_is_not_replaced_by_a_run_that_learns_from_it(place, tmp_path: Path, capsys) -> None:
    shutil.copytree(place.folder / "run", tmp_path / "run")
    before = contents(tmp_path / "run")
    words = ["--teacher", f"{tmp_path}/run/student", "--student", "1", "--output", f"{tmp_path}/run", "--overwrite"]
    assert main(place.distill(*words)) == 2
    assert f"{tmp_path}/run/student" in capsys.readouterr().err
    assert contents(tmp_path / "run") == before


def save_encoder(folder: Path, model: PreTrainedModel, tokenizer: Any) -> None:
    model.config.id2label, model.config.label2id = {0: "bad", 1: "good"}, {"bad": 0, "good": 1}
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_bad_input_does_not_destroy_the_run_that_was_to_be_replaced(
    place, tmp_path: Path, capsys, tiny_encoder, tiny_tokenizer
) -> None:
    shutil.copytree(place.folder / "run", tmp_path / "run")
    shutil.copytree(place.folder / "teacher", tmp_path / "teacher")
    untrain(tmp_path / "teacher")
    for family in ("fnet", "data2vec-text"):  # of no family in the table: nothing of their layers can be captured
        save_encoder(tmp_path / family, tiny_encoder(family), tiny_tokenizer)
    (tmp_path / "bad.csv").write_text(BAD_FILES["empty-text"])
    before = contents(tmp_path / "run")
    for words in (
        ["--data", f"{tmp_path}/bad.csv"],
        ["--student", "9"],
        ["--teacher", f"{tmp_path}/teacher"],
        ["--training.lr_scheduler_type", "lin"],
        ["--max-length", "129"],
        ["--teacher", f"{tmp_path}/fnet", "--check-teacher=false", "--student-birth=fresh", "--student=2x24"],
        ["--teacher", f"{tmp_path}/data2vec-text", "--check-teacher=false"],
    ):
        assert main(place.distill("--output", f"{tmp_path}/run", *words, "--overwrite")) == 2
        assert "Traceback" not in capsys.readouterr().err
        assert contents(tmp_path / "run") == before


def test_a_length_without_positions_does_not_destroy_the_model_that_was_to_be_replaced(
    place, tmp_path: Path, capsys, tiny_encoder, tiny_tokenizer
) -> None:
    shutil.copytree(place.folder / "teacher", tmp_path / "teacher")
    before = contents(tmp_path / "teacher")
    save_encoder(tmp_path / "encoder", tiny_encoder("xlm-roberta", pad_token_id=1), tiny_tokenizer)
    words = ["--model", f"{tmp_path}/encoder", "--data", f"{place.folder}/reviews.csv", *place.reviews, "--overwrite"]
    assert main(["finetune", *words, "--output", f"{tmp_path}/teacher", "--max-length", "128"]) == 2
    assert not unnamed(capsys.readouterr().err, "--max-length 128", 126)
    assert contents(tmp_path / "teacher") == before


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
    # The first call is the batch that is tried before anything is written.
    assert not unnamed(err, "TrainingError", "step 10", "hard_labels")
    checkpoint = tmp_path / "run" / "checkpoints" / "labels" / "checkpoint-9"
    assert str(checkpoint) in err
    kept = load_file(checkpoint / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in kept.values())
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "running"
