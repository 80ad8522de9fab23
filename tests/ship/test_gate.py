"""The verdict on made-up figures, the figures on made-up outputs, and the record of both."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from messages import names, unnamed

from emdistill.errors import ConfigError
from emdistill.runs.gate_record import (
    GATE,
    GateRecord,
    LogitDifference,
    Machine,
    TimedCase,
    VariantRecord,
    VerdictRecord,
    read_gate,
    write_gate,
)
from emdistill.ship.gate import HeadVariants, Limits, drop_error, judge, judge_heads, logit_difference
from emdistill.tasks import KINDS
from emdistill.tasks.answers import agreement
from emdistill.tasks.task import Task

REVIEWS = Task("reviews", KINDS["classification"], ("bad", "good"), ("accuracy", "macro_f1"))
STARS = Task("stars", KINDS["regression"], (), ("pearson", "spearman"))
CASES = [(1, 32), (1, 128), (32, 32), (32, 128)]


def facts(score: float, megabytes: float, milliseconds: float, runtime: Any = "ONNX Runtime", **more: Any) -> Any:
    """p50 of each case is batch · length / 128 · milliseconds, p95 a fifth more."""
    timed = []
    for batch, length in CASES:
        p50 = milliseconds * batch * length / 128
        timed.append(TimedCase(batch, length, p50, 1.2 * p50, 1.5 * p50, 1000 * batch / p50, 100))
    scores = {"accuracy": score, "macro_f1": score - 0.01}
    return VariantRecord(runtime, "model", round(megabytes * 1e6), scores, tuple(timed), **more)


SMALL, LARGE = LogitDifference(1e-6, 1e-7), LogitDifference(0.2, 0.03)
VARIANTS = {
    "teacher": facts(0.90, 438, 100, "PyTorch", agreement=1.0),
    "student": facts(0.85, 57.4, 10, "PyTorch", agreement=0.9),
    "onnx": facts(0.85, 57.5, 5, agreement=0.9, logits=SMALL, drop_standard_error=0.0),
    "int8": facts(0.84, 14.6, 2.5, agreement=0.89, logits=LARGE, drop_standard_error=0.4, method="dynamic"),
}


def record(
    limits: Limits | None = None, variants: dict[str, VariantRecord] = VARIANTS, dev_rows: int = 408, **more: Any
) -> GateRecord:
    return judge(
        variants, limits or Limits(), metric="accuracy", dev_rows=dev_rows, versions={"emdistill": "0.1.0"},
        machine=Machine("a [bold]processor", 2, 1), **more,
    )  # fmt: skip


def verdict(limits: Limits | None = None, **changed: VariantRecord) -> VerdictRecord:
    return record(limits, {**VARIANTS, **changed}).verdict


def test_without_limits_the_fastest_goes_and_it_is_said() -> None:
    found = verdict()
    assert (found.go, found.ship, found.failures) == (True, "int8", {})
    (note,) = found.notes
    assert not unnamed(note, "--max-latency-ms", "--max-size-mb", "--max-drop", "--max-drop-from-teacher")


@pytest.mark.parametrize(
    ("limits", "ship", "failures"),
    [
        (Limits(max_latency_ms=100, max_size_mb=100, max_drop=1, max_drop_from_teacher=6), "int8", {}),
        (
            Limits(max_latency_ms=5),
            "int8",
            {
                "student": [["12 ms", "batch 1", "length 128", "7 ms", "--max-latency-ms 5"]],
                "onnx": [["6 ms", "batch 1", "length 128", "1 ms", "--max-latency-ms 5"]],
            },
        ),
        (
            Limits(max_drop=0.5),
            "onnx",
            {"int8": [["accuracy", "1 points", "0.5 points", "--max-drop 0.5"]]},
        ),
        (
            Limits(max_drop_from_teacher=5.5),
            "onnx",
            {"int8": [["accuracy", "6 points", "0.5 points", "--max-drop-from-teacher 5.5"]]},
        ),
        (
            Limits(max_size_mb=57.45, max_drop=0),
            None,
            {
                "onnx": [["57.5 MB", "0.05 MB", "--max-size-mb 57.45"]],
                "int8": [["accuracy", "1 points", "--max-drop 0"]],
            },
        ),
    ],
)
def test_each_limit_fails_by_how_much(limits: Limits, ship: str | None, failures: dict[str, list[list[str]]]) -> None:
    found = verdict(limits)
    assert found.ship == ship
    assert found.go == (ship is not None)
    assert found.failures.keys() == failures.keys()
    for name, expected in failures.items():
        for told, facts_told in zip(found.failures[name], expected, strict=True):
            assert not unnamed(told, *facts_told)
    assert found.notes == []


def test_every_limit_that_fails_is_named() -> None:
    found = verdict(Limits(max_latency_ms=1, max_size_mb=1, max_drop=0, max_drop_from_teacher=0))
    assert [len(found.failures[name]) for name in ("student", "onnx", "int8")] == [3, 3, 4]


def test_a_drop_of_exactly_the_limit_passes() -> None:
    found = verdict(Limits(max_drop=1.0), int8=replace(VARIANTS["int8"], scores={"accuracy": 0.85 - 0.01}))
    assert 100 * (0.85 - (0.85 - 0.01)) != 1.0  # in binary it is a little off
    assert found.ship == "int8"


def heads(limits: Limits, **drops: float) -> GateRecord:
    """The gate of tasks whose int8 graph costs so many points; float32 costs nothing."""
    common = {name: replace(VARIANTS[name], method=None, agreement=None) for name in ("student", "onnx", "int8")}
    of_tasks = {
        task: HeadVariants(
            common
            | {"int8": replace(common["int8"], scores={"accuracy": 0.85 - drop / 100}, drop_standard_error=0.3)},
            "accuracy", 100,
        )
        for task, drop in drops.items()
    }  # fmt: skip
    return judge_heads(of_tasks, limits, versions={}, machine=Machine("a processor", 2, 1), notes=["an aside"])


def test_of_several_heads_the_mean_counts_and_the_worst_decides() -> None:
    gate = heads(Limits(max_drop=1.5), mood=0.0, stars=2.0)
    int8 = gate.variants["int8"]
    assert int8.scores == {"mean": pytest.approx(0.84), "mood/accuracy": 0.85, "stars/accuracy": pytest.approx(0.83)}
    assert int8.drop == pytest.approx(1.0)
    assert int8.drop_standard_error == pytest.approx(0.3 / math.sqrt(2))  # the tasks' rows are drawn apart
    assert {task: round(head.drop or 0.0, 9) for task, head in int8.heads.items()} == {"mood": 0.0, "stars": 2.0}
    assert gate.verdict.ship == "onnx"
    ((reason,),) = gate.verdict.failures.values()
    assert not unnamed(reason, "stars", "2 points", "0.5 points", "--max-drop 1.5")
    assert heads(Limits(max_drop=2), mood=0.0, stars=2.0).verdict.ship == "int8"


def test_what_is_the_graphs_own_is_said_once_for_all_heads() -> None:
    failures = heads(Limits(max_size_mb=20, max_latency_ms=4), mood=0.0, stars=0.0).verdict.failures
    assert {name: len(reasons) for name, reasons in failures.items()} == {"student": 2, "onnx": 2}
    assert heads(Limits(), mood=0.0, stars=0.1).verdict.notes[0] == "an aside"


def test_the_fastest_is_shipped_even_where_it_is_float32() -> None:
    slow = facts(0.84, 14.6, 6.0, drop_standard_error=0.1)
    found = verdict(int8=slow)
    assert found.ship == "onnx"
    assert any(not unnamed(note, "int8", "float32", "ONNX Runtime") for note in found.notes)
    assert not any("int8" in note for note in verdict(Limits(max_drop=2)).notes)


def test_where_int8_is_slower_in_one_case_only_that_one_is_named() -> None:
    timed = list(VARIANTS["int8"].latency)
    timed[2] = replace(timed[2], p50=41.0)
    found = verdict(Limits(max_drop=2), int8=replace(VARIANTS["int8"], latency=tuple(timed)))
    (note,) = found.notes
    assert not unnamed(note, "int8", "41 ms", 40, "batch 32", "length 32")
    assert unnamed(note, "batch 1") == ["batch 1"]


def test_int8_that_is_larger_and_onnx_that_is_slower_are_said() -> None:
    found = verdict(Limits(max_drop=2), int8=facts(0.84, 60, 2.5), onnx=facts(0.85, 57.5, 11))
    assert any(not unnamed(note, "int8", "60 MB", 57.5) for note in found.notes)
    assert any(not unnamed(note, "ONNX Runtime", "PyTorch") for note in found.notes)


@pytest.mark.parametrize(("score", "side"), [(0.848, "below"), (0.852, "above"), (0.84, None)])
def test_differences_smaller_than_their_error_are_said(score: float, side: str | None) -> None:
    found = verdict(Limits(max_size_mb=100), int8=facts(score, 14.6, 2.5, drop_standard_error=0.4))
    assert len(found.notes) == (side is not None)
    for note in found.notes:
        assert not unnamed(note, "int8", "0.2 points", side, 408, "0.4 points")


def test_a_float32_graph_that_computes_something_else_fails_without_limits() -> None:
    wrong = replace(VARIANTS["onnx"], logits=LogitDifference(0.3, 0.1))
    found = verdict(onnx=wrong)
    assert not unnamed(found.failures["onnx"][0], "PyTorch", 0.3)
    assert found.ship == "int8"
    assert verdict(onnx=replace(wrong, logits=LogitDifference(math.nan, math.nan))).failures["onnx"]
    # Scores in hundreds of thousands round in proportion.
    large = {**VARIANTS, "onnx": replace(wrong, logits=LogitDifference(0.03, 0.01))}
    assert record(variants=large).verdict.failures
    assert not record(variants=large, logit_size=2e5).verdict.failures


def test_shorter_encoders_are_judged_at_their_longest() -> None:
    short = {name: replace(each, latency=each.latency[::2]) for name, each in VARIANTS.items()}
    found = record(Limits(max_latency_ms=1), short, 10).verdict
    assert not unnamed(*found.notes, "length 32")
    assert not unnamed(*found.failures["onnx"], "1.5 ms", "batch 1", "length 32", "0.5 ms", "--max-latency-ms 1")


def test_without_a_teacher_nothing_is_said_of_it() -> None:
    own = {name: each for name, each in VARIANTS.items() if name != "teacher"}
    found = record(Limits(max_drop_from_teacher=0), own, 10).verdict
    assert found.go


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.5])
def test_limits_are_finite_and_not_negative(value: float) -> None:
    with names(ConfigError, "--max-size-mb"):
        Limits(max_size_mb=value)


# ---------------------------------------------------------------------------------------------- comparing outputs


def test_agreement_by_the_link_of_the_answers() -> None:
    teacher = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [0.0, 1.0]])
    student = np.array([[9.0, 1.0], [3.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert agreement(teacher, student, "softmax") == 0.75
    tags = np.array([[1.0, -1.0], [2.0, 3.0]]), np.array([[0.5, 1.0], [1.0, -4.0]])
    assert agreement(*tags, "sigmoid") == 0.5  # two of four labels are held by both or by neither
    scores = np.array([[1.0], [2.0], [4.0]], dtype=np.float32)
    assert agreement(scores, 3 * scores - 1, "identity") == pytest.approx(1.0)
    assert agreement(scores, -scores, "identity") == pytest.approx(-1.0)
    assert agreement(scores, np.ones_like(scores), "identity") == 0.0


def test_largest_and_mean_difference_of_logits() -> None:
    reference = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
    assert logit_difference(reference, reference + np.array([[0.0, -0.5], [0.25, 0.25]])) == LogitDifference(0.5, 0.25)


def test_the_error_of_a_drop_is_that_of_paired_rows() -> None:
    random = np.random.default_rng(5)
    labels = random.integers(2, size=600)
    right, broken = random.random(600) < 0.8, random.random(600) < 0.05
    student = np.eye(2)[np.where(right, labels, 1 - labels)]
    int8 = np.eye(2)[np.where(right & ~broken, labels, 1 - labels)]
    share = (right & broken).mean()
    exact = 100 * math.sqrt(share * (1 - share) / 600)  # of the mean of 0/1 differences
    found = drop_error(REVIEWS, student, int8, labels)
    assert found == pytest.approx(exact, rel=0.2)
    assert found == drop_error(REVIEWS, student, int8, labels)
    assert found < 100 * math.sqrt(0.8 * 0.2 / 600)  # far less than the error of either score
    assert drop_error(REVIEWS, student, student, labels) == 0.0
    noisy = student[:, :1] + random.normal(size=(600, 1))
    assert 0 < drop_error(STARS, student[:, :1], noisy, labels.astype(float)) < 10


# ------------------------------------------------------------------------------------------------------- the record


def test_gate_json_is_plain_and_read_back_as_it_was(tmp_path: Path) -> None:
    variants = {name: replace(each, load_seconds=0.5, peak_mb=123.4) for name, each in VARIANTS.items()}
    gate = record(Limits(max_drop=0.5), variants, notes=["an aside"])
    (tmp_path / GATE).parent.mkdir()
    write_gate(tmp_path / GATE, gate)
    assert read_gate(tmp_path) == gate
    plain = json.loads((tmp_path / GATE).read_text(encoding="utf-8"))
    assert plain["status"] == "finished"
    assert plain["limits"] == {
        "max_latency_ms": None,
        "max_size_mb": None,
        "max_drop": 0.5,
        "max_drop_from_teacher": None,
    }
    int8 = plain["variants"]["int8"]
    assert int8["drop"] == pytest.approx(1.0)
    assert int8["drop_from_teacher"] == pytest.approx(6.0)
    assert int8["logits"] == {"largest": 0.2, "mean": 0.03}
    assert (int8["method"], int8["kept_in_float32"]) == ("dynamic", [])
    assert int8["latency"][1] == {
        "batch": 1,
        "length": 128,
        "p50": 2.5,
        "p95": 3.0,
        "p99": 3.75,
        "throughput": 400.0,
        "calls": 100,
    }
    assert (int8["load_seconds"], int8["peak_mb"]) == (0.5, 123.4)
    assert plain["variants"]["teacher"]["drop"] is None
    assert plain["variants"]["student"]["drop"] == 0.0
    assert "method" not in plain["variants"]["onnx"]
    assert plain["verdict"]["ship"] == "onnx"
    assert plain["verdict"]["notes"] == ["an aside"]
