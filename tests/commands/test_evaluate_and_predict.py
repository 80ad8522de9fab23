"""A saved student at work, from the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from emdistill.cli import main


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
    assert "the label 'awful' is none of the model's (bad, good)" in capsys.readouterr().err


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
    assert capsys.readouterr().out == f"8 rows written to {output}\n"
    rows = read_back(output)
    assert [row["id"] for row in rows] == [str(number) for number in range(8)]
    assert [row["prediction"] for row in rows] == [label for _, label in place.sentences(8)]
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
def test_predict_refuses_what_it_cannot_use(place, tmp_path: Path, capsys, words: list[str], message: str) -> None:
    place.write_csv(tmp_path / "empty.csv", [["1", " "]], ("id", "body"))
    place.write_csv(tmp_path / "taken.csv", [["good", "it was good"]], ("prediction", "body"))
    words = [word.replace("{tmp}", str(tmp_path)) for word in words]
    given = {"--model": f"{place.folder}/run/student", "--input": f"{place.folder}/new.csv"}
    given |= dict(zip(words[::2], words[1::2], strict=True))
    assert main(["predict", *(word for pair in given.items() for word in pair)]) == 2
    assert message.replace("{tmp}", str(tmp_path)) in capsys.readouterr().err
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("out")]
