"""Baselines beside a run and a comparison: measured on its rows, resumed with it, and never a reason to fail."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import emdistill.ship.baselines as module
from emdistill.baselines import vectors
from emdistill.cli import main
from emdistill.commands.compare import compare
from emdistill.runs.answers import read_predictions
from emdistill.runs.baseline_record import read_baselines
from emdistill.runs.record import read_run
from emdistill.ship import bench as _bench
from emdistill.ship.gate import drop_error
from emdistill.tasks import KINDS
from emdistill.tasks.task import Task

FAST = {"learning_rate": 5e-3, "per_device_train_batch_size": 16, "max_steps": 4, "flow_steps": 0, "disable_tqdm": True}


@pytest.fixture(autouse=True)
def _little_timing(monkeypatch: pytest.MonkeyPatch, quick_export: None) -> None:
    monkeypatch.setattr(_bench, "SECONDS", 0.0)


def test_all_of_them_stand_beside_the_student(
    place: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "find_spec", lambda package: None)
    run = tmp_path / "run"
    assert main(place.distill("--output", str(run), "--baselines", "all")) == 0
    *_, sentence, last = capsys.readouterr().out.splitlines()
    assert str(run) in last
    record = read_baselines(run)
    assert record is not None
    assert f"{sentence}." in (run / "student" / "README.md").read_text()
    assert list(record.computed) == ["tfidf", "frozen", "labels", "int8-teacher"]
    assert "emdistill[baselines]" in record.baselines["static"].problem
    assert {"teacher": record.teacher.scores, "student": record.student.scores} == read_run(run).scores
    for row in (record.teacher, record.student, *record.computed.values()):
        assert row.bytes
        assert row.p50
        assert row.scores.keys() == record.student.scores.keys()
    answers = read_predictions(run / "predictions.jsonl")["dev"]
    task = Task("reviews", KINDS["classification"], ("bad", "good"), ("accuracy",))
    error = drop_error(task, answers.student, answers.teacher, answers.labels.astype(np.int64))
    assert record.teacher.lead_error == pytest.approx(error)
    labels = read_run(run / "baselines" / "labels")
    assert labels.is_finished
    assert (labels.config["method"], labels.seed) == ("hard-labels", read_run(run).seed)
    assert labels.config["training"]["num_train_epochs"] == read_run(run).config["training"]["num_train_epochs"]
    # Finished, it is finished whatever is to be measured beside it.
    assert main(place.distill("--output", str(run), "--baselines", "none", "--resume")) == 0


def test_none_costs_nothing_and_a_wrong_name_is_refused_before_training(
    place: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emdistill.commands._one_task.measure_baselines", None)
    run = tmp_path / "run"
    assert main(place.distill("--output", str(run), "--baselines", "none")) == 0
    assert not (run / "baselines.json").exists()
    assert main(place.distill("--output", str(tmp_path / "other"), "--baselines", "tfdif")) == 2
    assert "'tfidf'" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_baseline_that_fails_is_a_row_that_says_why(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(setting: Any) -> Any:
        raise RuntimeError("something of another library")

    monkeypatch.setitem(module.BASELINES, "tfidf", broken)
    run = tmp_path / "run"
    assert main(place.distill("--output", str(run), "--baselines", "tfidf")) == 0
    record = read_baselines(run)
    assert record is not None
    assert "something of another library" in record.baselines["tfidf"].problem
    assert read_run(run).is_finished


def test_a_comparison_measures_them_once_for_all_its_runs(
    place: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "comparison"
    options = {
        "teacher": f"{place.folder}/teacher", "data": f"{place.folder}/reviews.csv", "text": "body", "label": "stars",
        "student": "2", "select": "last", "output": str(folder), "training": FAST,
    }  # fmt: skip
    timed: list[str] = []

    def in_int8(setting: module.Setting) -> _bench.Contender:
        assert setting.student is not None
        timed.append(setting.student.source)
        return module.BASELINES["tfidf"](setting)

    monkeypatch.setitem(module.BASELINES, "int8", in_int8)
    result = compare(methods="soft-targets,bert-emd", seeds="2", baselines="tfidf,labels,int8", **options)
    assert [entry.name for entry in result.entries] == ["soft-targets", "bert-emd", "hard-labels"]
    record = read_baselines(folder)
    assert record is not None
    labels = result.entries[-1]
    assert record.baselines["labels"].scores["accuracy"] == pytest.approx(labels.mean("accuracy"))
    best = max(result.entries[:-1], key=lambda entry: entry.mean("accuracy"))
    assert record.student.scores["accuracy"] == pytest.approx(best.mean("accuracy"))
    assert timed == [str(folder / "runs" / f"{best.name}-0")]
    assert record.own_int8 is not None
    for run in (folder / "runs").iterdir():
        own = read_baselines(run)
        if run.is_dir() and own is not None:
            assert own.student.scores == read_run(run).scores["student"]
            assert own.own_int8 is None  # it was of one run
            assert own.baselines["tfidf"].scores == record.baselines["tfidf"].scores
            assert json.loads((run / "run.json").read_text())["config"]["baselines"] == "none"
    assert len(list((folder / "runs").glob("*/baselines.json"))) == 6
    assert any(line.startswith("TF-IDF") for line in capsys.readouterr().out.splitlines())
    assert "TF-IDF" in (folder / "comparison.md").read_text()
