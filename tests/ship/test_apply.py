from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from transformers import PreTrainedModel

from emdistill.errors import ConfigError, DataError, OutputError, TeacherError
from emdistill.models.encoder import load_classifier, load_tokenizer, name_outputs, save_student
from emdistill.runs.reading import recall_reading, remember_reading
from emdistill.ship.apply import evaluate_model, predict_file
from emdistill.tasks.task import Task

TEXTS = ["a good movie", "it was very bad and not good", "the book", "it is a bad book"]


@pytest.fixture
def saved(tmp_path: Path, tiny_encoder: Callable[..., PreTrainedModel], tiny_tokenizer: Any) -> Callable[..., str]:
    """Factory: saved("bad", "good") is the folder of a model that tells these apart; saved() of one that scores."""

    def save(*labels: str, **task: Any) -> str:
        model = tiny_encoder("bert", labels=len(labels) or 1)
        name_outputs(model.config, labels=labels, regression=not labels)
        if task:
            kind = "classification" if labels else "regression"
            length = task.pop("max_length", 32)
            remember_reading(model, tiny_tokenizer, Task("own", kind, labels, ("accuracy",), **task), length)
        folder = tmp_path / "model"
        save_student(model, tiny_tokenizer, folder)
        return str(folder)

    return save


def logits_of(folder: str, *texts: str, max_length: int = 32) -> np.ndarray:
    """One text at a time, by transformers alone."""
    model, tokenizer = load_classifier(folder), load_tokenizer(folder)
    with torch.no_grad():
        inputs = [tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt") for text in texts]
        return torch.cat([model(**each).logits for each in inputs]).numpy()


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_predictions_are_the_models_own(saved: Callable[..., str], tmp_path: Path) -> None:
    model = saved("bad", "good")
    source = write_rows(tmp_path / "in.jsonl", [{"text": text, "n": n} for n, text in enumerate(TEXTS)])
    assert predict_file(model, source, str(tmp_path / "out.jsonl"), batch_size=3) == 4
    probabilities = torch.from_numpy(logits_of(model, *TEXTS)).softmax(-1).numpy()
    for row, text, expected in zip(read_rows(tmp_path / "out.jsonl"), TEXTS, probabilities, strict=True):
        assert row["text"] == text
        assert row["prediction"] == ("bad", "good")[expected.argmax()]
        assert row["probability"] == pytest.approx(expected.max(), abs=1e-5)


def test_a_score_has_no_probability(saved: Callable[..., str], tmp_path: Path) -> None:
    model = saved()
    source = write_rows(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])
    predict_file(model, source, str(tmp_path / "out.jsonl"))
    rows = read_rows(tmp_path / "out.jsonl")
    assert [row.keys() for row in rows] == [{"text", "prediction"}] * 4
    np.testing.assert_allclose([row["prediction"] for row in rows], logits_of(model, *TEXTS)[:, 0], atol=1e-5)


def test_columns_and_length_are_remembered_with_the_model(saved: Callable[..., str], tmp_path: Path) -> None:
    model = saved("bad", "good", text="body", label="stars", max_length=5)
    reading = recall_reading(load_classifier(model))
    assert (reading.text, reading.text_pair, reading.label, reading.max_length) == ("body", None, "stars", 5)
    source = write_rows(tmp_path / "in.jsonl", [{"body": TEXTS[1], "stars": "bad"}, {"body": "good", "stars": "good"}])
    predict_file(model, source, str(tmp_path / "out.jsonl"))
    cut = torch.from_numpy(logits_of(model, TEXTS[1], max_length=5)).softmax(-1).max().item()
    assert read_rows(tmp_path / "out.jsonl")[0]["probability"] == pytest.approx(cut, abs=1e-5)
    predict_file(model, source, str(tmp_path / "out.jsonl"), max_length=30, overwrite=True)
    whole = torch.from_numpy(logits_of(model, TEXTS[1], max_length=30)).softmax(-1).max().item()
    assert read_rows(tmp_path / "out.jsonl")[0]["probability"] == pytest.approx(whole, abs=1e-5) != cut
    assert evaluate_model(model, source).keys() == {"accuracy", "macro_f1"}


def test_pairs_are_read_as_pairs_unless_another_column_is_named(saved: Callable[..., str], tmp_path: Path) -> None:
    model = saved("bad", "good", text="a", text_pair="b")
    source = write_rows(tmp_path / "in.jsonl", [{"a": "good", "b": "bad"}])
    predict_file(model, source, str(tmp_path / "pair.jsonl"))
    predict_file(model, source, str(tmp_path / "alone.jsonl"), text="a")
    pair, alone = (read_rows(tmp_path / f"{name}.jsonl")[0]["probability"] for name in ("pair", "alone"))
    assert pair != alone
    with pytest.raises(DataError, match="column 'b' is not in"):
        predict_file(model, write_rows(tmp_path / "one.jsonl", [{"a": "good"}]), str(tmp_path / "x.jsonl"))


def test_parquet_keeps_its_types(saved: Callable[..., str], tmp_path: Path) -> None:
    day = datetime.date(2024, 2, 29)
    table = pyarrow.Table.from_pylist([{"text": text, "day": day, "n": n} for n, text in enumerate(TEXTS)])
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    model = saved("bad", "good")
    predict_file(model, str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet"))
    out = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert out.select(["text", "day", "n"]).equals(table)
    predict_file(model, str(tmp_path / "in.parquet"), str(tmp_path / "out.jsonl"))
    assert [row["day"] for row in read_rows(tmp_path / "out.jsonl")] == ["2024-02-29"] * 4


def test_every_row_of_a_file_is_scored_in_the_models_order_of_labels(saved: Callable[..., str], tmp_path: Path) -> None:
    model = saved("good", "bad", "mixed")  # not alphabetical, and one that the file does not hold
    labels = ["bad", "good", "bad", "good"]
    source = write_rows(tmp_path / "in.jsonl", [{"text": t, "label": w} for t, w in zip(TEXTS, labels, strict=True)])
    names = np.array(["good", "bad", "mixed"])
    expected = (names[logits_of(model, *TEXTS).argmax(-1)] == np.array(labels)).mean()
    assert evaluate_model(model, source)["accuracy"] == expected


def test_a_model_of_scores_is_scored_by_correlation(saved: Callable[..., str], tmp_path: Path) -> None:
    model = saved()
    scores = [1.0, 2.5, 2.0, 4.25]
    source = write_rows(tmp_path / "in.jsonl", [{"text": t, "label": s} for t, s in zip(TEXTS, scores, strict=True)])
    expected = np.corrcoef(logits_of(model, *TEXTS)[:, 0], scores)[0, 1]
    assert evaluate_model(model, source)["pearson"] == pytest.approx(expected, abs=1e-5)


def test_a_model_of_another_task_is_refused(saved: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "RTE"
    folder.mkdir()
    rows = "".join(f"{n}\tgood\tbad\t{('entailment', 'not_entailment')[n % 2]}\n" for n in range(8))
    for name in ("train", "dev"):
        (folder / f"{name}.tsv").write_text("index\tsentence1\tsentence2\tlabel\n" + rows)
    with pytest.raises(TeacherError, match="gives a score, the task asks for classes"):
        evaluate_model(saved(), str(folder), task="rte")
    with pytest.raises(TeacherError, match="tells 3 classes apart, the data has 2"):
        evaluate_model(saved("a", "b", "c"), str(folder), task="rte")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"output": "out.txt"}, ConfigError),
        ({"output": "nowhere/out.csv"}, OutputError),
        ({"batch_size": 0}, ConfigError),
        ({"max_length": 129}, ConfigError),
        ({"text": "body"}, DataError),
    ],
)
def test_what_cannot_be_written_or_read_is_refused_first(
    saved: Callable[..., str], tmp_path: Path, options: dict[str, Any], error: type[Exception]
) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": "good"}])
    output = str(tmp_path / options.pop("output", "out.csv"))
    with pytest.raises(error):
        predict_file(saved("bad", "good"), source, output, **options)
    assert not Path(output).exists()
