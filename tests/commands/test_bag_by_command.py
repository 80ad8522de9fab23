"""A bag as a user gives it: what it brings along is said and recorded, it learns, and layer methods are refused."""

from pathlib import Path
from typing import Any

import pytest
from messages import names, unnamed
from safetensors.torch import load_file

from emdistill.cli import main
from emdistill.commands.compare import compare
from emdistill.errors import ConfigError
from emdistill.models import load_classifier
from emdistill.runs.record import read_run
from emdistill.states import EncoderShape


def test_a_bag_is_distilled_with_nothing_else_said(place: Any, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    assert main(place.distill("--output", str(run), "--student", "bag:8", "--training.num_train_epochs=8")) == 0
    assert not unnamed(capsys.readouterr().out, "bag:8", "soft-targets", "per_device_train_batch_size")
    record = read_run(run)
    assert record.config["method"] == "soft-targets"
    assert record.student is not None
    assert record.student.shape == EncoderShape(0, 8, 0)
    assert record.scores["student"]["accuracy"] > 0.9  # one word tells the label
    learned = load_file(run / "student" / "model.safetensors")
    assert {*learned} == {*load_classifier(run / "student").state_dict()}
    assert learned["bag.ngram_embeddings.weight"].any()
    assert learned["bag.word_embeddings.log_weights"].any()
    for page in ("report.html", "student/README.md"):
        assert not unnamed((run / page).read_text(encoding="utf-8"), "bag", "8 wide")


@pytest.mark.parametrize("method", ["balanced", "tinybert"])
def test_methods_of_layers_are_refused_before_anything_is_made(place: Any, tmp_path: Path, method: str) -> None:
    output = tmp_path / "run"
    assert main(place.distill("--output", str(output), "--student", "bag", "--method", method)) == 2
    assert not (output / "student").exists()
    with names(ConfigError, method, "soft-targets"):
        compare(
            teacher=f"{place.folder}/teacher", data=f"{place.folder}/reviews.csv", text="body", label="stars",
            student="bag", methods=f"soft-targets,{method}", output=str(output),
        )  # fmt: skip
