"""What a term weighs as training goes on: functions of progress, the share of the training that is done, 0 to 1."""

from collections.abc import Callable


def fade(progress: float) -> float:
    """1 − p: from 1 at the first step down to 0."""
    return 1.0 - progress


def grow(progress: float) -> float:
    """p: from 0 at the first step up to 1."""
    return progress


SCHEDULES: dict[str, Callable[[float], float]] = {"fade": fade, "grow": grow}
