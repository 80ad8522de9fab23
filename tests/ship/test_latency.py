"""Calls timed in turns, and the size of tiny random models."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from emdistill.models.size import model_size, parameter_count
from emdistill.ship import latency
from emdistill.ship.latency import summarise, time_in_turns, torch_threads


class Clock:
    """A clock that only the timed calls move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.seen: list[tuple[str, int]] = []
        monkeypatch.setattr(latency, "perf_counter", lambda: self.now)
        monkeypatch.setattr(latency, "thread_time", lambda: self.now)

    def lasting(self, name: str, seconds: float) -> Callable[[int], None]:
        def call(index: int) -> None:
            self.seen.append((name, index))
            self.now += seconds

        return call

    @property
    def order(self) -> str:
        return "".join(name for name, _ in self.seen)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_contenders_take_turns_in_rotating_order_and_warm_up_is_untimed(clock: Clock) -> None:
    contenders = {"a": clock.lasting("a", 1.0), "b": clock.lasting("b", 2.0)}
    times = time_in_turns(contenders, rounds=3, calls=2, seconds=float("inf"))
    assert clock.order == "aaabbb" + "bbbaaa" + "aaabbb"
    assert times == {"a": [1.0] * 6, "b": [2.0] * 6}
    assert [index for name, index in clock.seen if name == "a"] == [0, 0, 1, 2, 2, 3, 4, 4, 5]


def test_slow_contenders_are_timed_less_often_but_three_times(clock: Clock) -> None:
    contenders = {"slow": clock.lasting("s", 10.0), "fast": clock.lasting("f", 0.02)}
    times = time_in_turns(contenders, rounds=5, calls=4, seconds=1.0)
    assert len(times["slow"]) == 3
    assert len(times["fast"]) == 20
    assert clock.order.startswith("ss" + "fffff" + "fffff" + "ss" + "ss")  # a turn of the slow one is one timed call


def test_a_turn_of_fast_calls_has_more_of_them(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "LEAST_TURN", 0.5)
    times = time_in_turns({"a": clock.lasting("a", 0.125), "b": clock.lasting("b", 0.25)}, rounds=2, calls=3)
    assert {name: len(taken) for name, taken in times.items()} == {"a": 8, "b": 6}


def test_a_turn_ends_when_its_share_of_the_time_is_spent(clock: Clock) -> None:
    times = time_in_turns({"a": clock.lasting("a", 0.25)}, rounds=2, calls=10, seconds=2.0)
    assert len(times["a"]) == 8
    assert time_in_turns({}) == {}


def test_a_fast_call_is_warmed_up_as_long_as_a_slow_one(clock: Clock) -> None:
    contenders = {"f": clock.lasting("f", 0.25), "s": clock.lasting("s", 8.0)}
    time_in_turns(contenders, rounds=1, calls=1, warm_up=1.0, seconds=float("inf"))
    assert clock.order == "ffff" + "f" + "s" + "s"


def test_percentiles_and_throughput() -> None:
    seconds = list(np.random.default_rng(0).exponential(size=37))
    found = summarise(seconds, batch_size=4)
    ordered = sorted(seconds)
    assert found.p50 == pytest.approx(1000 * ordered[18])
    assert found.p95 == pytest.approx(1000 * (0.8 * ordered[34] + 0.2 * ordered[35]))  # place 0.95 · 36 = 34.2
    assert found.p99 == pytest.approx(1000 * (0.36 * ordered[35] + 0.64 * ordered[36]))
    assert found.throughput == pytest.approx(4 / ordered[18])
    assert found.calls == 37


def test_threads_are_set_and_restored_after_an_error_too() -> None:
    before = torch.get_num_threads()

    def inside() -> None:
        with torch_threads(before + 1):
            assert torch.get_num_threads() == before + 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        inside()
    assert torch.get_num_threads() == before


def test_shared_parameters_count_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.Linear(3, 2))
    assert parameter_count(model) == 9 + 9 + 8
    model[1].weight = model[0].weight
    assert parameter_count(model) == 9 + 8
    assert model_size(model) == 4 * (9 + 8)
    assert model_size(model.to(torch.bfloat16)) == 2 * (9 + 8)
