"""The command line as a user types it, end to end on a tiny random encoder and a few learnable sentences."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from emdistill import StudentArtifact, distill
from emdistill.cli import VERBS, main
from emdistill.models.encoder import fingerprint

FAST = ["--training.learning_rate=5e-3", "--training.per_device_train_batch_size=16"]
QUIET = ["--training.disable_tqdm"]
REVIEWS = ["--text", "body", "--label", "stars"]


def write_csv(path: Path, rows: list[list[str]], header: tuple[str, ...] = ("id", "body", "stars")) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def sentences(count: int) -> list[tuple[str, str]]:
    """(text, label); the label is told by one word."""
    nouns, fillers = ("the movie", "a book", "it", "the book of it"), ("", "very ", "not in a ", "and ")
    found = []
    for row in range(count):
        word = ("bad", "good")[row % 2]
        found.append((f"{nouns[row // 2 % 4]} was {fillers[row // 8 % 4]}{word}, {row}", word))
    return found


@pytest.fixture(scope="session")
def place(
    tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Callable[..., PreTrainedModel], tokenizer_factory: Any
) -> Path:
    """A folder with a random encoder and data, a teacher fine-tuned on it, and a student distilled from that."""
    folder = tmp_path_factory.mktemp("place")
    tiny_encoder("bert", layers=4, width=24, heads=4, seed=1).save_pretrained(folder / "encoder")
    tokenizer_factory().save_pretrained(folder / "encoder")
    write_csv(folder / "reviews.csv", [[str(i), *pair] for i, pair in enumerate(sentences(160))])
    write_csv(folder / "new.csv", [[str(i), text] for i, (text, _) in enumerate(sentences(8))], ("id", "body"))
    glue = folder / "SST-2"
    glue.mkdir()
    for name, rows in (("train", sentences(120)), ("dev", sentences(20))):
        lines = [f"{text}\t{int(label == 'good')}" for text, label in rows]
        (glue / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n", encoding="utf-8")
    words = ["--model", f"{folder}/encoder", "--data", f"{folder}/reviews.csv", *REVIEWS, *FAST, *QUIET]
    assert main(["finetune", *words, "--output", f"{folder}/teacher", "--training.num_train_epochs=4"]) == 0
    words = [*_distill(folder), "--training.flow_steps=2", "--training.logging_steps=2"]
    assert main([*words, "--output", f"{folder}/run", "--training.num_train_epochs=3"]) == 0
    return folder


def _distill(folder: Path, *words: str, teacher: str = "teacher", data: str = "reviews.csv") -> list[str]:
    chosen = ["--teacher", f"{folder}/{teacher}", "--data", f"{folder}/{data}", *REVIEWS, "--student", "2"]
    return ["distill", *chosen, *FAST, *QUIET, "--training.num_train_epochs=1", *words]


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ------------------------------------------------------------------------------------------- what a run leaves


def test_the_run_folder_holds_what_it_says(place: Path) -> None:
    names = {path.name for path in (place / "run").iterdir()}
    assert names == {"student", "run.json", "flows.jsonl", "flows.png", "layer_weights.png", "tensorboard"}
    student = {path.name for path in (place / "run" / "student").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= student
    assert "emdistill" in (place / "run" / "student" / "README.md").read_text(encoding="utf-8")
    for name in ("flows.png", "layer_weights.png"):
        assert (place / "run" / name).read_bytes().startswith(b"\x89PNG")
    assert [record.step for record in StudentArtifact(place / "run").flows()][:3] == [1, 2, 4]
    assert list((place / "run" / "tensorboard").rglob("events.*"))


def test_run_json_tells_how_the_student_was_made(place: Path) -> None:
    run = json.loads((place / "run" / "run.json").read_text(encoding="utf-8"))
    assert run["status"] == "finished"
    assert run["scores"]["teacher"]["accuracy"] == 1.0
    assert run["scores"]["student"]["accuracy"] >= 0.9
    assert run["scores"]["student"].keys() == run["scores"]["teacher"].keys() == {"accuracy", "macro_f1"}
    assert run["config"]["student"] == "2"
    assert run["config"]["training"]["learning_rate"] == 5e-3
    assert run["config"]["objective"]["cost_attention"] == "inverse"
    assert run["seed"] == run["config"]["seed"] == 42
    assert {"emdistill", "torch", "transformers", "python", "date"} <= run["versions"].keys()
    teacher = AutoModelForSequenceClassification.from_pretrained(place / "teacher")
    assert run["hashes"]["teacher"] == fingerprint(teacher)
    assert run["hashes"]["reviews.csv"] == hashlib.sha256((place / "reviews.csv").read_bytes()).hexdigest()
    assert run["timings"]["training_seconds"] > 0
    assert run["timings"]["teacher_evaluation_seconds"] > 0
    assert "16 of the 160 training examples are held out" in run["task"]["held_out"]
    assert "14 rows held out of train" in run["selection"]
    assert run["objective"]["joint"].startswith("L = ")
    assert run["teacher"]["parameters"] == teacher.num_parameters() > run["student"]["parameters"]
    (stage,) = run["log"]
    assert any("terms/hidden_states" in entry for entry in stage["log"])


def test_the_teachers_own_run_json_has_its_score(place: Path) -> None:
    run = json.loads((place / "teacher" / "run.json").read_text(encoding="utf-8"))
    assert run["scores"]["teacher"]["accuracy"] == 1.0
    assert run["task"]["labels"] == ["bad", "good"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in (place / "teacher").iterdir()
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


def test_the_student_loads_where_emdistill_is_not_installed(place: Path) -> None:
    command = [sys.executable, "-I", "-c", STANDS_ALONE, str(place / "run" / "student")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["good", "bad"]
    keys = load_file(place / "run" / "student" / "model.safetensors").keys()
    assert not [key for key in keys if "objective" in key or "projection" in key or "mapping" in key]


# ------------------------------------------------------------------------------------------- evaluate and predict


def test_evaluate_prints_scores_of_every_row(place: Path, capsys) -> None:
    assert main(["evaluate", "--model", f"{place}/run/student", "--data", f"{place}/reviews.csv"]) == 0
    out, _ = capsys.readouterr()
    scores = dict(line.split("\t") for line in out.splitlines())
    assert scores.keys() == {"accuracy", "macro_f1"}
    assert float(scores["accuracy"]) >= 0.9


def test_evaluate_takes_a_file_with_few_of_the_classes_or_rows(place: Path, tmp_path: Path, capsys) -> None:
    file = write_csv(tmp_path / "two.csv", [["1", "it was good", "good"], ["2", "it was bad", "bad"]])
    assert main(["evaluate", "--model", f"{place}/teacher", "--data", str(file)]) == 0
    assert capsys.readouterr().out == "accuracy\t1.0000\nmacro_f1\t1.0000\n"
    file = write_csv(tmp_path / "unknown.csv", [["1", "it was good", "good"], ["2", "it was bad", "awful"]])
    assert main(["evaluate", "--model", f"{place}/teacher", "--data", str(file)]) == 2
    assert "the label 'awful' is none of the model's (bad, good)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["scored.jsonl", "scored.csv", "scored.tsv", "scored.parquet"])
def test_predict_keeps_the_columns_and_adds_prediction_and_probability(
    place: Path, tmp_path: Path, capsys, name: str
) -> None:
    output = tmp_path / name
    words = ["predict", "--model", f"{place}/run/student", "--input", f"{place}/new.csv", "--output", str(output)]
    assert main(words) == 0
    assert capsys.readouterr().out == f"8 rows written to {output}\n"
    rows = read_back(output)
    assert [row["id"] for row in rows] == [str(number) for number in range(8)]
    assert [row["prediction"] for row in rows] == [label for _, label in sentences(8)]
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows)
    assert main(words) == 2
    assert "exists already; --overwrite replaces it" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0


def read_back(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="," if path.suffix == ".csv" else "\t"))


def test_predict_reads_lines_of_text_and_json_with_other_columns_a_row(place: Path, tmp_path: Path) -> None:
    student = ["predict", "--model", f"{place}/run/student"]
    (tmp_path / "new.txt").write_text("it was bad\nit was good\n", encoding="utf-8")
    assert main([*student, "--input", f"{tmp_path}/new.txt", "--output", f"{tmp_path}/a.jsonl"]) == 0
    assert [row["prediction"] for row in read_back(tmp_path / "a.jsonl")] == ["bad", "good"]
    (tmp_path / "new.jsonl").write_text('{"body": "it was bad"}\n{"body": "good", "from": "me"}\n', encoding="utf-8")
    assert main([*student, "--input", f"{tmp_path}/new.jsonl", "--output", f"{tmp_path}/b.parquet"]) == 0
    assert [row["from"] for row in read_back(tmp_path / "b.parquet")] == [None, "me"]
    assert main([*student, "--input", f"{tmp_path}/new.jsonl", "--output", f"{tmp_path}/b.csv"]) == 0
    assert [row["from"] for row in read_back(tmp_path / "b.csv")] == ["", "me"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "{tmp}/out.xlsx"], "write to one of .jsonl, .csv, .tsv, .parquet"),
        (["--output", "{tmp}/nowhere/out.csv"], "there is no folder {tmp}/nowhere; make it first"),
        (["--output", "{tmp}/out.csv", "--text", "boddy"], "Did you mean 'body'?"),
        (["--output", "{tmp}/out.csv", "--input", "{tmp}/nix.csv"], "nix.csv: there is no such file"),
        (["--output", "{tmp}/out.csv", "--input", "{tmp}/empty.csv"], "empty.csv:2: column 'body' is empty"),
        (["--output", "{tmp}/out.csv", "--input", "{tmp}/taken.csv"], "there is a column 'prediction' already"),
        (["--output", "{tmp}/out.csv", "--model", "{tmp}/nix"], "there is no folder {tmp}/nix"),
        (["--output", "{tmp}/out.csv", "--batch-size", "0"], "--batch_size must be at least 1"),
        (["--output", "{tmp}/out.csv", "--max-length", "1000"], "this encoder reads 128 tokens at most"),
    ],
)
def test_predict_refuses_what_it_cannot_use(
    place: Path, tmp_path: Path, capsys, words: list[str], message: str
) -> None:
    write_csv(tmp_path / "empty.csv", [["1", " "]], ("id", "body"))
    write_csv(tmp_path / "taken.csv", [["good", "it was good"]], ("prediction", "body"))
    words = [word.replace("{tmp}", str(tmp_path)) for word in words]
    given = {"--model": f"{place}/run/student", "--input": f"{place}/new.csv"}
    given |= dict(zip(words[::2], words[1::2], strict=True))
    assert main(["predict", *(word for pair in given.items() for word in pair)]) == 2
    assert message.replace("{tmp}", str(tmp_path)) in capsys.readouterr().err
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("out")]


# ------------------------------------------------------------------------------------------- a second run


def test_a_run_is_not_replaced_unasked(place: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    before = contents(tmp_path / "run")
    again = _distill(place, "--output", f"{tmp_path}/run", "--training.num_train_epochs=3")
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


def test_overwrite_makes_the_same_run_again(place: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("the user's own")
    words = ["--training.num_train_epochs=3", "--training.flow_steps=2", "--training.logging_steps=2"]
    assert main(_distill(place, "--output", f"{tmp_path}/run", *words, "--overwrite")) == 0
    assert (tmp_path / "run" / "notes.txt").is_file()
    for name in ("student/model.safetensors", "flows.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (place / "run" / name).read_bytes()
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == f"{tmp_path}/run: student/ is the model, run.json the record"
    assert "teacher on dev: accuracy 1.0000" in out


def test_finetuning_again_is_refused_and_resumed_alike(place: Path, capsys) -> None:
    words = ["finetune", "--model", f"{place}/encoder", "--data", f"{place}/reviews.csv", *REVIEWS, *FAST, *QUIET]
    words += ["--output", f"{place}/teacher", "--training.num_train_epochs=4"]
    before = contents(place / "teacher")
    assert main(words) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    assert "is finished already; nothing to do" in capsys.readouterr().out
    assert contents(place / "teacher") == before


# ------------------------------------------------------------------------------------------- other roads to a student


def test_a_glue_folder_gives_teacher_and_fresh_student(place: Path, tmp_path: Path, capsys) -> None:
    glue = ["--task", "sst2", "--data", f"{place}/SST-2"]
    words = ["--model", f"{place}/encoder", *glue, *FAST, *QUIET, "--training.num_train_epochs=4"]
    assert main(["finetune", *words, "--output", f"{tmp_path}/teacher"]) == 0
    assert "dev: accuracy" in capsys.readouterr().out
    words = ["--teacher", f"{tmp_path}/teacher", *glue, "--student", "2x16", "--objective.heads", "mean", *FAST, *QUIET]
    words += ["--training.num_train_epochs=1", "--select", "dev", "--keep-checkpoints"]
    assert main(["distill", *words, "--output", f"{tmp_path}/run"]) == 0
    assert "and flatters" in capsys.readouterr().out
    student = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "student")
    assert (student.config.num_hidden_layers, student.config.hidden_size) == (2, 16)
    assert (tmp_path / "run" / "checkpoints").is_dir()
    assert main(["evaluate", "--model", f"{tmp_path}/run/student", *glue]) == 0
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert capsys.readouterr().out == f"accuracy\t{run['scores']['student']['accuracy']:.4f}\n"
    assert run["task"]["held_out"] is None


def test_from_python_with_scores_pairs_and_a_development_set(place: Path, tmp_path: Path) -> None:
    rows = [[str(i), text, f"{len(text) % 5 + i % 7 / 10}"] for i, (text, _) in enumerate(sentences(60))]
    train = write_csv(tmp_path / "train.csv", rows, ("a", "b", "score"))
    dev = write_csv(tmp_path / "dev.csv", rows[:10], ("a", "b", "score"))
    teacher = AutoModelForSequenceClassification.from_pretrained(
        place / "encoder", num_labels=1, problem_type="regression", ignore_mismatched_sizes=True
    )
    teacher.save_pretrained(tmp_path / "teacher")
    for file in (place / "encoder").glob("tokenizer*"):
        shutil.copy(file, tmp_path / "teacher")
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


# ------------------------------------------------------------------------------------------- lists and help


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


# ------------------------------------------------------------------------------------------- bad input


def good_rows() -> list[list[str]]:
    return [[str(i), *pair] for i, pair in enumerate(sentences(40))]


def spoiled(row: int, column: int, cell: str) -> list[list[str]]:
    rows = good_rows()
    rows[row][column] = cell
    return rows


BAD_FILES: dict[str, Callable[[Path], Any]] = {
    "empty-text": lambda path: write_csv(path, spoiled(3, 1, " ")),
    "absent-label": lambda path: write_csv(path, spoiled(4, 2, "")),
    "one-class": lambda path: write_csv(path, [[i, text, "good"] for i, text, _ in good_rows()]),
    "no-number": lambda path: write_csv(path, [[i, t, f"{int(i) / 3:.3f}" if i != "7" else "high"] for i, t, _ in good_rows()]),
    "broken-utf8": lambda path: path.write_bytes(b"id,body,stars\n1,good,good\n2,caf\xe9,bad\n"),
    "ragged": lambda path: path.write_text("id,body,stars\n1,good,good\n2,bad\n3,bad,bad\n"),
    "empty": lambda path: path.write_text(""),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty-text", "empty-text.csv:5: column 'body' is empty"),
        ("absent-label", "absent-label.csv:6: there is no label in column 'stars'"),
        ("one-class", "one-class.csv: every label is 'good'; at least two classes are needed"),
        ("no-number", "no-number.csv:9: label 'high' is no number"),
        ("broken-utf8", "broken-utf8.csv:3: byte 6 of this line (0xe9) is not UTF-8; save the file as UTF-8"),
        ("ragged", "ragged.csv:3: 2 cells, but there are 3 columns"),
        ("empty", "empty.csv: the file is empty"),
    ],
)
def test_bad_rows_are_refused_with_file_and_line(place: Path, tmp_path: Path, capsys, name: str, message: str) -> None:
    BAD_FILES[name](tmp_path / f"{name}.csv")
    for words in (
        _distill(place, "--output", f"{tmp_path}/run", "--data", f"{tmp_path}/{name}.csv"),
        ["finetune", "--model", f"{place}/encoder", "--data", f"{tmp_path}/{name}.csv", *REVIEWS, "--output", f"{tmp_path}/run"],
    ):  # fmt: skip
        assert main(words) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_an_unknown_label_in_the_development_set_is_refused(place: Path, tmp_path: Path, capsys) -> None:
    write_csv(tmp_path / "dev.csv", spoiled(2, 2, "goood"))
    assert main(_distill(place, "--output", f"{tmp_path}/run", "--dev", f"{tmp_path}/dev.csv")) == 2
    err = capsys.readouterr().err
    assert "dev.csv:4: label 'goood' is unknown; the task's labels are: bad, good. Did you mean 'good'?" in err
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
def test_a_teacher_that_cannot_teach_is_refused(place: Path, tmp_path: Path, capsys, name: str) -> None:
    spoil, message = TEACHERS[name]
    shutil.copytree(place / "teacher", tmp_path / "teacher")
    spoil(tmp_path / "teacher")
    assert main(_distill(place, "--teacher", f"{tmp_path}/teacher", "--output", f"{tmp_path}/run")) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_teacher_near_chance_may_be_let_pass(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "teacher", tmp_path / "teacher")
    untrain(tmp_path / "teacher")
    words = ["--teacher", f"{tmp_path}/teacher", "--output", f"{tmp_path}/run", "--method", "hard-labels"]
    assert main(_distill(place, *words, "--check-teacher", "false", "--training.max_steps=1")) == 0


def test_a_student_with_another_vocabulary_is_refused(place: Path, tmp_path: Path, capsys, tokenizer_factory) -> None:
    shutil.copytree(place / "encoder", tmp_path / "small")
    words = [*tokenizer_factory().get_vocab()]
    tokenizer_factory((*words[:5], *sorted(words[5:]))).save_pretrained(tmp_path / "small")
    assert main(_distill(place, "--student", f"{tmp_path}/small", "--output", f"{tmp_path}/run")) == 2
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
        (["--student", "2x16"], "choose --objective.heads mean or match"),
        (["--student", "2x15x4x30"], "the width must be a multiple of the number of heads"),
        (["--student", "2x16x4x32", "--objective.projection", "none"], "choose --objective.projection shared"),
        (["--student", "./nowhere"], "--student './nowhere' names neither layers, a shape, a folder nor a hub id"),
        (["--data", "{tmp}/review.csv"], "review.csv: there is no such file"),
        (["--data", "{place}"], "this is a folder; name one file"),
        (["--data", "{place}/SST-2"], "looks like the GLUE task SST-2; say --task sst2"),
        (["--task", "rte", "--data", "{place}/SST-2"], "SST-2"),
        (["--task", "sts"], "stsb"),
        (["--text", "boddy"], "Did you mean 'body'?"),
        (["--teacher", "{tmp}/nowhere"], "there is no folder {tmp}/nowhere"),
        (["--teacher", "{place}/reviews.csv"], "is a file; name the folder of the encoder"),
        (["--max-length", "1000"], "this encoder reads 128 tokens at most"),
        (["--objective.alpha", "2"], "--objective.alpha is a share between 0 and 1"),
        (["--objective.beta", "-1"], "weights are 0 (off) or above"),
        (["--objective.beta", "0", "--objective.prediction", "0"], "the objective has no loss"),
        (["--objective.cost_floor", "7"], "cost_floor=7 must lie between"),
        (["--training.learning_rate", "-1"], "--training.learning_rate must be at least 0"),
        (["--training.per_device_train_batch_size", "0"], "per_device_train_batch_size must be at least 1"),
        (["--training.lr_scheduler_type", "lin"], "lin is not a valid SchedulerType"),
        (["--select", "last", "--training.early_stopping_patience", "1"], "use --select held-out or dev"),
        (["--output", "{place}/new.csv"], "new.csv is a file; --output names a folder"),
        (["--output", "{place}/new.csv/run"], "new.csv is a file; --output names a folder"),
        (["--output", "{place}"], "is not empty and holds no run of emdistill"),
        (["--output", "{tmp}/run", "--resume"], "holds no run to resume"),
        (["--overwrite", "--output", "{place}/teacher"], "is read by this run, whose output would replace it"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_used_are_refused(
    place: Path, tmp_path: Path, capsys, words: list[str], message: str
) -> None:
    before = contents(place)
    words, message = (
        [word.format(tmp=tmp_path, place=place) for word in words],
        message.replace("{tmp}", str(tmp_path)),
    )
    assert main(_distill(place, "--output", f"{tmp_path}/run", *words)) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()
    assert contents(place) == before


def test_a_student_is_not_replaced_by_a_run_that_learns_from_it(place: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    before = contents(tmp_path / "run")
    words = ["--teacher", f"{tmp_path}/run/student", "--student", "1", "--output", f"{tmp_path}/run", "--overwrite"]
    assert main(_distill(place, *words)) == 2
    assert "is read by this run, whose output would replace it" in capsys.readouterr().err
    assert contents(tmp_path / "run") == before


def test_bad_input_does_not_destroy_the_run_that_was_to_be_replaced(place: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    shutil.copytree(place / "teacher", tmp_path / "teacher")
    untrain(tmp_path / "teacher")
    write_csv(tmp_path / "bad.csv", spoiled(3, 1, ""))
    before = contents(tmp_path / "run")
    for words in (
        ["--data", f"{tmp_path}/bad.csv"],
        ["--student", "9"],
        ["--teacher", f"{tmp_path}/teacher"],
        ["--training.lr_scheduler_type", "lin"],
    ):
        assert main(_distill(place, "--output", f"{tmp_path}/run", *words, "--overwrite")) == 2
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


def method(student, teacher, *, regression: bool = False):
    return [Stage("labels", Objective([Spoiled()], {"hard_labels": 1.0}))]
"""


def test_a_nan_loss_ends_the_run_and_keeps_what_was_good(place: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "spoiled.py").write_text(SPOILED_LOSS)
    words = [
        "--method",
        f"{tmp_path}/spoiled.py:method",
        "--output",
        f"{tmp_path}/run",
        "--training.num_train_epochs=3",
    ]
    assert main(_distill(place, *words)) == 2
    err = capsys.readouterr().err
    assert "TrainingError: step 11: the loss term hard_labels is NaN or infinite" in err
    checkpoint = tmp_path / "run" / "checkpoints" / "labels" / "checkpoint-9"
    assert str(checkpoint) in err
    kept = load_file(checkpoint / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in kept.values())
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "running"


# ------------------------------------------------------------------------------------------- Ctrl-C, for real

PRESSES_CTRL_C = """
import signal
import sys

from transformers import TrainerCallback

from emdistill.artifact.flow_recorder import FlowRecorder
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
def test_ctrl_c_exits_with_130_and_resume_finishes_the_same_student(place: Path, tmp_path: Path) -> None:
    words = _distill(place, "--output", f"{tmp_path}/run", "--training.num_train_epochs=3")
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
        assert (tmp_path / "run" / name).read_bytes() == (place / "run" / name).read_bytes()
