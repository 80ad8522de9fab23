"""A student in ONNX at work, from the command line."""

import json
import shutil
from pathlib import Path

import pytest
from messages import unnamed

from emdistill.cli import main
from emdistill.ship.onnx_folder import INT8, MODEL, put_first

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


def test_texts_that_are_cut_are_counted_alike(place, exported: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "in.txt").write_text("good good\ngood good good\n" * 2, encoding="utf-8")
    told = []
    for number, model in enumerate((place.folder / "run" / "student", exported)):
        words = ["predict", "--model", str(model), "--input", f"{tmp_path}/in.txt", "--max-length", "4"]
        assert main([*words, "--output", f"{tmp_path}/{number}.jsonl"]) == 0
        told.append(capsys.readouterr().err.strip())
    assert not unnamed(told[0], "2 of 4", 4, "--max-length")
    assert told[0] == told[1]


@pytest.mark.parametrize("name", ["", MODEL])
def test_predict_takes_an_onnx_file_or_its_folder(place, exported: Path, tmp_path: Path, capsys, name: str) -> None:
    rows = {}
    folder = shutil.copytree(exported, tmp_path / "folder")
    put_first(folder, MODEL)
    for kind, model in {"torch": place.folder / "run" / "student", "onnx": folder / name}.items():
        output = tmp_path / f"{kind}.jsonl"
        words = ["predict", "--model", str(model), "--input", f"{place.folder}/new.csv", "--output", str(output)]
        assert main(words) == 0
        assert not unnamed(capsys.readouterr().out, 8, output)
        rows[kind] = [json.loads(line) for line in output.read_text().splitlines()]
    for torch_row, onnx_row in zip(rows["torch"], rows["onnx"], strict=True):
        assert onnx_row.pop("probability") == pytest.approx(torch_row.pop("probability"), abs=1e-4)
        assert onnx_row == torch_row


def test_an_answer_in_int8_does_not_depend_on_its_neighbours(exported: Path, tmp_path: Path) -> None:
    """Each token is brought to int8 by its own range: alone, among others or in a batch the answer is the same."""
    texts = ["good", "a bad book and it is not very good " * 3, "the movie was 5 of 7"]
    whole, found, together = tmp_path / "whole.txt", [], tmp_path / "together.jsonl"
    whole.write_text("\n".join(texts) + "\n", encoding="utf-8")
    words = ["predict", "--model", str(exported / INT8)]
    assert main([*words, "--input", str(whole), "--output", str(together)]) == 0
    for row, text in enumerate(texts):
        alone = tmp_path / f"{row}.txt"
        alone.write_text(f"{text}\n", encoding="utf-8")
        assert main([*words, "--input", str(alone), "--output", str(alone.with_suffix(".jsonl"))]) == 0
        found += alone.with_suffix(".jsonl").read_text().splitlines()
    assert together.read_text().splitlines() == found
    batched = tmp_path / "batched.jsonl"
    assert main([*words, "--input", str(whole), "--output", str(batched), "--batch-size", "3"]) == 0
    for row, alone in zip(batched.read_text().splitlines(), found, strict=True):
        assert json.loads(row) == pytest.approx(json.loads(alone), abs=1e-5)


def test_evaluate_prints_the_same_scores(place, exported: Path, capsys) -> None:
    printed = []
    for model in (place.folder / "run" / "student", exported):
        assert main(["evaluate", "--model", str(model), "--data", f"{place.folder}/reviews.csv"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def test_evaluate_scores_the_dev_set_of_a_task(place, exported: Path, tmp_path: Path, capsys) -> None:
    """Where the model names its labels as the task does; words beside other words may stand in any order."""
    words = ["--data", f"{place.folder}/SST-2", "--task", "sst2", "--text", "sentence"]
    assert main(["evaluate", "--model", str(exported), *words]) == 2
    assert not unnamed(capsys.readouterr().err, "bad, good", "negative, positive", "id2label")
    folder = shutil.copytree(exported, tmp_path / "folder")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"bad"', '"negative"').replace('"good"', '"positive"'))
    assert main(["evaluate", "--model", str(folder), *words]) == 0
    assert capsys.readouterr().out.startswith("accuracy\t")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--model", "{tmp}/cut/model.onnx"], ["{tmp}/cut/model.onnx", "1,000 bytes"]),
        (["--model", "{tmp}/alone/model.onnx"], ["{tmp}/alone", "config.json"]),
        (["--model", "{tmp}/text.onnx"], ["{tmp}", "config.json"]),
        (["--model", "{tmp}/nothing.onnx"], ["{tmp}/nothing.onnx"]),
        (["--max-length", "1000"], ["--max-length 1000", "128"]),
        (["--text", "boddy"], ["'boddy'", "'body'"]),
    ],
)
def test_what_cannot_be_used_is_named(
    place, exported: Path, tmp_path: Path, capsys, words: list[str], named: list[str]
) -> None:
    shutil.copytree(exported, tmp_path / "cut")
    (tmp_path / "cut" / MODEL).write_bytes((exported / MODEL).read_bytes()[:1000])
    (tmp_path / "alone").mkdir()
    shutil.copyfile(exported / MODEL, tmp_path / "alone" / MODEL)
    (tmp_path / "text.onnx").write_text("a good movie")
    given = {
        "--model": str(exported),
        "--input": f"{place.folder}/new.csv",
        "--output": f"{tmp_path}/out.csv",
    }
    words = [word.replace("{tmp}", str(tmp_path)) for word in words]
    given |= dict(zip(words[::2], words[1::2], strict=True))
    assert main(["predict", *(word for pair in given.items() for word in pair)]) == 2
    assert not unnamed(capsys.readouterr().err, *(name.replace("{tmp}", str(tmp_path)) for name in named))
    assert not (tmp_path / "out.csv").exists()
