"""What a compression says of its record: who is ahead, who went furthest, and what the charts hold."""

from dataclasses import replace

import pytest
from compressions import final_of, record_of
from messages import unnamed

from emdistill.console import ABSENT
from emdistill.runs.baseline_record import TITLES
from emdistill.runs.compression import TEACHER, PlanRow
from emdistill.show.compress_report import chart_points, plan_line, trials_table, verdict


@pytest.mark.parametrize(
    ("score", "named"), [(0.7998, "level"), (0.8002, "level"), (0.79, "take"), (0.81, "1.0 points above")]
)
def test_a_difference_that_is_printed_as_none_is_none(score: float, named: str) -> None:
    record = record_of({"3 balanced": [0.6]})
    sentence = verdict(record, final_of("3 balanced", score))
    assert not unnamed(sentence, named, TITLES["tfidf"], f"{score:.4f}")
    assert "0.0 points" not in sentence


@pytest.mark.parametrize(("score", "points"), [(0.81, "1.0 points above"), (0.79, "1.0 points below")])
def test_a_baseline_that_misses_the_budget_is_named_where_none_keeps_it(score: float, points: str) -> None:
    record = record_of({"3 balanced": [0.6]})
    record.budget = "0.001 ms"
    sentence = verdict(record, final_of("3 balanced", score))
    assert not unnamed(sentence, points, TITLES["tfidf"], "misses")
    assert "take" not in sentence


def test_what_the_time_leaves_out_is_said_with_the_hours_that_would_not() -> None:
    whole = PlanRow(candidates=("3 balanced",), shares=(), finals=1)
    assert "--hours" not in plan_line(whole, fitting=1, texts=0, hours=0.11)
    for plan, fitting, texts in (
        (whole, 2, 0),
        (replace(whole, scale=0.5), 1, 0),
        (replace(whole, unlabelled_rows=10), 1, 20),
    ):
        assert "--hours 0.2" in plan_line(plan, fitting=fitting, texts=texts, hours=0.11)


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
    tried = record_of({"3 balanced": [0.6], "2 balanced": [0.5]}, finals=[final_of("3 balanced", 0.9, held_out=0.65)])
    assert [(point.name, point.score) for point in chart_points(tried)] == [
        ("3 balanced", 0.65),
        ("2 balanced", 0.5),
        (TITLES["tfidf"], 0.7),
    ]


def test_who_learned_whole_at_once_has_its_score_under_the_whole_training() -> None:
    record = record_of({"slow": [0.6, 0.8], "bag": [0.7], "other": [0.5]})
    assert record.plan is not None
    record.plan = replace(record.plan, quick=("bag",))
    table = trials_table(record)
    assert [heading.split()[-1] for heading in table.headings] == ["candidate", "10%", "30%", "100%"]
    assert table.lines[0] == ["bag", ABSENT, ABSENT, "0.7000"]
    assert table.lines[1] == ["slow", "0.6000", "0.8000", ABSENT]
