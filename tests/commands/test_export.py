"""A student is exported, measured and judged from the command line."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from messages import names, unnamed
from run_folders import contents, read_record, write_record

from emdistill.cli import main
from emdistill.commands import export as export_module
from emdistill.errors import ConfigError, DataError, EmdistillError, TeacherError, TokenizerError
from emdistill.models.encoder import load_classifier, load_tokenizer
from emdistill.ship import exported as exported_graphs
from emdistill.ship import subject as subject_module
from emdistill.ship.onnx import open_onnx
from emdistill.ship.subject import read_subject
from emdistill.training import predict_logits

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def test_the_folder_holds_what_was_measured(place, exported: Path) -> None:
    files = {"model.onnx", "model_int8.onnx", "tokenizer.json", "config.json", "example.py", "README.md", "gate.json"}
    assert {path.name for path in exported.iterdir()} == files
    assert sorted(path.name for path in exported.parent.iterdir() if path.name.startswith("onnx")) == ["onnx"]
    gate = json.loads((exported / "gate.json").read_text(encoding="utf-8"))
    run = json.loads((exported.parent / "run.json").read_text(encoding="utf-8"))
    assert list(gate["variants"]) == ["teacher", "student", "onnx", "int8"]
    assert gate["status"] == "finished"
    assert gate["metric"] == "accuracy"
    assert gate["dev_rows"] == 16
    assert gate["limits"]["max_size_mb"] == 1.0
    assert gate["machine"]["threads"] == 1
    assert {"emdistill", "torch", "onnxruntime"} <= gate["versions"].keys()
    for name, known in (("teacher", "teacher"), ("student", "student"), ("onnx", "student")):
        assert gate["variants"][name]["scores"] == pytest.approx(run["scores"][known])
    for name, file in (("onnx", "model.onnx"), ("int8", "model_int8.onnx")):
        assert gate["variants"][name]["bytes"] == (exported / file).stat().st_size
        assert gate["variants"][name]["file"] == file
    assert gate["variants"]["student"]["bytes"] == (exported.parent / "student" / "model.safetensors").stat().st_size
    for variant in gate["variants"].values():
        assert [(timed["batch"], timed["length"]) for timed in variant["latency"]] == [
            (1, 32), (1, 128), (32, 32), (32, 128)
        ]  # fmt: skip
        assert all(timed["calls"] >= 3 and 0 < timed["p50"] <= timed["p95"] for timed in variant["latency"])
        assert variant["load_seconds"] > 0
    assert gate["variants"]["onnx"]["logits"]["largest"] < 1e-4
    assert gate["variants"]["int8"]["method"] in ("dynamic", "static")
    assert gate["verdict"]["go"]
    assert gate["verdict"]["ship"] in ("onnx", "int8")


def test_the_figures_are_those_of_the_shipped_files(place, exported: Path) -> None:
    gate = json.loads((exported / "gate.json").read_text(encoding="utf-8"))
    subject = read_subject(str(exported.parent))
    dev = subject.data.evaluation["dev"]
    student = exported.parent / "student"
    expected = predict_logits(load_classifier(student), load_tokenizer(student), dev, max_length=subject.max_length)
    for name, file in (("onnx", "model.onnx"), ("int8", "model_int8.onnx")):
        logits = open_onnx(exported / file).predict_logits(dev, max_length=subject.max_length)
        difference = np.abs(logits.astype(np.float64) - expected)
        assert gate["variants"][name]["logits"]["largest"] == pytest.approx(difference.max(), rel=0.2, abs=1e-5)
        accuracy = float((logits.argmax(-1) == np.asarray(dev["label"])).mean())
        assert gate["variants"][name]["scores"]["accuracy"] == pytest.approx(accuracy)
        assert gate["variants"][name]["drop"] == pytest.approx(
            100 * (gate["variants"]["student"]["scores"]["accuracy"] - accuracy)
        )
    first = json.loads((exported / "config.json").read_text(encoding="utf-8"))["model"]
    assert first == gate["variants"][gate["verdict"]["ship"]]["file"]


def test_the_card_tells_use_figures_and_verdict(exported: Path) -> None:
    card = (exported / "README.md").read_text(encoding="utf-8")
    assert not unnamed(" ".join(card.split()), "`bad`, `good`", "python example.py", "student, int8", "ONNX", "1 × 128")
    assert not unnamed(card, "go", json.loads((exported / "gate.json").read_text())["verdict"]["ship"])


def test_a_no_go_is_exit_code_1_and_says_what_fails(place, tmp_path: Path, capsys, quick_export) -> None:
    words = ["export", f"{place.folder}/run", "--onnx", "--output", f"{tmp_path}/out", "--threads=1"]
    assert main([*words, "--max-size-mb", "0.01", "--max-drop-from-teacher=100"]) == 1
    out = capsys.readouterr().out
    assert not unnamed(out, "no-go", "--max-size-mb 0.01", f"{tmp_path}/out")
    gate = json.loads((tmp_path / "out" / "gate.json").read_text(encoding="utf-8"))
    assert gate["verdict"]["ship"] is None
    assert set(gate["verdict"]["failures"]) == {"student", "onnx"}
    assert not (tmp_path / "out" / "model_int8.onnx").exists()

    # What stands there is not replaced unasked, nor by an export that is stopped; nor is what stands beside it.
    (tmp_path / "out.old").mkdir()
    (tmp_path / "out.old" / "mine.txt").write_text("mine")
    before = contents(tmp_path)
    assert main(words) == 2
    assert not unnamed(capsys.readouterr().err, f"{tmp_path}/out", "--overwrite")

    def stop(_: Any, path: Path, **__: Any) -> None:
        path.write_bytes(b"half a graph")
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exported_graphs, "export_onnx", stop)
        assert main([*words, "--overwrite"]) == 130
    assert contents(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.old"]
    assert main([*words, "--overwrite"]) == 0
    assert contents(tmp_path) != before
    assert (tmp_path / "out.old" / "mine.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.old"]


def test_a_model_of_no_run_is_exported_without_a_teacher(place, tmp_path: Path, capsys, quick_export) -> None:
    words = ["export", f"{place.folder}/run/student", "--onnx", "--data", f"{place.folder}/reviews.csv"]
    assert main([*words, "--output", f"{tmp_path}/out"]) == 0
    gate = json.loads((tmp_path / "out" / "gate.json").read_text(encoding="utf-8"))
    assert list(gate["variants"]) == ["student", "onnx"]
    assert gate["variants"]["onnx"]["agreement"] is None
    assert gate["variants"]["onnx"]["drop_from_teacher"] is None
    assert not unnamed(capsys.readouterr().out, "--max-latency-ms", "--max-size-mb", "--max-drop")
    assert main([*words, "--output", f"{tmp_path}/other", "--max-drop-from-teacher", "1"]) == 2
    assert not unnamed(capsys.readouterr().err, "--max-drop-from-teacher", "--teacher")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], ["--onnx", "--int8"]),
        (["--onnx", "--max-latency-ms", "nan"], ["--max-latency-ms", "'nan'"]),
        (["--onnx", "--max-drop", "inf"], ["--max-drop", "'inf'"]),
        (["--onnx", "--max-size-mb", "-3"], ["--max-size-mb", -3]),
        (["--onnx", "--max-size-mb", "small"], ["--max-size-mb", "'small'"]),
        (["--onnx", "--threads", "0"], ["--threads", 1, 0]),
        (["--onnx", "--max-latency", "3"], ["'max_latency'", "'max_latency_ms'"]),
        (["--onnx", "--output", "{tmp}/full"], ["{tmp}/full", "notes.txt", "--output"]),
        (["--onnx", "--output", "{tmp}/full/notes.txt"], ["{tmp}/full/notes.txt", "--output"]),
        (["--onnx", "--output", "{tmp}/half"], ["{tmp}/half", "--output"]),
        (["--onnx", "--teacher", "{place}/encoder"], ["{place}/encoder"]),
        (["--onnx", "--data", "{tmp}/nix.csv"], ["{tmp}/nix.csv"]),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(
    place, tmp_path: Path, capsys, words: list[str], named: list[Any]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text("{}")
    before = contents(tmp_path), contents(place.folder)
    words, named = (
        [str(word).replace("{tmp}", str(tmp_path)).replace("{place}", str(place.folder)) for word in given]
        for given in (words, named)
    )
    output = [] if "--output" in words else ["--output", f"{tmp_path}/out"]
    assert main(["export", f"{place.folder}/run", *words, *output]) == 2
    assert not unnamed(capsys.readouterr().err, *named)
    assert (contents(tmp_path), contents(place.folder)) == before
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_that_needs_transformers_is_refused_before_a_graph_is_written(place, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(subject_module, "load_tokenizer", lambda _: object())
    monkeypatch.setattr(export_module, "write_exported", lambda *_, **__: pytest.fail("a graph was written"))
    with names(TokenizerError, "tokenizer.json"):
        export_module.export(f"{place.folder}/run", onnx=True, output=f"{tmp_path}/out")


def test_the_run_has_to_be_named(capsys, tmp_path: Path) -> None:
    assert main(["export", "--onnx"]) == 2
    assert "RUN" in capsys.readouterr().err
    assert main(["export", f"{tmp_path}/nix", "--onnx"]) == 2
    assert not unnamed(capsys.readouterr().err, f"{tmp_path}/nix")
    assert main(["export", str(tmp_path), "--onnx"]) == 2
    assert not unnamed(capsys.readouterr().err, tmp_path, "run.json", "--data")


def test_packages_that_are_absent_are_named(place, tmp_path: Path, capsys, monkeypatch) -> None:
    def absent() -> None:
        raise ConfigError("emdistill[onnx]")

    monkeypatch.setattr(export_module, "check_onnx_packages", absent)
    assert main(["export", f"{place.folder}/run", "--onnx", "--output", f"{tmp_path}/out"]) == 2
    assert "emdistill[onnx]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def moved(place, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the run whose run.json is changed: moved(teacher="elsewhere/") in its configuration."""

    def move(status: str = "finished", **config: Any) -> Path:
        folder = tmp_path / "moved"
        shutil.copytree(place.folder / "run", folder)
        run = read_record(folder)
        write_record(folder, run | {"status": status, "config": run["config"] | config})
        return folder

    return move


def test_a_teacher_and_data_that_moved_are_named_anew(place, moved) -> None:
    folder = moved(teacher="no/where/teacher", data="nowhere.csv")
    with names(DataError, "nowhere.csv", "--data"):
        read_subject(str(folder))
    data = f"{place.folder}/reviews.csv"
    with names(EmdistillError, "no/where/teacher", "--teacher"):
        read_subject(str(folder), data=data)
    subject = read_subject(str(folder), data=data, teacher=f"{place.folder}/teacher")
    assert subject.teacher is not None
    assert subject.data.task.labels == ("bad", "good")
    assert subject.longest == 128


def test_another_teacher_and_other_data_are_refused(place, moved, tmp_path: Path, tiny_encoder: Any) -> None:
    folder = moved()
    shutil.copytree(place.folder / "teacher", tmp_path / "other")
    model = load_classifier(tmp_path / "other")
    with torch.no_grad():
        model.classifier.bias += 1
    model.save_pretrained(tmp_path / "other")
    with names(TeacherError, tmp_path / "other"):
        read_subject(str(folder), teacher=str(tmp_path / "other"))
    with (place.folder / "reviews.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    place.write_csv(tmp_path / "reviews.csv", rows[1:-1], tuple(rows[0]))
    with names(DataError, tmp_path / "reviews.csv", folder):
        read_subject(str(folder), data=str(tmp_path / "reviews.csv"))


def test_a_run_without_a_head_or_an_end_is_refused(moved, tmp_path: Path) -> None:
    with names(ConfigError, tmp_path / "moved"):
        read_subject(str(moved(task="text")))
    shutil.rmtree(tmp_path / "moved")
    with names(ConfigError, tmp_path / "moved", "--resume"):
        read_subject(str(moved("running")))


def test_a_fine_tuned_teacher_can_be_exported_too(place) -> None:
    subject = read_subject(f"{place.folder}/teacher")
    assert subject.teacher is None
    assert subject.max_length == 128
