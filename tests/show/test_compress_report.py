"""What a compression says of its record: who is ahead, who went furthest, and what the charts hold."""

from dataclasses import replace
from typing import Any

import pytest
from messages import unnamed

from emdistill.runs.baseline_record import TITLES
from emdistill.runs.compression import (
    TEACHER,
    BaselineLine,
    CandidateRow,
    CompressionRecord,
    FinalRow,
    FormRow,
    PlanRow,
    TrialRow,
)
from emdistill.runs.gate_record import Machine
from emdistill.show.compress_report import chart_points, trials_table, verdict

COST: dict[str, Any] = {"p50": 1.0, "p95": 2.0, "bytes": 3_000_000, "keeps": True}


def record_of(scores: dict[str, list[float | None]], *, metric: str = "accuracy", **known: Any) -> CompressionRecord:
    """A record of these candidates with their scores by rung."""
    row = {"method": "balanced", "embedding_rank": None, "pruned": False}
    candidates = {
        name: CandidateRow(student=name, predicted={"int8": FormRow(**COST)}, **row)  # type: ignore[arg-type]
        for name in scores
    }
    trials = [
        TrialRow(candidate=name, rung=rung, score=score, seconds=1.0)
        for name, every in scores.items()
        for rung, score in enumerate(every)
    ]
    return CompressionRecord(
        command="emdistill compress", settings={}, task="reviews", metric=metric, budget="5 ms, 30 MB", hours=1.0,
        machine=Machine(cpu="Some Processor", cores=4, threads=2), candidates=candidates,
        plan=PlanRow(candidates=tuple(scores), shares=(0.1, 0.3), finals=1), trials=trials,
        baselines={"tfidf": BaselineLine(held_out=0.7, score=0.8, p95=0.1, bytes=1_000_000)}, **known,
    )  # fmt: skip


def final_of(name: str, score: float) -> FinalRow:
    forms: Any = {"int8": FormRow(**COST, score=score)}
    scores = {"accuracy": score}
    return FinalRow(candidate=name, folder="finals/x", scores=scores, forms=forms, ship="int8", seconds=1.0)


@pytest.mark.parametrize(
    ("score", "named"), [(0.7998, "level"), (0.8002, "level"), (0.79, "take"), (0.81, "1.0 points better")]
)
def test_a_difference_that_is_printed_as_none_is_none(score: float, named: str) -> None:
    record = record_of({"3 balanced": [0.6]})
    sentence = verdict(record, final_of("3 balanced", score))
    assert not unnamed(sentence, named, TITLES["tfidf"], f"{score:.4f}")
    assert "0.0 points" not in sentence


def test_who_went_furthest_comes_first_by_negative_scores_too() -> None:
    scores: dict[str, list[float | None]] = {
        "out": [-0.6],
        "worse": [-0.1, -0.3],
        "better": [-0.2, -0.2],
        "bad": [None],
    }
    table = trials_table(record_of(scores, metric="pearson"))
    assert [line[0] for line in table.lines] == ["better", "worse", "out", "bad"]


def test_the_chart_holds_what_was_delivered_where_nothing_short_was_trained() -> None:
    record = replace(record_of({"3 balanced": []}), trials=[], finals=[final_of(TEACHER, 0.9)], delivered=TEACHER)
    assert [(point.name, point.score) for point in chart_points(record)] == [(TEACHER, 0.9), (TITLES["tfidf"], 0.8)]
    tried = record_of({"3 balanced": [0.6]}, finals=[final_of("3 balanced", 0.9)])
    assert [(point.name, point.score) for point in chart_points(tried)] == [
        ("3 balanced", 0.6),
        (TITLES["tfidf"], 0.7),
    ]
