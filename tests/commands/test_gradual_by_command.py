"""`--student-birth gradual`: a small student at last, by every method; taken up again bit for bit; refusals."""

from pathlib import Path
from typing import Any

import pytest
from messages import unnamed
from training_runs import AtStep

from emdistill.cli import main
from emdistill.methods import METHODS
from emdistill.models import fingerprint, load_classifier
from emdistill.runs.flow_recorder import FlowRecorder
from emdistill.runs.record import read_run
from emdistill.students.shape import StudentShape, shape_of

GRADUAL = ("--student=2x16x4x40", "--student-birth=gradual", "--rows=48", "--select=last")


# Cross-view training is of BiLSTMs, sentence vectors are of raw text.
@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("cross-view", "sentence-vectors")])
def test_every_method_ends_with_a_stock_student_of_the_shape(place: Any, tmp_path: Path, method: str) -> None:
    run = tmp_path / "run"
    assert main(place.distill("--method", method, *GRADUAL, "--output", str(run))) == 0
    student, record = load_classifier(run / "student"), read_run(run)
    assert shape_of(student.config) == StudentShape(2, 16, 4, 40)
    assert record.log[0].stage == "gradual"
    assert [*record.objective] == [each.stage for each in record.log]
    assert record.student is not None
    (cut,) = record.student.cut_out
    assert cut["layers"] == [1, 3]
    assert [len(heads) for heads in cut["heads"]] == [4, 4]


@pytest.mark.parametrize(("number", "step"), [(0, 3), (1, 1)], ids=["while units leave", "afterwards"])
def test_a_stop_changes_nothing(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, step: int
) -> None:
    options = (*GRADUAL, "--training.num_train_epochs=4", "--method=tinybert")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main(place.distill(*options, "--output", str(whole))) == 0
    stages = [each.stage for each in read_run(whole).log]
    with monkeypatch.context() as patch:
        patch.setattr(FlowRecorder, "on_step_begin", AtStep(step, stages[number]).on_step_begin)
        assert main(place.distill(*options, "--output", str(stopped))) != 0
    assert not read_run(stopped).is_finished
    assert main(place.distill(*options, "--output", str(stopped), "--resume")) == 0
    one, other = (load_classifier(run / "student") for run in (whole, stopped))
    assert fingerprint(one) == fingerprint(other)
    assert [each.stage for each in read_run(stopped).log] == stages
    assert (whole / "flows.jsonl").read_bytes() == (stopped / "flows.jsonl").read_bytes()


def test_what_cannot_be_born_so_is_refused(place: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, needed in (
        (["--student=2"], ["--student-birth gradual", "--student 2"]),
        (["--embedding-rank=4"], ["--embedding-rank 4"]),
        (["--student=9x16"], ["9x16x4x48"]),
    ):
        assert main(place.distill(*GRADUAL, *words, "--output", str(tmp_path / "run"))) != 0
        assert not unnamed(capsys.readouterr().err, *needed)
        assert not (tmp_path / "run").exists()
