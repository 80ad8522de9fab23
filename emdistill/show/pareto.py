"""The Pareto front: what nothing else beats on every count at once."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from emdistill.errors import DataError


def pareto_front(
    points: Sequence[Mapping[str, float]], *, lower: Collection[str] = (), higher: Collection[str] = ()
) -> set[int]:
    """Places of the points that no other point dominates.

    x dominates y where x is at least as good as y on every count, and better on one (Pareto, 1906).
    points   a count's name -> its value; other names in it are not looked at
    lower    counts of which less is better: milliseconds, bytes
    higher   counts of which more is better: a score
    Equal points do not dominate each other: they stand on the front together, or not at all.
    Raises DataError for a point without one of the counts, or with a value that is no finite number.
    """
    costs = [_costs(point, place, lower, higher) for place, point in enumerate(points)]
    front: list[int] = []
    # What dominates a point comes before it in this order, so that the front so far is all it has to stand up to.
    for place in sorted(range(len(costs)), key=costs.__getitem__):
        if not any(_dominates(costs[other], costs[place]) for other in front):
            front.append(place)
    return set(front)


def _costs(
    point: Mapping[str, float], place: int, lower: Collection[str], higher: Collection[str]
) -> tuple[float, ...]:
    """The counts, turned so that less is better of each."""
    for name in (*lower, *higher):
        if name not in point or not math.isfinite(point[name]):
            raise DataError(f"point {place} has no finite '{name}': {point.get(name)}; leave such points out")
    return (*(point[name] for name in lower), *(-point[name] for name in higher))


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(mine <= its for mine, its in zip(one, other, strict=True))
