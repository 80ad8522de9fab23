"""MobileBERT from the command line: a teacher of its kind, a student layer by layer, and its way into int8."""

import json
from pathlib import Path
from typing import Any

import pytest

from emdistill.cli import main
from emdistill.models.encoder import load_classifier
from emdistill.runs.record import read_run


@pytest.fixture(scope="module")
def teacher(place, tmp_path_factory) -> Path:
    """An inverted-bottleneck teacher: born of the labels alone, then fine-tuned on."""
    folder = tmp_path_factory.mktemp("mobilebert")
    words = [
        "--teacher",
        "none",
        "--student",
        "mobilebert-teacher:3x32x48",
        "--student-source",
        f"{place.folder}/encoder",
    ]
    assert main(place.distill(*words, "--method", "hard-labels", "--output", str(folder / "born"))) == 0
    files = ["--data", f"{place.folder}/reviews.csv", *place.reviews, "--training.num_train_epochs=1", *place.quiet]
    tuned = ["--model", f"{folder}/born/student", *files, *place.fast, "--output", str(folder / "teacher")]
    assert main(["finetune", *tuned]) == 0
    return folder / "teacher"


@pytest.fixture(scope="module")
def run(place, teacher: Path) -> Path:
    folder = teacher.parent / "run"
    words = ["--teacher", str(teacher), "--student", "mobilebert:3x32x16x2", "--method", "mobilebert"]
    assert main(place.distill(*words, "--check_teacher=false", "--output", str(folder))) == 0
    return folder


def test_a_teacher_is_wider_within(teacher: Path) -> None:
    config: Any = load_classifier(teacher).config
    assert (config.hidden_size, config.true_hidden_size, config.hidden_act) == (32, 48, "gelu")


def test_a_student_learns_layer_by_layer(run: Path) -> None:
    record = read_run(run)
    assert list(record.objective) == ["layer-0", "layer-1", "layer-2", "prediction"]
    assert {*record.objective.values()} == {
        "L = 1·feature_maps + 1·attention_kl",
        "L = 0.5·soft_targets + 0.5·hard_labels",
    }
    config: Any = load_classifier(run / "student").config
    assert (config.true_hidden_size, config.normalization_type) == (16, "no_norm")
    assert (run / "report.html").is_file()


@pytest.mark.usefixtures("quick_export")
def test_it_is_exported_in_float32_and_int8_and_judged(run: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert main(["export", "--int8", str(run), "--max-size-mb", "1", "--threads", "1"]) == 0
    gate = json.loads((run / "onnx" / "gate.json").read_text(encoding="utf-8"))
    assert gate["variants"]["onnx"]["logits"]["largest"] < 1e-4
    assert gate["variants"]["int8"]["bytes"] < gate["variants"]["onnx"]["bytes"]
