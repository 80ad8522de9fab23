"""Successive halving: who is tried how long, within the time, and who is trained whole."""

import numpy as np
import pytest

from emdistill.search.halving import Plan, Trial, finalists, make_plan, members, next_final, next_trial, plan_seconds


def play(plan: Plan, worth: dict[str, float]) -> list[Trial]:
    """All trials of a plan, a candidate's score being its worth, however long it has learned."""
    trials: list[Trial] = []
    while (chosen := next_trial(plan, trials)) is not None:
        name, rung = chosen
        trials.append(Trial(name, rung, worth[name], 1.0))
    return trials


def test_the_best_third_goes_on_and_the_best_are_trained_whole() -> None:
    worth = {f"c{number}": float(number) for number in range(9)}
    plan = Plan(tuple(worth), (1 / 9, 1 / 3), finals=2)
    trials = play(plan, worth)
    assert [trial.candidate for trial in trials if trial.rung == 0] == list(worth)
    assert members(plan, 1, trials) == ["c8", "c7", "c6"]
    assert finalists(plan, trials)[:4] == ["c8", "c7", "c6", "c5"]
    assert len({(trial.candidate, trial.rung) for trial in trials}) == len(trials)


def test_a_candidate_that_failed_goes_no_further() -> None:
    plan = Plan(("a", "b", "c"), (1 / 9, 1 / 3), finals=2)
    trials = [Trial("a", 0, None, 1.0), Trial("b", 0, 0.1, 1.0), Trial("c", 0, 0.2, 1.0)]
    assert members(plan, 1, trials) == ["c", "b"]
    assert finalists(plan, trials) == ["c", "b"]


def test_a_search_that_ends_early_trains_the_best_of_the_highest_rung() -> None:
    plan = Plan(("a", "b", "c", "d"), (1 / 9, 1 / 3), finals=3)
    trials = [Trial(name, 0, score, 1.0) for name, score in (("a", 0.9), ("b", 0.8), ("c", 0.7), ("d", 0.6))]
    trials.append(Trial("b", 1, 0.5, 1.0))
    assert finalists(plan, trials) == ["b", "a", "c", "d"]


def test_who_learns_whole_in_the_time_of_a_first_share_does_and_is_tried_no_more() -> None:
    seconds = {"slow": 900.0, "bag": 90.0, "half": 450.0, "third": 300.0}
    plan = make_plan(seconds, 10_000.0, finals=2, per_trial=5.0, per_final=10.0)
    assert plan.quick == ("bag",)
    assert make_plan(seconds, 10_000.0, finals=2, per_trial=300.0, per_final=10.0).quick == ("bag", "third")
    assert [plan.share(name, 0) for name in seconds] == [1 / 9, 1.0, 1 / 9, 1 / 9]
    trials = play(plan, {"slow": 0.8, "bag": 0.9, "half": 0.7, "third": 0.6})
    assert [trial.candidate for trial in trials] == ["slow", "bag", "half", "third", "slow"]
    assert members(plan, 1, trials) == ["bag", "slow"]
    assert finalists(plan, trials) == ["bag", "slow", "half", "third"]
    besides = 5 * len(trials) + 10 * plan.finals
    spent = 90 + (900 + 450 + 300) / 9 + 900 / 3 + 900 + 90 + besides
    assert spent <= plan_seconds(plan, seconds, 10.0) <= 10_000


def test_a_quick_one_is_before_the_others_only_where_they_were_tried_beside_it() -> None:
    plan = Plan(("slow", "bag", "half"), (1 / 9, 1 / 3), finals=2, quick=("bag",))
    trials = [Trial("slow", 0, 0.9, 1.0), Trial("bag", 0, 0.8, 1.0), Trial("half", 0, 0.7, 1.0)]
    assert finalists(plan, trials) == ["slow", "bag", "half"]
    assert finalists(plan, [*trials, Trial("slow", 1, 0.95, 1.0)]) == ["slow", "bag", "half"]
    assert next_trial(plan, [Trial("bag", 0, None, 1.0)]) == ("slow", 0)


def test_one_candidate_is_trained_at_once() -> None:
    plan = make_plan({"only": 100.0}, 1000.0, finals=3, per_trial=0.0, per_final=10.0)
    assert plan == Plan(("only",), (), 1)
    assert next_trial(plan, []) is None
    assert finalists(plan, []) == ["only"]


def test_the_next_best_is_trained_whole_while_none_keeps_the_budget() -> None:
    order = ["a", "b", "c"]
    assert next_final(order, {}, 1) == "a"
    assert next_final(order, {"a": True}, 1) is None
    assert next_final(order, {"a": True}, 2) == "b"
    assert next_final(order, {"a": False}, 1) == "b"
    assert next_final(["c"], {"a": False}, 1) == "c"  # b does not fit by what a has shown
    assert next_final(order, {"a": False, "b": True}, 1) is None
    assert next_final(order, dict.fromkeys(order, False), 1) is None


@pytest.mark.parametrize("seed", range(5))
def test_every_plan_keeps_its_time_and_more_time_plans_no_less(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seconds = {f"c{number}": float(value) for number, value in enumerate(rng.uniform(20, 600, size=8))}
    sizes = []
    for available in (700.0, 1500.0, 3000.0, 10_000.0):
        plan = make_plan(seconds, available, finals=3, per_trial=8.0, per_final=60.0)
        assert plan_seconds(plan, seconds, 60.0) <= available or plan.scale < 1
        trials = play(plan, {name: float(rng.random()) for name in seconds})
        spent = sum(8.0 + plan.share(trial.candidate, trial.rung) * seconds[trial.candidate] for trial in trials)
        spent += plan.scale * sum(seconds[name] for name in finalists(plan, trials)[: plan.finals]) + 60.0 * plan.finals
        assert spent <= available + 1e-6
        sizes.append((plan.finals, len(plan.candidates)))
    assert sizes == sorted(sizes)


def test_where_there_is_hardly_any_time_one_candidate_learns_from_a_part() -> None:
    plan = make_plan({"a": 1000.0, "b": 900.0}, 400.0, finals=3, per_trial=0.0, per_final=100.0)
    assert plan == Plan(("a",), (), 1, pytest.approx(0.3))
    plan = make_plan({"a": 1000.0, "b": 900.0}, 120.0, finals=3, per_trial=0.0, per_final=100.0)
    assert plan == Plan(("a",), (), 1, pytest.approx(0.06))
    assert make_plan({"quick": 5.0}, 20.0, finals=3, per_trial=0.0, per_final=100.0) == Plan(("quick",), (), 1)
