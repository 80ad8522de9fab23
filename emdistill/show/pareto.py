"""The Pareto front: what nothing else beats on every count at once."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from emdistill.errors import DataError


def pareto_front(
    points: Sequence[Mapping[str, float]], *, lower: Collection[str] = (), higher: Collection[str] = ()
) -> set[int]:
    """Places of the points that no other point dominates.

    x dominates y where x is at least as good as y on every count, and better on one (Pareto, 1906).
    points   a count's name -> its value; other names in it are ignored
    lower    counts of which less is better: milliseconds, bytes
    higher   counts of which more is better: a score
    Equal points do not dominate each other: they are on the front together, or not at all.
    Raises DataError for a point without one of the counts, or with a value that is no finite number.
    """
    signs = dict.fromkeys(lower, 1.0) | dict.fromkeys(higher, -1.0)
    costs = np.array([[sign * point.get(name, np.nan) for name, sign in signs.items()] for point in points])
    costs = costs.reshape(len(points), len(signs))
    for place, count in np.argwhere(~np.isfinite(costs)):
        name = list(signs)[count]
        raise DataError(f"point {place} has no finite '{name}': {points[place].get(name)}; leave such points out")
    dominates = (costs[:, None] <= costs).all(axis=2) & (costs[:, None] < costs).any(axis=2)
    return set(np.flatnonzero(~dominates.any(axis=0)).tolist())
