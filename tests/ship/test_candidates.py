"""What is tried within a budget, and what a measured student tells of the prices of the others."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import PreTrainedModel

from emdistill.runs.compression import TEACHER, CandidateRow, CompressionRecord, FinalRow, FormRow
from emdistill.runs.gate_record import Machine
from emdistill.search.budget import Budget, Cost
from emdistill.ship.candidates import measured_ratios, still_fits, worth_trying
from emdistill.states import CLASSES

BUDGET = Budget(2.0, 20.0)


def form(ms: float, mb: float = 10.0) -> FormRow:
    return FormRow(p50=ms, p95=ms, bytes=mb * 1e6, keeps=BUDGET.keeps(Cost(ms, mb)))


def candidate(student: str, ms: float) -> CandidateRow:
    return CandidateRow(student=student, method="balanced", predicted={"onnx": form(2 * ms), "int8": form(ms)})


def record_of(measured: dict[str, dict[str, FormRow]]) -> CompressionRecord:
    students = {"3x288": 1.7, "4x192": 1.5, "2": 1.2, "chain:aaf": 1.7, "bag": 0.1}
    finals = [
        FinalRow(candidate=name, folder="f", scores={"accuracy": 0.8}, forms=forms, ship=None, seconds=1.0)
        for name, forms in measured.items()
    ]
    return CompressionRecord(
        command="", settings={}, task="t", metric="accuracy", machine=Machine("cpu", 2, 1), hours=1.0,
        budget=str(BUDGET), finals=finals, candidates={name: candidate(name, ms) for name, ms in students.items()},
    )  # fmt: skip


def fitting(record: CompressionRecord) -> list[str]:
    ratios = measured_ratios(record)
    return [name for name, row in record.candidates.items() if still_fits(row, ratios, BUDGET)]


def test_what_was_predicted_counts_until_something_is_measured() -> None:
    assert fitting(record_of({})) == ["3x288", "4x192", "2", "chain:aaf", "bag"]


def test_a_miss_makes_what_is_priced_alike_as_much_dearer() -> None:
    record = record_of({"3x288": {"int8": form(1.7 * 1.35)}})
    assert measured_ratios(record)["layers", "int8"].ms == pytest.approx(1.35)
    assert fitting(record) == ["2", "chain:aaf", "bag"]  # 1.5 ms are 2.03 now


def test_float32_says_nothing_of_int8() -> None:
    assert "4x192" in fitting(record_of({"3x288": {"onnx": form(34.0), "int8": form(1.7)}}))


def test_the_dearest_measurement_counts() -> None:
    record = record_of({"3x288": {"int8": form(1.7 * 1.35)}, "2": {"int8": form(1.2)}})
    assert "4x192" not in fitting(record)
    assert TEACHER not in fitting(record)


@pytest.mark.parametrize(
    ("mb", "bags"), [(None, ["bag"]), (14, ["bag"]), (8, ["bag", "bag:64"]), (1, ["bag", "bag:16"])]
)
def test_a_narrower_bag_is_tried_where_the_usual_one_is_too_large(
    tiny_encoder: Callable[..., PreTrainedModel], mb: float | None, bags: list[str]
) -> None:
    encoder = tiny_encoder(layers=1, width=128)
    encoder.config.vocab_size = 30_522  # counts, where the table's width is that of the encoder
    task = SimpleNamespace(predictions=CLASSES)
    nursery: Any = SimpleNamespace(
        encoder=encoder,
        budget=Budget(mb=mb),
        data=SimpleNamespace(task=task),
        config=SimpleNamespace(student_source=None),
    )
    assert [student for student in worth_trying(nursery) if student.startswith("bag")] == bags
