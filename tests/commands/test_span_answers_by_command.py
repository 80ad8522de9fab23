"""Questions from the command line: SQuAD's files in, a student, a file of predictions and a folder to ship out."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from messages import names, unnamed
from transformers import PreTrainedModel

from emdistill.cli import main
from emdistill.commands.evaluate import evaluate_model
from emdistill.commands.predict import predict_file
from emdistill.data.read import read_task_data
from emdistill.errors import ConfigError, DataError
from emdistill.models.encoder import load_classifier, load_tokenizer
from emdistill.runs.answers import read_predictions
from emdistill.runs.reading import recall_reading
from emdistill.runs.record import read_run
from emdistill.ship.onnx import open_onnx
from emdistill.training import predict_logits

QUICK = ["--training.disable_tqdm", "--training.num_train_epochs=1", "--training.per_device_train_batch_size=8"]
THINGS = ("movie", "book", "a2", "b3")


def squad(path: Path, questions: int, *, none: bool = False) -> str:
    """Contexts that say what is good; with `none`, every third one does not."""
    paragraphs = []
    for number in range(questions):
        thing = f"{THINGS[number % 4]}{number}"
        context = f"it was not bad and the {thing} was very good. " + "the book was of a movie. " * (number % 5)
        answers = [{"text": thing, "answer_start": context.index(thing)}] * (1 + number % 2)
        cells: dict[str, Any] = {"id": f"q{number}", "question": "what was very good?", "answers": answers}
        if none and number % 3 == 0:
            cells |= {"question": "what was very bad?", "answers": [], "is_impossible": True}
        paragraphs.append({"context": context, "qas": [cells]})
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}))
    return str(path)


@pytest.fixture(scope="module")
def asked(
    tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Callable[..., PreTrainedModel], tokenizer_factory: Any
) -> Path:
    """A folder with encoder/, teacher/, run/, train.json and dev.json; windows are shorter than some contexts."""
    folder = tmp_path_factory.mktemp("asked")
    tiny_encoder("bert", layers=3, width=24, seed=1).save_pretrained(folder / "encoder")
    tokenizer_factory().save_pretrained(folder / "encoder")
    squad(folder / "train.json", 40)
    squad(folder / "dev.json", 12)
    words = ["--model", f"{folder}/encoder", "--task", "squad", "--data", str(folder), "--max_length", "32"]
    assert main(["finetune", *words, "--output", f"{folder}/teacher", "--training.learning_rate=5e-3", *QUICK]) == 0
    assert main(distil(folder, "--output", f"{folder}/run")) == 0
    return folder


def distil(folder: Path, *words: str) -> list[str]:
    data = ["--teacher", f"{folder}/teacher", "--task", "squad", "--data", str(folder), "--student", "2"]
    return ["distill", *data, "--max_length=32", "--check_teacher=false", "--baselines=none", *QUICK, *words]


def test_a_run_records_what_it_read_and_its_page_shows_spans(asked: Path) -> None:
    record = read_run(asked / "run")
    assert record.task is not None
    assert (record.task.kind, record.task.metrics) == ("span-answers", ("f1", "exact_match"))
    assert [file.rows for file in record.task.files] == [40, 12]
    page = (asked / "run" / "report.html").read_text()
    assert not unnamed(page, "exact match", "what was very good?")
    predictions = read_predictions(asked / "run" / "predictions.jsonl")["dev"]
    assert predictions.teacher is not None
    assert predictions.words is not None
    rows = zip(predictions.words, predictions.teacher, predictions.student, strict=True)
    assert all(len(words) + 1 == len(teacher) == len(student) for words, teacher, student in rows)
    assert "Who met Babbage?" in (asked / "run" / "student" / "README.md").read_text()


def test_scores_are_those_of_the_run_and_of_the_predictions(asked: Path, tmp_path: Path) -> None:
    """The official definition on the written file: exact match of normalised texts."""
    scores = evaluate_model(f"{asked}/run/student", f"{asked}/dev.json")
    assert scores == pytest.approx(read_run(asked / "run").scores["student"])
    words = ["--model", f"{asked}/run/student", "--input", f"{asked}/dev.json"]
    assert main(["predict", *words, "--output", f"{tmp_path}/out.json"]) == 0
    assert main(["predict", *words, "--output", f"{tmp_path}/out.jsonl"]) == 0
    answers = json.loads((tmp_path / "out.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {row["id"]: row["prediction"] for row in rows} == answers
    assert all(row["context"][row["start"] : row["end"]] == row["prediction"] for row in rows)
    right = [answers[row["id"]] in {answer["text"] for answer in row["answers"]} for row in rows]
    assert scores["exact_match"] == pytest.approx(np.mean(right))
    with names(ConfigError, "--text-pair"):
        predict_file(f"{asked}/run/student", f"{asked}/dev.json", f"{tmp_path}/other.jsonl", text="question")
    one = tmp_path / "one.jsonl"
    one.write_text(json.dumps({"question": "is it?", "context": "it is"}))
    with names(DataError, "'id'"):
        predict_file(f"{asked}/run/student", str(one), f"{tmp_path}/none.json")


def test_questions_without_answers_are_learned_from(asked: Path, tmp_path: Path) -> None:
    file = tmp_path / "more.jsonl"
    rows = [{"question": "is it good?", "context": f"the movie was good and {n} not bad"} for n in range(120)]
    file.write_text("\n".join(map(json.dumps, rows)))
    run = tmp_path / "run"
    assert main(distil(asked, "--output", str(run), "--unlabelled", str(file), "--method=soft-targets")) == 0
    counts = read_run(run).unlabelled
    assert counts is not None
    assert counts["kept"] == 120
    # text alone: the teacher's answers are the labels
    words = ["--teacher", f"{asked}/teacher", "--unlabelled", str(file), "--student=2"]
    columns = ["--text=question", "--text_pair=context", "--max_length=32", "--method=soft-targets", "--baselines=none"]
    words += ["--dev", f"{asked}/dev.json", "--check_teacher=false"]
    assert main(["distill", *words, *columns, *QUICK, "--output", f"{tmp_path}/alone"]) == 0


def test_a_model_that_emdistill_did_not_make_reads_questions_and_contexts(
    tiny_encoder: Callable[..., PreTrainedModel], tokenizer_factory: Any, tmp_path: Path
) -> None:
    model = tiny_encoder("bert", head="QuestionAnswering")
    for part in (model, tokenizer_factory()):
        part.save_pretrained(tmp_path / "model")
    reading = recall_reading(load_classifier(tmp_path / "model"))
    assert (reading.text, reading.text_pair, reading.label) == ("question", "context", "answers")
    data = squad(tmp_path / "dev.json", 6)
    assert predict_file(str(tmp_path / "model"), data, str(tmp_path / "out.json")) == 6


def test_contexts_without_an_answer_are_a_kind_of_their_own(asked: Path, tmp_path: Path) -> None:
    data = squad(tmp_path / "train.json", 30, none=True)
    read = read_task_data(data, dev=data)
    assert read.task.kind.name == "span-answers-or-none"
    assert any("10" in note for note in read.notes)
    with names(DataError, f"{data}:1", "--kind", "span-answers-or-none"):
        read_task_data(data, dev=data, kind="span-answers")
    with names(ConfigError, "--kind", "tagging", "squad"):
        read_task_data(data, dev=data, task="squad", kind="tagging")
    words = ["--model", f"{asked}/encoder", "--data", data, "--max_length", "32", *QUICK]
    assert main(["finetune", *words, "--output", f"{tmp_path}/teacher"]) == 0
    scores = evaluate_model(f"{tmp_path}/teacher", data)
    assert list(scores) == ["f1", "exact_match", "has_answer_f1", "no_answer_f1"]
    assert scores["f1"] == pytest.approx((2 * scores["has_answer_f1"] + scores["no_answer_f1"]) / 3)


@pytest.mark.usefixtures("quick_export")
def test_the_shipped_folder_answers_as_pytorch_does(asked: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    main(["export", f"{asked}/run", "--int8", "--threads", "1"])
    folder = asked / "run" / "onnx"
    gate = json.loads((folder / "gate.json").read_text())
    assert gate["variants"]["onnx"]["logits"]["largest"] < 1e-4
    assert gate["variants"]["onnx"]["scores"] == pytest.approx(read_run(asked / "run").scores["student"])
    dev = read_task_data(f"{asked}/train.json", dev=f"{asked}/dev.json").evaluation["dev"]
    shipped = open_onnx(folder / "model.onnx").predict_logits(dev)
    student = asked / "run" / "student"
    plain = predict_logits(load_classifier(student), load_tokenizer(student), dev, max_length=32)
    for one, other in zip(shipped, plain, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)

    rows = [json.loads(line) for line in _predicted(folder, asked, dev)]
    texts = [part for row in rows for part in (row["question"], row["context"])]
    ran = subprocess.run([sys.executable, folder / "example.py", *texts], capture_output=True, text=True, check=True)
    assert [line.split("\t")[0] for line in ran.stdout.splitlines()] == [row["prediction"] for row in rows]


def _predicted(folder: Path, asked: Path, dev: Any) -> list[str]:
    output = folder.parent / "predicted.jsonl"
    words = ["--model", str(folder), "--input", f"{asked}/dev.json", "--output", str(output), "--overwrite=true"]
    assert main(["predict", *words]) == 0
    return output.read_text().splitlines()


def test_a_model_of_others_answers_and_teaches(asked: Path, tmp_path: Path) -> None:
    """Its config names no kind and no labels."""
    other = tmp_path / "other"
    shutil.copytree(asked / "teacher", other, ignore=shutil.ignore_patterns("run.json"))
    config = json.loads((other / "config.json").read_text())
    for name in ("emdistill", "problem_type", "id2label", "label2id"):
        config.pop(name, None)
    (other / "config.json").write_text(json.dumps(config))
    assert evaluate_model(str(other), f"{asked}/dev.json", max_length=32) == pytest.approx(
        evaluate_model(f"{asked}/teacher", f"{asked}/dev.json")
    )
    words = ["--output", f"{tmp_path}/run", "--teacher", str(other), "--training.max_steps=1"]
    assert main(distil(asked, *words, "--method=soft-targets")) == 0
