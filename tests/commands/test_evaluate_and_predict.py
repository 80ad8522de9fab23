"""A saved model at work: by its functions with an untrained model, from the command line with a distilled student."""

import csv
import datetime
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from messages import names, unnamed
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from emdistill.cli import main
from emdistill.commands import evaluate as evaluate_module
from emdistill.commands import predict as predict_module
from emdistill.commands.evaluate import evaluate_model
from emdistill.commands.predict import predict_file
from emdistill.data.files import Columns, read_examples, read_inputs, to_dataset
from emdistill.errors import ConfigError, DataError, ModelError, OutputError
from emdistill.models.encoder import load_classifier, load_tokenizer, save_student
from emdistill.models.label_names import name_outputs
from emdistill.runs.reading import recall_reading, remember_reading
from emdistill.tasks import KINDS
from emdistill.tasks.task import Task

TEXTS = ["a good movie", "it was very bad and not good", "the book", "it is a bad book"]


@pytest.fixture
def saved(tmp_path: Path, tiny_encoder: Callable[..., PreTrainedModel], tiny_tokenizer: Any) -> Callable[..., str]:
    """Factory: saved("bad", "good") is the folder of a model that tells these apart; saved() of one that scores."""

    def save(*labels: str, family: str = "bert", **task: Any) -> str:
        model, kind = tiny_encoder(family, labels=len(labels) or 1), KINDS["classification" if labels else "regression"]
        name_outputs(model.config, labels=labels, problem_type=kind.problem_type)
        if task:
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


def test_texts_that_are_cut_are_counted(saved: Callable[..., str], tmp_path: Path, capsys) -> None:
    model = saved("bad", "good", text="a", text_pair="b", max_length=9)
    texts = [
        ("good " * 3, "bad " * 3),  # 9 tokens
        ("good " * 3, "bad " * 4),
        ("good " * 200, "bad"),
        ("good", "bad"),
    ]
    rows = [{"a": a, "b": b, "label": ("bad", "good")[row % 2]} for row, (a, b) in enumerate(texts)]
    source = write_rows(tmp_path / "in.jsonl", rows)
    predict_file(model, source, str(tmp_path / "out.jsonl"))
    assert not unnamed(capsys.readouterr().err, "2 of 4", 9, "--max-length", 128)
    evaluate_model(model, source, max_length=128)
    assert not unnamed(capsys.readouterr().err, "1 of 4", 128)
    write_rows(tmp_path / "in.jsonl", rows[:1])
    predict_file(model, source, str(tmp_path / "out.jsonl"), overwrite=True)
    assert not capsys.readouterr().err.strip()


def test_pairs_are_read_as_pairs_unless_another_column_is_named(
    saved: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved("bad", "good", text="a", text_pair="b")
    source = write_rows(tmp_path / "in.jsonl", [{"a": "good", "b": "bad", "label": "bad"}])
    predict_file(model, source, str(tmp_path / "pair.jsonl"))
    evaluate_model(model, source)
    assert not capsys.readouterr().err.strip()
    predict_file(model, source, str(tmp_path / "alone.jsonl"), text="a")
    assert not unnamed(capsys.readouterr().err, "'a'", "'b'", "--text-pair")
    evaluate_model(model, source, text="a")
    assert not unnamed(capsys.readouterr().err, "'a'", "'b'", "--text-pair")
    pair, alone = (read_rows(tmp_path / f"{name}.jsonl")[0]["probability"] for name in ("pair", "alone"))
    assert pair != alone
    with names(DataError, tmp_path / "one.jsonl", "'b'"):
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
    classes = np.array(["good", "bad", "mixed"])
    expected = (classes[logits_of(model, *TEXTS).argmax(-1)] == np.array(labels)).mean()
    assert evaluate_model(model, source)["accuracy"] == expected


def test_a_part_that_is_scored_is_said(saved: Callable[..., str], tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "SST-2"
    folder.mkdir()
    rows = [f"a good movie {row}\t{row % 2}" for row in range(40)]
    (folder / "train.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    evaluate_model(saved("negative", "positive"), str(folder), task="sst2")
    assert not unnamed(capsys.readouterr().err, "4", "40")


def test_a_file_is_scored_whole_whatever_the_task(
    tiny_encoder: Callable[..., PreTrainedModel], tiny_tokenizer: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    kind, sets = KINDS["span-answers"], {}
    for part in (tiny_encoder(head=kind.head, labels=2, problem_type=kind.problem_type), tiny_tokenizer):
        part.save_pretrained(tmp_path / "model")
    answer = [{"text": "movie", "answer_start": 7}]
    asked = [{"id": str(row), "question": f"what {row}?", "answers": answer} for row in range(40)]
    whole = {"data": [{"paragraphs": [{"context": "a good movie", "qas": asked}]}]}
    (tmp_path / "big.json").write_text(json.dumps(whole))
    monkeypatch.setattr(evaluate_module, "score_sets", lambda task, logits, evaluation: sets.update(evaluation) or {})
    for task in (None, "squad"):
        sets.clear()
        evaluate_model(str(tmp_path / "model"), str(tmp_path / "big.json"), task=task, kind=None)
        assert {name: len(rows) for name, rows in sets.items()} == {"dev": 40}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_rows_without_a_label_are_read_back_as_such(
    tiny_encoder: Callable[..., PreTrainedModel], tiny_tokenizer: Any, tmp_path: Path, suffix: str
) -> None:
    model, kind = tiny_encoder(labels=2), KINDS["multi-label"]
    name_outputs(model.config, labels=("toxic", "insult"), problem_type=kind.problem_type)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.fill_(-1.0)
    save_student(model, tiny_tokenizer, tmp_path / "model")
    label = {"toxic": 1, "insult": 0}
    file = write_rows(tmp_path / "in.jsonl", [{"text": text, "label": label} for text in TEXTS])
    written = tmp_path / f"out{suffix}"
    predict_file(str(tmp_path / "model"), file, str(written))
    task = Task("own", kind, ("toxic", "insult"), ("micro_f1",))
    columns = [Columns(label="prediction"), Columns()]
    none, given = (to_dataset(read_examples(written, each), task, varied=False) for each in columns)
    assert (none["label"][:], given["label"][:]) == ([[0, 0]] * 4, [[1, 0]] * 4)
    assert evaluate_model(str(tmp_path / "model"), str(written)) == evaluate_model(str(tmp_path / "model"), file)


def test_a_file_of_one_class_is_scored(saved: Callable[..., str], tmp_path: Path) -> None:
    model = saved("good", "bad")
    expected = (logits_of(model, *TEXTS).argmax(-1) == 1).mean()
    (tmp_path / "bad.csv").write_text("".join(f"{line}\n" for line in ("text,label", *(f"{t},bad" for t in TEXTS))))
    assert evaluate_model(model, str(tmp_path / "bad.csv"))["accuracy"] == expected


def test_a_model_of_scores_is_scored_by_correlation(saved: Callable[..., str], tmp_path: Path) -> None:
    model = saved()
    scores = [1.0, 2.5, 2.0, 4.25]
    source = write_rows(tmp_path / "in.jsonl", [{"text": t, "label": s} for t, s in zip(TEXTS, scores, strict=True)])
    expected = np.corrcoef(logits_of(model, *TEXTS)[:, 0], scores)[0, 1]
    assert evaluate_model(model, source)["pearson"] == pytest.approx(expected, abs=1e-5)


def test_scores_that_are_all_the_same_are_noted(saved: Callable[..., str], tmp_path: Path, capsys) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": text, "label": 2.5} for text in TEXTS])
    assert evaluate_model(saved(), source)["pearson"] == 0
    assert not unnamed(capsys.readouterr().err, source)


def test_a_model_of_another_task_is_refused(saved: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "RTE"
    folder.mkdir()
    rows = "".join(f"{n}\tgood\tbad\t{('entailment', 'not_entailment')[n % 2]}\n" for n in range(8))
    for name in ("train", "dev"):
        (folder / f"{name}.tsv").write_text("index\tsentence1\tsentence2\tlabel\n" + rows)
    with names(ModelError, "regression", "classification"):
        evaluate_model(saved(), str(folder), task="rte")
    with names(ModelError, 3, 2):
        evaluate_model(saved("a", "b", "c"), str(folder), task="rte")


def test_a_model_whose_outputs_are_no_numbers_predicts_nothing(saved: Callable[..., str], tmp_path: Path) -> None:
    model, source = saved("bad", "good"), write_rows(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])
    weights = load_file(f"{model}/model.safetensors")
    weights["classifier.bias"] += float("nan")
    save_file(weights, f"{model}/model.safetensors")
    with names(ModelError, len(TEXTS)):
        predict_file(model, source, f"{tmp_path}/out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_rows_whose_answers_are_no_numbers_are_named(saved: Callable[..., str], tmp_path: Path) -> None:
    model, file = saved("bad", "good"), tmp_path / "in.csv"
    file.write_text('text,label\na good movie,good\n"it is\nbad",bad\nthe book,good\nbad,bad\n')
    weights = load_file(f"{model}/model.safetensors")
    table, word = weights["bert.embeddings.word_embeddings.weight"], load_tokenizer(model).vocab["bad"]
    table[word] = float("nan")
    save_file(weights, f"{model}/model.safetensors")
    with names(ModelError, "lines 3, 6"):
        predict_file(model, str(file), f"{tmp_path}/out.jsonl")
    with names(ModelError, "rows 2, 4"):
        evaluate_model(model, str(file))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"output": "out.txt"}, ConfigError),
        ({"output": "nowhere/out.csv"}, OutputError),
        ({"output": "folder.csv", "overwrite": True}, OutputError),
        ({"output": "in.jsonl", "overwrite": True}, OutputError),
        ({"batch_size": 0}, ConfigError),
        ({"max_length": 129}, ConfigError),
        ({"text": "body"}, DataError),
    ],
)
def test_what_cannot_be_written_or_read_is_refused_first(
    saved: Callable[..., str], tmp_path: Path, options: dict[str, Any], error: type[Exception]
) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": "good"}])
    (tmp_path / "folder.csv").mkdir()
    options = {"output": "out.csv", **options}
    output = str(tmp_path / options.pop("output"))
    with pytest.raises(error):
        predict_file(saved("bad", "good"), source, output, **options)
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "folder.csv", "model"}


@pytest.mark.parametrize(
    ("family", "longest"),
    [("bert", 128), ("xlm-roberta", 127), ("camembert", 127), ("mpnet", 126)],
)
def test_texts_are_cut_to_the_positions_of_the_family(
    saved: Callable[..., str], tmp_path: Path, family: str, longest: int
) -> None:
    model = saved("bad", "good", family=family)
    source = write_rows(tmp_path / "in.jsonl", [{"text": "good " * 300}, {"text": "bad"}])
    assert predict_file(model, source, str(tmp_path / "out.jsonl")) == 2
    assert predict_file(model, source, str(tmp_path / "longest.jsonl"), max_length=longest) == 2
    with names(ConfigError, f"--max-length {longest + 1}", longest):
        predict_file(model, source, str(tmp_path / "longer.jsonl"), max_length=longest + 1)


@pytest.fixture
def no_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks a model for logits fails the test."""
    opened = predict_module.open_classifier

    def answer(*_: Any) -> np.ndarray:
        pytest.fail("it was refused only after predicting")

    monkeypatch.setattr(predict_module, "open_classifier", lambda *model: replace(opened(*model), logits=answer))


NASTY = [
    'the "good" film',
    'a "b',
    "line\nend",
    "tab\tand\r\nmore",
    "cr\ralone",
    "a, b",
    " good ",
    "bäd 😀",
    "a\u2028b",
]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_what_predict_writes_is_read_back(saved: Callable[..., str], tmp_path: Path, suffix: str) -> None:
    texts = [text for text in NASTY if suffix != ".tsv" or not set(text) & set("\t\r\n")]
    model, place, again = saved("bad", "good"), tmp_path / f"out{suffix}", tmp_path / f"again{suffix}"
    predict_file(model, write_rows(tmp_path / "in.jsonl", [{"text": text} for text in texts]), str(place))
    rows = [row.cells for row in read_inputs(place)]
    assert [row["text"] for row in rows] == texts
    assert evaluate_model(model, str(place), label="prediction")["accuracy"] == 1.0
    renamed = write_rows(tmp_path / "renamed.jsonl", [{"text": row["text"], "n": row["prediction"]} for row in rows])
    predict_file(model, renamed, str(again))
    assert [row.cells["prediction"] for row in read_inputs(again)] == [row["prediction"] for row in rows]


@pytest.mark.usefixtures("no_answers")
@pytest.mark.parametrize(
    ("suffix", "rows", "line", "column"),
    [
        (".tsv", [{"text": "a"}, {"text": "b\tc"}], 2, "text"),
        (".tsv", [{"text": "a", "note": "b\nc"}], 1, "note"),
        (".parquet", [{"text": "a", "id": 1}, {"text": "b", "id": "x"}], 2, "id"),
        *((suffix, [{"text": "a", "user": "\ud83d"}], 1, "user") for suffix in (".jsonl", ".csv", ".tsv", ".parquet")),
        (".csv", [{"text": "a", "prediction": "b"}], None, "prediction"),
    ],
)
def test_what_the_output_cannot_hold_is_refused_before_predicting(
    saved: Callable[..., str], tmp_path: Path, suffix: str, rows: list[dict[str, Any]], line: int | None, column: str
) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", rows), tmp_path / f"out{suffix}"
    output.write_text("old")
    with names(DataError, f"'{column}'") as caught:
        predict_file(saved("bad", "good"), source, str(output), overwrite=True)
    assert (str(caught.value.file), caught.value.line) == (source, line)
    assert output.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", output.name, "model"}


@pytest.mark.usefixtures("no_answers")
def test_a_folder_that_takes_no_files_is_refused_before_predicting(
    saved: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": "a"}])
    monkeypatch.setattr("os.access", lambda *_: False)
    with names(OutputError, "--output"):
        predict_file(saved("bad", "good"), source, str(tmp_path / "out.csv"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("at", ["open_classifier", "RowWriter", "RowWriter.write"])
def test_an_interruption_leaves_the_old_output(
    saved: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], at: str
) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", [{"text": "a"}]), tmp_path / "out.csv"
    output.write_text("old")

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(f"{predict_module.__name__}.{at}", fail)
    with pytest.raises(error):
        predict_file(saved("bad", "good"), source, str(output), overwrite=True)
    assert output.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out.csv", "model"}


# -------------------------------------------------------------------------------------- from the command line


def test_evaluate_prints_scores_of_every_row(place, capsys) -> None:
    assert main(["evaluate", "--model", f"{place.folder}/run/student", "--data", f"{place.folder}/reviews.csv"]) == 0
    out, _ = capsys.readouterr()
    scores = dict(line.split("\t") for line in out.splitlines())
    assert scores.keys() == {"accuracy", "macro_f1"}
    assert float(scores["accuracy"]) >= 0.9


def test_evaluate_takes_a_file_with_few_of_the_classes_or_rows(place, tmp_path: Path, capsys) -> None:
    file = place.write_csv(tmp_path / "two.csv", [["1", "it was good", "good"], ["2", "it was bad", "bad"]])
    assert main(["evaluate", "--model", f"{place.folder}/teacher", "--data", str(file)]) == 0
    assert capsys.readouterr().out == "accuracy\t1.0000\nmacro_f1\t1.0000\n"
    file = place.write_csv(tmp_path / "unknown.csv", [["1", "it was good", "good"], ["2", "it was bad", "awful"]])
    assert main(["evaluate", "--model", f"{place.folder}/teacher", "--data", str(file)]) == 2
    assert not unnamed(capsys.readouterr().err, "awful", "bad", "good")


@pytest.mark.parametrize("name", ["scored.jsonl", "scored.csv", "scored.tsv", "scored.parquet"])
def test_predict_keeps_the_columns_and_adds_prediction_and_probability(
    place, tmp_path: Path, capsys, name: str
) -> None:
    output = tmp_path / name
    words = [
        "predict",
        "--model",
        f"{place.folder}/run/student",
        "--input",
        f"{place.folder}/new.csv",
        "--output",
        str(output),
    ]
    assert main(words) == 0
    assert not unnamed(capsys.readouterr().out, 8, output)
    rows = read_back(output)
    assert [row["id"] for row in rows] == [str(number) for number in range(8)]
    assert [row["prediction"] for row in rows] == [label for _, label in place.sentences(8)]
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows)
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0


def read_back(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="," if path.suffix == ".csv" else "\t"))


def test_predict_reads_lines_of_text_and_json_with_other_columns_a_row(place, tmp_path: Path) -> None:
    student = ["predict", "--model", f"{place.folder}/run/student"]
    (tmp_path / "new.txt").write_text("it was bad\nit was good\n", encoding="utf-8")
    assert main([*student, "--input", f"{tmp_path}/new.txt", "--output", f"{tmp_path}/a.jsonl"]) == 0
    assert [row["prediction"] for row in read_back(tmp_path / "a.jsonl")] == ["bad", "good"]
    (tmp_path / "new.jsonl").write_text('{"body": "it was bad"}\n{"body": "good", "from": "me"}\n', encoding="utf-8")
    assert main([*student, "--input", f"{tmp_path}/new.jsonl", "--output", f"{tmp_path}/b.parquet"]) == 0
    assert [row["from"] for row in read_back(tmp_path / "b.parquet")] == [None, "me"]
    assert main([*student, "--input", f"{tmp_path}/new.jsonl", "--output", f"{tmp_path}/b.csv"]) == 0
    assert [row["from"] for row in read_back(tmp_path / "b.csv")] == ["", "me"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--output", "{tmp}/out.xlsx"], ["--output", ".jsonl, .csv, .tsv, .parquet"]),
        (["--output", "{tmp}/nowhere/out.csv"], ["--output", "{tmp}/nowhere"]),
        (["--output", "{tmp}/out.csv", "--text", "boddy"], ["'boddy'", "'body'"]),
        (["--output", "{tmp}/out.csv", "--input", "{tmp}/nix.csv"], ["{tmp}/nix.csv"]),
        (["--output", "{tmp}/out.csv", "--input", "{tmp}/empty.csv"], ["empty.csv:2", "'body'"]),
        (["--output", "{tmp}/out.csv", "--input", "{tmp}/taken.csv"], ["taken.csv", "'prediction'"]),
        (["--output", "{tmp}/out.csv", "--model", "{tmp}/nix"], ["{tmp}/nix"]),
        (["--output", "{tmp}/out.csv", "--batch-size", "0"], ["--batch-size"]),
        (["--output", "{tmp}/out.csv", "--max-length", "1000"], ["--max-length 1000", "128"]),
    ],
)
def test_predict_refuses_what_it_cannot_use(place, tmp_path: Path, capsys, words: list[str], named: list[str]) -> None:
    place.write_csv(tmp_path / "empty.csv", [["1", " "]], ("id", "body"))
    place.write_csv(tmp_path / "taken.csv", [["good", "it was good"]], ("prediction", "body"))
    words = [word.replace("{tmp}", str(tmp_path)) for word in words]
    given = {"--model": f"{place.folder}/run/student", "--input": f"{place.folder}/new.csv"}
    given |= dict(zip(words[::2], words[1::2], strict=True))
    assert main(["predict", *(word for pair in given.items() for word in pair)]) == 2
    assert not unnamed(capsys.readouterr().err, *(name.replace("{tmp}", str(tmp_path)) for name in named))
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("out")]
