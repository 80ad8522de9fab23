"""The Pareto front, by hand and against its definition."""

import numpy as np
import pytest
from messages import names

from emdistill.errors import DataError
from emdistill.show.pareto import pareto_front


def by_definition(points: list[dict[str, float]], lower: list[str], higher: list[str]) -> set[int]:
    """Every point held against every other."""

    def beaten(one: dict[str, float], other: dict[str, float]) -> bool:
        gains = [one[name] - other[name] for name in lower] + [other[name] - one[name] for name in higher]
        return min(gains) >= 0 and max(gains) > 0

    return {place for place, one in enumerate(points) if not any(beaten(one, other) for other in points)}


@pytest.mark.parametrize("draw", range(60))
def test_the_front_is_that_of_the_definition(draw: int) -> None:
    random = np.random.default_rng(draw)
    names = ["ms", "bytes", "accuracy", "f1"]
    lower = names[: int(random.integers(0, 3))]
    higher = names[2 : 2 + int(random.integers(0 if lower else 1, 3))]
    levels = int(random.choice([2, 4, 1000]))  # few levels make many ties
    values = random.integers(0, levels, (int(random.integers(1, 40)), 4)).astype(float)
    points = [dict(zip(names, row, strict=True)) for row in values.tolist()]
    front = pareto_front(points, lower=lower, higher=higher)
    assert front == by_definition(points, lower, higher)
    assert front

    order = random.permutation(len(points)).tolist()
    moved = pareto_front([points[place] for place in order], lower=lower, higher=higher)
    assert {order[place] for place in moved} == front
    kept = [points[place] for place in sorted(front)]
    assert pareto_front(kept, lower=lower, higher=higher) == set(range(len(kept)))


def test_a_front_by_hand() -> None:
    points = [
        {"ms": 2.0, "accuracy": 0.80},
        {"ms": 1.0, "accuracy": 0.75},
        {"ms": 2.0, "accuracy": 0.79},  # as slow as the first, and worse
        {"ms": 3.0, "accuracy": 0.80},  # as good as the first, and slower
        {"ms": 9.0, "accuracy": 0.90},
        {"ms": 1.0, "accuracy": 0.75},  # the second again
    ]
    assert pareto_front(points, lower=["ms"], higher=["accuracy"]) == {0, 1, 4, 5}
    assert pareto_front(points, lower=["ms"]) == {1, 5}
    assert pareto_front(points, higher=["accuracy"]) == {4}
    assert pareto_front([], lower=["ms"]) == set()


@pytest.mark.parametrize("point", [{}, {"ms": float("nan")}, {"ms": float("inf")}])
def test_a_point_without_a_number_is_refused(point: dict[str, float]) -> None:
    with names(DataError, "point 1", "'ms'"):
        pareto_front([{"ms": 1.0}, point], lower=["ms"])
