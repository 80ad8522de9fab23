"""Labels are the teacher's by name, in the teacher's order, through every command that reads data."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from messages import names, unnamed
from run_folders import read_record
from transformers import AutoConfig

from emdistill.cli import main
from emdistill.errors import TeacherError
from emdistill.models.encoder import load_classifier, load_tokenizer
from emdistill.tasks import KINDS
from emdistill.tasks.task import Task
from emdistill.teachers.text_alone import read_dev
from emdistill.training import predict_logits

COLUMNS = ("body", "stars")
TWELVE = [f"LABEL_{number}" for number in range(12)]  # sorted as texts, 10 and 11 come before 2


@dataclass(frozen=True)
class Case:
    """A teacher that is right on every row of the data, and its labels in its own order."""

    teacher: Path
    data: Path
    labels: list[str]

    @property
    def source(self) -> list[str]:
        return [f"--data={self.data}", "--text=body", "--label=stars"]


def words_in_another_order(place: Any, folder: Path) -> Case:
    """The teacher of the place, its two outputs changed over: {0: good, 1: bad}, where bad sorts before good."""
    teacher = Path(shutil.copytree(place.folder / "teacher", folder / "teacher"))
    model = load_classifier(teacher)
    with torch.no_grad():
        for weight in (model.classifier.weight, model.classifier.bias):
            weight.copy_(weight.flip(0))
    model.config.id2label, model.config.label2id = {0: "good", 1: "bad"}, {"good": 0, "bad": 1}
    model.save_pretrained(teacher)
    return Case(teacher, place.write_csv(folder / "data.csv", place.sentences(80), COLUMNS), ["good", "bad"])


def twelve_generic_names(place: Any, encoder: Any, tokenizer: Any, folder: Path) -> Case:
    """A random teacher of LABEL_0 to LABEL_11, each its answer about as often; the labels are its own answers."""
    drawn = np.random.default_rng(0)
    words = ["the", "good", "bad", "movie", "book", "not", "very", "of"]
    texts = list(dict.fromkeys(" ".join(drawn.choice(words, drawn.integers(3, 9))) for _ in range(240)))
    rows = Dataset.from_dict({"text": texts})
    logits = predict_logits(encoder, tokenizer, rows, max_length=32)
    with torch.no_grad():
        scale = torch.from_numpy(1 / logits.std(0))
        encoder.classifier.weight.mul_(scale[:, None])
        encoder.classifier.bias.sub_(torch.from_numpy(logits.mean(0))).mul_(scale)
    encoder.save_pretrained(folder / "teacher")
    tokenizer.save_pretrained(folder / "teacher")
    answers = predict_logits(encoder, tokenizer, rows, max_length=32).argmax(-1)
    assert np.bincount(answers, minlength=12).min() >= 3
    pairs = [(text, TWELVE[answer]) for text, answer in zip(texts, answers, strict=True)]
    return Case(folder / "teacher", place.write_csv(folder / "data.csv", pairs, COLUMNS), TWELVE)


@pytest.fixture(scope="module", params=["another order", "twelve generic names"])
def case(
    request: pytest.FixtureRequest,
    place: Any,
    tiny_encoder: Any,
    tokenizer_factory: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Case:
    folder = tmp_path_factory.mktemp("labels")
    if request.param == "another order":
        return words_in_another_order(place, folder)
    return twelve_generic_names(place, tiny_encoder(layers=2, labels=12), tokenizer_factory(), folder)


def names_of(student: Path) -> list[str]:
    return list(AutoConfig.from_pretrained(student).id2label.values())


def test_every_command_counts_as_the_teacher_does(
    case: Case, quick_export: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = [f"--teacher={case.teacher}", *case.source]
    assert main(["evaluate", f"--model={case.teacher}", *case.source]) == 0
    assert not unnamed(capsys.readouterr().out, "accuracy\t1.0000")

    short = ("--student=1", "--training.max_steps=2", "--training.disable_tqdm", "--baselines=none")
    run = tmp_path / "run"
    assert main(["distill", *source, *short, "--method=soft-targets", f"--output={run}"]) == 0
    record = read_record(run)
    assert record["scores"]["teacher"]["accuracy"] == 1.0
    assert record["task"]["labels"] == names_of(run / "student") == case.labels

    assert main(["export", str(run), "--onnx"]) == 0
    gate = json.loads((run / "onnx" / "gate.json").read_text(encoding="utf-8"))
    assert gate["variants"]["teacher"]["scores"]["accuracy"] == 1.0
    assert json.loads((run / "onnx" / "config.json").read_text(encoding="utf-8"))["labels"] == case.labels

    variants = tmp_path / "variants.jsonl"
    assert main(["augment", *source, "--copies=1", f"--output={variants}"]) == 0
    header, *rows = map(json.loads, variants.read_text(encoding="utf-8").splitlines())
    assert header["task"]["labels"] == case.labels
    model, tokenizer = load_classifier(case.teacher), load_tokenizer(case.teacher)
    answers = predict_logits(
        model, tokenizer, Dataset.from_dict({"text": [row["text"] for row in rows]}), max_length=32
    ).argmax(-1)
    assert [row["label"] for row in rows] == [case.labels[answer] for answer in answers]

    together = tmp_path / "comparison"
    methods = ("--methods=soft-targets,hard-labels", "--seeds=1", f"--augmented={variants}")
    assert main(["compare", *source, *short, *methods, f"--output={together}"]) == 0
    assert json.loads((together / "comparison.json").read_text())["teacher"]["accuracy"] == 1.0
    assert [names_of(one / "student") for one in sorted((together / "runs").glob("*-0"))] == [case.labels] * 2


@pytest.mark.parametrize(
    ("written", "counted"),
    [("12345", [0, 1, 2, 3, 4]), ("04", [0, 4]), (("LABEL_1", "LABEL_3"), [1, 3]), ("1234", None), ("1267", None)],
)
def test_a_dev_beside_text_alone_has_its_labels_counted_as_labelled_rows_are(
    place: Any, tmp_path: Path, written: Any, counted: list[int] | None
) -> None:
    """The labels are those of a teacher that nobody has named."""
    classes, labels = KINDS["classification"], tuple(TWELVE[:5])
    task = Task("t", classes, labels, classes.default_metrics, text="body", label="stars")
    dev = place.write_csv(tmp_path / "dev.csv", [[f"text {label}", label] for label in written], COLUMNS)
    if counted is None:
        with names(TeacherError, "dev.csv", *labels, *written):
            read_dev(str(dev), task)
    else:
        assert read_dev(str(dev), task)["label"][:] == counted
