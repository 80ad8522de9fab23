"""How often each task is met, and what several score together."""

import math
from fractions import Fraction
from typing import Any

import pytest
from messages import names

from emdistill.errors import ConfigError
from emdistill.tasks.mixture import batch_counts, joint_scores, shares

SIZES = [2490, 3668, 5749, 8551]  # RTE, MRPC, STS-B, CoLA


@pytest.mark.parametrize("temper", [0.0, 0.5, 0.75, 1.0])
def test_shares_are_sizes_to_the_power(temper: float) -> None:
    powers = [size**temper * weight for size, weight in zip(SIZES, [1, 2, 1, 1], strict=True)]
    expected = [power / math.fsum(powers) for power in powers]
    assert shares(SIZES, temper, [1, 2, 1, 1]).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temper", [0.0, 0.75, 1.0])
@pytest.mark.parametrize("batch_size", [1, 32, 5000])
def test_an_epoch_has_as_many_rows_as_all_tasks_together(temper: float, batch_size: int) -> None:
    counts = batch_counts(SIZES, batch_size, temper)
    total = max(len(SIZES), math.ceil(Fraction(sum(SIZES), batch_size)))
    assert sum(counts) == total
    exact = total * shares(SIZES, temper)
    assert all(count >= 1 and (count == 1 or abs(count - e) < 1) for count, e in zip(counts, exact, strict=True))


def test_a_tiny_task_comes_at_least_once() -> None:
    assert batch_counts([1, 1_000_000], 100, 1.0) == [1, 10_000]


@pytest.mark.parametrize(
    ("sizes", "temper", "weights", "token"),
    [([3, 4], 1.5, None, 1.5), ([3, 4], -0.1, None, -0.1), ([3, 4], 0.75, [1.0, 0.0], 0), ([3, 0], 0.75, None, "")],
)
def test_what_is_no_share_is_refused(sizes: list[int], temper: float, weights: Any, token: object) -> None:
    with names(ConfigError, token):
        shares(sizes, temper, weights)


def test_joint_scores() -> None:
    scores = joint_scores({"a": {"accuracy": 0.5, "f1": 0.1}, "b": {"pearson": 0.9}}, {"a": "accuracy", "b": "pearson"})
    assert scores == {"mean": pytest.approx(0.7), "a/accuracy": 0.5, "a/f1": 0.1, "b/pearson": 0.9}
