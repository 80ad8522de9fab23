"""Who is trained next in a compression, and who is left out: the whole search, but for what takes time."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from compressions import COST, final_of, record_of
from messages import names

from emdistill.commands import _candidate_runs, _compression
from emdistill.commands._candidate_runs import TRIALS, CandidateRuns, _folder_name
from emdistill.commands._compression import REPLACED, Compression
from emdistill.errors import ModelError, OutputError, TrainingError
from emdistill.runs.compression import TEACHER, CandidateRow, CompressionRecord, CompressionStudy, FormRow
from emdistill.runs.open_run import remove
from emdistill.runs.places import check_folder
from emdistill.search.budget import read_budget

Search = Callable[..., CompressionRecord]
SCORES = {"accuracy": 0.8, "held-out/accuracy": 0.8}
RUN = SimpleNamespace(rows={"train": 10}, timings={"training_seconds": 1.0}, scores={"student": SCORES})


def gate(ship: str | None = "int8") -> Any:
    """What an export measured."""
    case = SimpleNamespace(p50=1.0, p95=2.0)
    int8 = SimpleNamespace(limit_case=case, bytes=3e6, scores={"accuracy": 0.8})
    return SimpleNamespace(variants={"int8": int8}, metric="accuracy", verdict=SimpleNamespace(ship=ship))


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    """Goes on with a record until nobody is left; faults: errors by the end of the run's folder, or of the export."""

    def make(record: CompressionRecord, faults: dict[str, Exception], finals: int = 1) -> CompressionRecord:
        def distil(runs: CandidateRuns, name: str, place: Path, *_: Any, **__: Any) -> Any:
            if error := faults.get(f"{place.parent.name}/{place.name}"):
                raise error
            return RUN

        def export(run: str, **_: Any) -> Any:
            if error := faults.get(f"export {Path(run).name}"):
                raise error
            return gate()

        def export_subject(*_: Any, **__: Any) -> Any:
            if error := faults.get("export teacher"):
                raise error
            return gate(ship=None)

        monkeypatch.setattr(CandidateRuns, "_distil", distil)
        monkeypatch.setattr(_candidate_runs, "export", export)
        monkeypatch.setattr(_candidate_runs, "export_subject", export_subject)
        monkeypatch.setattr(_candidate_runs, "subject_of", lambda *_: None)
        monkeypatch.setattr(_compression, "_cache", lambda *_: "logits")
        nursery: Any = SimpleNamespace(
            budget=read_budget(record.budget), threads=1, without_labels=lambda: (),
            data=SimpleNamespace(train=range(100)),
            config=SimpleNamespace(training={"num_train_epochs": 1.0}, teacher="teacher", max_length=128),
        )  # fmt: skip
        study = CompressionStudy(tmp_path, record, time.perf_counter())
        Compression(study, nursery, CandidateRuns(study, nursery, {}, nursery.data, {})).run(finals)
        return record

    return make


def planless(*students: str, **known: Any) -> CompressionRecord:
    """A record of these students, the largest first, before anything was planned."""
    record = record_of({name: [] for name in students}, plan=None, teacher={"accuracy": 0.9}, **known)
    for place, name in enumerate(students):
        cost = COST | {"p50": 2.0 - place / 10}
        forms: Any = {"onnx": FormRow(**cost), "int8": FormRow(**cost)}
        record.candidates[name] = CandidateRow(student=name, method="balanced", predicted=forms)
    return record


def test_one_that_cannot_be_warmed_up_is_left_out_and_the_next_tells_the_speed(search: Search) -> None:
    record = search(planless("large", "small"), {"trials/large-warm-up": TrainingError("NaN")})
    assert record.failed == {"large": "NaN"}
    assert [final.candidate for final in record.finals] == ["small"]


def test_students_without_layers_come_first_however_wide(search: Search) -> None:
    record = search(planless("2", "1", "bag:64", "bilstm"), {})
    assert record.plan is not None
    assert record.plan.candidates == ("bag:64", "bilstm", "2", "1")


def test_one_that_fails_as_a_whole_is_left_out_and_the_next_best_trained(search: Search) -> None:
    for step in ("finals/best", "export best"):
        record = search(record_of({"best": [0.9], "next": [0.8]}), {step: ModelError("no form in ONNX\nmore")})
        assert record.failed == {"best": "no form in ONNX"}
        assert [final.candidate for final in record.finals] == ["next"]


def test_where_all_fail_the_search_ends_with_the_last_one_s_fault_and_again_when_it_is_gone_on_with(
    search: Search,
) -> None:
    faults: dict[str, Exception] = {f"finals/{name}": TrainingError(f"{name} is NaN") for name in ("best", "next")}
    record = record_of({"best": [0.9], "next": [0.8]})
    with names(TrainingError, "next"):
        search(record, faults)
    with names(TrainingError, "next"):
        search(record, {})


def test_what_is_nobodys_own_fault_ends_the_search_and_leaves_nobody_out(search: Search) -> None:
    record = record_of({"best": [0.9]})
    with pytest.raises(OutputError):
        search(record, {"finals/best": OutputError("the disk is full")})
    assert not record.failed


def test_one_that_failed_at_a_later_rung_is_no_finalist_by_its_first_score(search: Search) -> None:
    record = search(record_of({"best": [0.9, None], "next": [0.8, 0.7]}), {})
    assert [final.candidate for final in record.finals] == ["next"]


def test_a_teacher_that_could_not_be_exported_is_not_tried_again(search: Search) -> None:
    keeps: Any = {"int8": FormRow(**COST)}
    record = record_of({"best": [0.9]}, teacher={"accuracy": 0.9})
    record.candidates[TEACHER] = CandidateRow(student=TEACHER, method="", predicted=keeps)
    with pytest.raises(OutputError):
        search(record, {"export teacher": ModelError("first"), "finals/best": OutputError("the disk is full")})
    search(record, {"export teacher": ModelError("again")})
    assert record.failed == {TEACHER: "first"}
    assert [final.candidate for final in record.finals] == ["best"]


def test_the_others_are_trained_whole_where_the_teacher_misses_once_measured(search: Search) -> None:
    keeps: Any = {"int8": FormRow(**COST)}
    record = record_of({"best": [0.9], "done": [0.8]}, teacher={"accuracy": 0.9}, finals=[])
    record.candidates[TEACHER] = CandidateRow(student=TEACHER, method="", predicted=keeps)
    assert [final.candidate for final in search(record, {}).finals] == [TEACHER, "best"]


def test_whole_trainings_after_the_first_keep_the_time(search: Search) -> None:
    plan = record_of({"best": [0.9], "next": [0.8]}).plan
    record = record_of({"best": [0.9], "next": [0.8]}, hours=1e-6, finals=[final_of("best", 0.8, ship=None)], plan=plan)
    assert [final.candidate for final in search(record, {}).finals] == ["best"]


def test_students_that_are_named_by_paths_have_folders_of_their_own() -> None:
    candidates = ["a/b soft-targets", "a-b soft-targets", "a_b soft-targets", f"{'x' * 300}/1 balanced"]
    candidates += [f"{'x' * 300}/2 balanced"]
    folders = {_folder_name(candidate) for candidate in candidates}
    assert len(folders) == len(candidates)
    assert all(len(Path(folder).parts) == 1 and len(folder) < 200 for folder in folders)
    assert _folder_name("4x312 soft-targets, rank 128") == "4x312-soft-targets-rank-128"


@pytest.mark.parametrize("stopped", range(len(REPLACED)))
def test_an_overwrite_that_is_stopped_leaves_a_search(tmp_path: Path, stopped: int) -> None:
    for name in REPLACED:
        (tmp_path / name).mkdir()
    remove(tmp_path, REPLACED[:stopped])
    check_folder(tmp_path, TRIALS, "compression")


@pytest.mark.parametrize("broken", ["plan", "finals"])
def test_a_record_whose_plan_or_finals_name_nobody_is_refused(broken: str) -> None:
    plan = record_of({"nobody": []}).plan
    with pytest.raises(ValueError, match="nobody"):
        record_of({"best": []}, **({"plan": plan} if broken == "plan" else {"finals": [final_of("nobody", 0.8)]}))
