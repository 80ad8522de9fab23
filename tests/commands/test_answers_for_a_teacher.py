"""A teacher that is a file of answers, by the command line: what it makes, says and records, and what is refused."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from messages import unnamed
from run_folders import read_record, write_record
from safetensors.torch import load_file

from emdistill.baselines import vectors
from emdistill.cli import main
from emdistill.options import load_config
from emdistill.runs.answers import PREDICTIONS, read_predictions
from emdistill.runs.baseline_record import read_baselines
from emdistill.ship import bench as _bench
from emdistill.ship.subject import read_subject
from emdistill.show.candidates import read_runs
from emdistill.show.verdict import baseline_notes, verdict

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def given(place: Any, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The teacher's logits on all reviews, as `emdistill predict` writes them."""
    file = tmp_path_factory.mktemp("answers") / "answers.jsonl"
    words = ["predict", "--model", f"{place.folder}/teacher", "--input", f"{place.folder}/reviews.csv"]
    assert main([*words, "--output", str(file), "--logits"]) == 0
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def answers(tmp_path: Path) -> Callable[[Rows], str]:
    """Factory: a file of answers."""

    def write(rows: Rows) -> str:
        (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / "answers.jsonl")

    return write


def distill(place: Any, teacher: str, output: Path, *words: str) -> list[str]:
    """A distillation of two of the encoder's layers."""
    source = ["--student-source", f"{place.folder}/encoder"]
    return [*place.distill("--output", str(output), *source, *words), f"--teacher={teacher}"]


def student(run: Path) -> bytes:
    return (run / "student" / "model.safetensors").read_bytes()


def dev_texts(run: Path) -> set[str]:
    return set(read_predictions(run / PREDICTIONS)["dev"].texts)


@pytest.fixture(scope="module")
def by_model(place: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run under the model itself, by its answers alone."""
    run = tmp_path_factory.mktemp("by-model") / "run"
    assert main(distill(place, f"{place.folder}/teacher", run, "--method=soft-targets")) == 0
    return run


def test_the_answers_of_a_model_teach_as_the_model_does(
    place: Any, given: Rows, answers: Any, by_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(distill(place, answers(given), run)) == 0
    printed = capsys.readouterr().out
    assert not unnamed(printed, "answers.jsonl", "soft_targets", "all 144", "all 16")
    weights, others = (load_file(folder / "student" / "model.safetensors") for folder in (run, by_model))
    for name in {name for name in weights if not name.endswith("key.bias")}:  # whose gradient is rounding alone
        weight = weights[name]  # the model's logits depend a little on what else is in their batch
        torch.testing.assert_close(weight, others[name], rtol=0, atol=1e-3)
    record, other = read_record(run), read_record(by_model)
    assert record["config"]["method"] == "soft-targets"
    assert record["scores"] == other["scores"]
    taught, by_itself = (read_predictions(folder / PREDICTIONS)["dev"].teacher for folder in (run, by_model))
    np.testing.assert_allclose(taught, by_itself, rtol=1e-5, atol=1e-6)
    teacher = record["teacher"]
    assert (teacher["kind"], teacher["file"], teacher["rows"]) == ("answers", "answers.jsonl", 160)
    assert teacher["sha256"] == record["hashes"]["teacher"]
    assert teacher["answered"] == {"train": 144, "dev": 16}
    card = (run / "student" / "README.md").read_text()
    assert "answers.jsonl" in card
    assert (run / "report.html").is_file()


def test_dev_without_answers_has_no_score_of_the_teacher(
    place: Any, given: Rows, answers: Any, by_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of train is answered, and nothing of dev: page, card, record and table do without."""
    dev = dev_texts(by_model)
    rows = [row for row in given if row["body"] not in dev]
    kept = {row["body"] for row in rows}
    assert kept
    assert len(rows) < len(given)
    run = tmp_path / "runs" / "run"
    teacher = answers(rows)
    assert main(distill(place, teacher, run, "--select=last")) == 0
    assert not unnamed(capsys.readouterr().out, "note", len(rows), 0, "left out")
    record = read_record(run)
    assert record["scores"].keys() == {"student"}
    assert record["teacher"]["answered"] == {"train": len(rows), "dev": 0}
    assert record["rows"]["train"] == len(rows)
    predictions = read_predictions(run / PREDICTIONS)["dev"]
    assert predictions.teacher is None
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "disagree most" not in page
    assert "Calibration" in page
    assert [candidate.variant for candidate in read_runs([run]).candidates] == ["student"]
    assert read_subject(str(run)).teacher is None
    words = ["compare", "--methods=soft-targets,hard-labels", "--seeds=1", f"--teacher={teacher}", "--student=2"]
    words += [f"--data={place.folder}/reviews.csv", *place.reviews, f"--student-source={place.folder}/encoder"]
    words += ["--baselines=none"]
    folder = tmp_path / "comparison"
    assert main([*words, "--training.max_steps=2", *place.quiet, f"--output={folder}"]) == 0
    assert not unnamed(capsys.readouterr().out, "baseline", "hard-labels", "left out")
    runs = [read_record(path.parent) for path in folder.glob("runs/*/run.json")]
    assert len({run["rows"]["train"] for run in runs}) == 1
    assert main(["report", str(folder)]) == 0
    assert main([*words, f"--output={tmp_path}/layers", "--methods=soft-targets,bert-emd"]) == 2
    assert not unnamed(capsys.readouterr().err, "bert-emd", "soft-targets")


def test_a_part_of_dev_is_scored_and_checked(place: Any, given: Rows, answers: Any, tmp_path: Path, capsys) -> None:
    """It is no score of the whole; where it is at chance, the answers are refused."""
    for row, (text, label) in enumerate(place.sentences(64)):
        given = [*given, {"body": f"{text} {row}", "logits": {label: 1.0, "good" if label == "bad" else "bad": 0.0}}]
    dev = [[str(row), f"{text} {row}", label] for row, (text, label) in enumerate(place.sentences(72))]
    words = ["--dev", str(place.write_csv(tmp_path / "dev.csv", dev)), "--select=last"]
    assert main(distill(place, answers(given), tmp_path / "run", *words)) == 0
    record = read_record(tmp_path / "run")
    assert record["scores"].keys() == {"student"}
    assert record["teacher"]["scores"]["accuracy"] == 1.0
    assert not unnamed(capsys.readouterr().out, "64 of 72 of dev", "1.0000")
    wrong = [{"body": row["body"], "logits": {"bad": 1, "good": 0}} for row in given]
    assert main(distill(place, answers(wrong), tmp_path / "wrong", *words)) == 2
    assert not unnamed(capsys.readouterr().err, "accuracy", "0.500")
    assert main(distill(place, answers(wrong), tmp_path / "wrong", *words, "--check-teacher=false")) == 0


def test_a_run_is_resumed_under_the_same_answers_alone(
    place: Any, given: Rows, answers: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, teacher = tmp_path / "run", answers(given)
    command = distill(place, teacher, run, "--training.num_train_epochs=2", "--keep-checkpoints")
    assert main(command) == 0
    whole = student(run)
    write_record(run, read_record(run) | {"status": "running"})
    shutil.rmtree(run / "checkpoints" / "prediction" / "finished")
    newest = max((run / "checkpoints" / "prediction").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    shutil.rmtree(newest)
    shutil.rmtree(run / "student")
    answers([*given[1:], given[0] | {"logits": {"bad": 0.0, "good": 0.0}}])
    assert main([*command, "--resume"]) == 2
    assert not unnamed(capsys.readouterr().err, "hashes.teacher")
    answers(given)
    assert main([*command, "--resume"]) == 0
    assert student(run) == whole


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--method=bert-emd"], ["bert-emd", "--method soft-targets"]),
        (["--method=tinybert"], ["tinybert", "--method soft-targets"]),
        (["--method=soft-targets", "--mapping=last"], ["--mapping"]),
        (["--student-source={place}/nowhere"], ["nowhere"]),
    ],
)
def test_what_answers_cannot_teach_is_refused(
    place: Any, given: Rows, answers: Any, tmp_path: Path, capsys: Any, words: list[str], named: list[str]
) -> None:
    words = [word.format(place=place.folder) for word in words]
    assert main(distill(place, answers(given), tmp_path / "run", *words)) == 2
    assert not unnamed(capsys.readouterr().err, *named)
    assert not (tmp_path / "run").exists()


def test_the_student_needs_an_encoder(place: Any, given: Rows, answers: Any, tmp_path: Path, capsys: Any) -> None:
    words = place.distill("--output", str(tmp_path / "run"), f"--teacher={answers(given)}")
    assert main(words) == 2
    assert not unnamed(capsys.readouterr().err, "--student 2", "answers.jsonl", "--student-source")
    assert not (tmp_path / "run").exists()
    short = ["--training.max_steps=1", "--overwrite"]
    for spec in (f"--student={place.folder}/encoder", "--student=2x12x2x24"):
        source = [f"--student-source={place.folder}/encoder"] if "x" in spec else []
        assert main([*words, spec, *source, *short]) == 0
    assert read_record(tmp_path / "run")["student"]["shape"] == {
        "layers": 2, "width": 12, "heads": 2, "attending": None, "biased": False, "attention_width": None,
    }  # fmt: skip
    assert main([*words, "--student=2x12x2x24", f"--student-source={place.folder}/encoder", *short, "--resume"]) == 2


def test_no_answered_row_is_refused(place: Any, answers: Any, tmp_path: Path, capsys: Any) -> None:
    teacher = answers([{"body": "another text", "prediction": "good"}])
    assert main(distill(place, teacher, tmp_path / "run")) == 2
    assert not unnamed(capsys.readouterr().err, "--teacher", "--data")
    assert not (tmp_path / "run").exists()


def test_hard_labels_and_augmented_rows(
    place: Any, given: Rows, answers: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the variants those with an answer are learned from."""
    more = tmp_path / "more.jsonl"
    words = [f"--teacher={place.folder}/teacher", f"--data={place.folder}/reviews.csv", *place.reviews, "--copies=1"]
    assert main(["augment", *words, f"--output={more}"]) == 0
    texts = [json.loads(line)["text"] for line in more.read_text().splitlines()[1:]]
    teacher = answers([*given, *({"body": text, "logits": {"bad": 1, "good": 2}} for text in texts[:7])])
    words = ["--method=hard-labels", "--select=last", f"--augmented={more}"]
    assert main(distill(place, teacher, tmp_path / "run", *words)) == 0
    assert read_record(tmp_path / "run")["rows"]["train"] == 144 + 7


def test_text_without_labels_is_answered_by_the_file_too(
    place: Any, given: Rows, answers: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"it was {word} {number}" for number in range(10) for word in ("good", "bad")]
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps({"body": text}) + "\n" for text in texts))
    teacher = answers([*given, *({"body": text, "logits": {"bad": 1, "good": 2}} for text in texts[:12])])
    run = tmp_path / "run"
    assert main(distill(place, teacher, run, "--select=last", f"--unlabelled={more}")) == 0
    record = read_record(run)
    assert record["unlabelled"]["unanswered"] == 8
    assert record["unlabelled"]["kept"] == record["rows"]["unlabelled"] == 12
    assert not unnamed(capsys.readouterr().out, "144 labelled rows", "12 of 20", 8)
    assert "12 of 20" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("whole", [True, False])
def test_baselines_do_without_a_model_of_the_teacher(
    whole: bool, place: Any, given: Rows, answers: Any, by_model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Its answers have a score where they are whole, but neither size nor speed; the encoder is the student's own."""
    monkeypatch.setattr(_bench, "SECONDS", 0.0)
    monkeypatch.setattr(vectors, "find_spec", lambda package: None)
    dev = set() if whole else dev_texts(by_model)
    teacher, run = answers([row for row in given if row["body"] not in dev]), tmp_path / "run"
    words = ["--select=last", "--training.max_steps=2", "--baselines=tfidf,frozen,labels,int8-teacher"]
    assert main(distill(place, teacher, run, *words)) == 0
    record = read_baselines(run)
    assert record is not None
    assert list(record.computed) == ["tfidf", "frozen", "labels"]
    assert "encoder" in record.baselines["frozen"].note
    assert record.baselines["int8-teacher"].problem
    assert (record.teacher.bytes, record.teacher.p50) == (None, None)
    assert (bool(record.teacher.scores), bool(record.teacher.problem)) == (whole, not whole)
    assert "faster than the teacher" not in verdict(record)
    assert any(note.startswith("teacher: ") for note in baseline_notes(record))
    page = (run / "report.html").read_text(encoding="utf-8")
    assert (record.teacher.note or record.teacher.problem) in page
    assert read_record(run / "baselines" / "labels")["config"]["teacher"] == teacher
    assert read_record(run / "baselines" / "labels")["scores"]["student"] == record.baselines["labels"].scores
    assert not unnamed(capsys.readouterr().out, "TF-IDF", "not computed")


def test_predict_writes_logits_by_label(place: Any, given: Rows, tmp_path: Path) -> None:
    assert all(row["logits"].keys() == {"bad", "good"} for row in given)
    assert all(max(row["logits"], key=row["logits"].get) == row["prediction"] for row in given)
    words = ["predict", "--model", f"{place.folder}/teacher", "--input", f"{place.folder}/new.csv"]
    assert main([*words, "--output", str(tmp_path / "out.csv"), "--logits"]) == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = [json.loads(row["logits"]) for row in csv.DictReader(file)]
    for row in rows:  # in other batches, so not to the last digit
        assert any(row == pytest.approx(known["logits"], abs=1e-5) for known in given)


def test_the_method_is_soft_targets_where_none_is_named(tmp_path: Path) -> None:
    options = {"data": "reviews.csv", "output": "run"}
    assert load_config(teacher="answers.tsv", **options).method == "soft-targets"
    assert load_config(teacher="answers.tsv", method="hard-labels", **options).method == "hard-labels"
    assert load_config(teacher="teacher", **options).method == load_config(teacher="owner/model", **options).method
    (tmp_path / "options.yaml").write_text("teacher: answers.parquet\n")
    assert load_config(tmp_path / "options.yaml", **options).method == "soft-targets"
