"""What a compression delivers, of a record and the folders that it names; nothing is trained."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compressions import final_of, record_of
from messages import unnamed

from emdistill.commands import _delivery
from emdistill.commands._delivery import deliver, forget_what_is_gone, is_delivered
from emdistill.runs.compression import BaselineLine, CompressionRecord, CompressionStudy
from emdistill.runs.search_record import read_search
from emdistill.search.budget import read_budget

Study = Callable[[CompressionRecord], CompressionStudy]


@pytest.fixture
def study_of(tmp_path: Path) -> Study:
    """A search of this record, with the folders that it names; each says whose it is."""

    def make(record: CompressionRecord) -> CompressionStudy:
        places = {final.candidate: tmp_path / final.folder / "onnx" for final in record.finals}
        places |= {name: tmp_path / "baselines" / name for name in record.baselines}
        for name, place in places.items():
            place.mkdir(parents=True)
            (place / "gate.json").write_text("{}")
            (place / "whose").write_text(name)
        return CompressionStudy(tmp_path, record, started=0.0)

    return make


def delivered(study: CompressionStudy) -> str | None:
    """Whose folder was delivered; the record says the same."""
    deliver(study, read_budget(study.record.budget))
    whose = study.folder / "model" / "whose"
    assert study.record.delivered == (whose.read_text() if whose.exists() else None)
    assert read_search(study.folder, CompressionRecord) == study.record
    return study.record.delivered


@pytest.mark.parametrize("short", [{"large": [0.6, 0.8], "small": [0.7, 0.75]}, {"large": [], "small": []}])
def test_the_best_of_the_whole_trainings_by_the_rows_that_choose_is_delivered(study_of: Study, short: Any) -> None:
    """Whatever dev says, and who led when they had hardly learned."""
    finals = [final_of("large", 0.9, held_out=0.8), final_of("small", 0.8, held_out=0.85)]
    assert delivered(study_of(record_of(short, finals=finals))) == "small"


def test_of_equal_ones_the_first_is_delivered_and_no_baseline(study_of: Study) -> None:
    finals = [final_of("one", 0.8, held_out=0.7), final_of("other", 0.8, held_out=0.7)]
    assert delivered(study_of(record_of({"one": [], "other": []}, finals=finals))) == "one"


def test_who_misses_the_budget_is_not_delivered_whatever_it_scores(study_of: Study) -> None:
    finals = [final_of("best", 0.9, held_out=0.99, ship=None), final_of("other", 0.8, held_out=0.8)]
    assert delivered(study_of(record_of({"best": [0.9], "other": [0.8]}, finals=finals))) == "other"


@pytest.mark.parametrize(("held_out", "expected"), [(-0.3, "student"), (-0.1, "tfidf")])
def test_a_baseline_is_ahead_by_negative_scores_too(study_of: Study, held_out: float, expected: str) -> None:
    tfidf = BaselineLine(held_out=held_out, score=0.1, p95=0.1, bytes=1e6)
    finals = [final_of("student", 0.8, held_out=-0.2)]
    assert delivered(study_of(record_of({"student": []}, finals=finals, baselines={"tfidf": tfidf}))) == expected


@pytest.mark.parametrize(("p95", "expected"), [(0.1, "tfidf"), (99.0, None)])
def test_where_no_student_keeps_it_a_baseline_has_to(study_of: Study, p95: float, expected: str | None) -> None:
    tfidf = BaselineLine(held_out=0.7, score=0.8, p95=p95, bytes=1e6)
    finals = [final_of("student", 0.8, held_out=0.9, ship=None)]
    study = study_of(record_of({"student": []}, finals=finals, baselines={"tfidf": tfidf}))
    assert delivered(study) == expected
    assert not unnamed(study.record.verdict, "student", "--budget")


def test_a_search_is_finished_once_its_page_stands(study_of: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(record_of({"student": []}, finals=[final_of("student", 0.8)]))

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_delivery, "write_compress_report", stopped)
        with pytest.raises(KeyboardInterrupt):
            deliver(study, read_budget(study.record.budget))
    assert not is_delivered(study)
    assert delivered(study) == "student"
    assert is_delivered(study)
    assert (study.folder / "report.html").is_file()


def test_what_has_lost_its_folder_is_forgotten_and_the_others_stay(study_of: Study) -> None:
    finals = [final_of("gone", 0.9), final_of("there", 0.8)]
    study = study_of(record_of({"gone": [0.9], "there": [0.8]}, finals=finals))
    assert delivered(study) == "gone"
    for place in ("model/whose", "finals/gone/onnx/gate.json"):
        (study.folder / place).unlink()
    assert is_delivered(study)  # its folder is there
    shutil.rmtree(study.folder / "model")
    assert not is_delivered(study)
    forget_what_is_gone(study)
    assert [final.candidate for final in study.record.finals] == ["there"]
    assert list(study.record.baselines) == ["tfidf"]
    assert study.record.delivered is None
    assert delivered(study) == "there"
