"""Successive halving: many candidates learn a little, the better ones more, the best all there is.

Rung r gives each of its candidates the share s_r of a whole training; the best 1 / FACTOR of them by score on rows that
nobody learned from go on to rung r + 1. Source: Jamieson and Talwalkar, AISTATS 2016. A candidate that learns whole in
the time that the slowest one has at the first rung, or that a trial takes anyway, does so there, and takes that score
with it: a share of so little says nothing of it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

FACTOR = 3
SHARES = (1 / 9, 1 / 3)
LEAST_SHARE = 0.05  # of a whole training: less teaches nothing, even if the search takes longer than it may


@dataclass(frozen=True)
class Trial:
    """A candidate's score after the training of a rung; None where it could not be trained, for this problem."""

    candidate: str
    rung: int
    score: float | None
    seconds: float
    problem: str = ""


@dataclass(frozen=True)
class Plan:
    """Who is tried in which order, the share of a whole training at each rung, and what the whole one is.

    finals      how many candidates are trained whole
    scale       of the rows that a whole training learns from, so that the search keeps its time; at most 1
    quick       candidates whose only trial is a whole training
    per_trial   seconds that every trial takes besides: to begin, and to score
    """

    candidates: tuple[str, ...]
    shares: tuple[float, ...]
    finals: int
    scale: float = 1.0
    quick: tuple[str, ...] = ()
    per_trial: float = 0.0

    def share(self, candidate: str, rung: int) -> float:
        """Of a whole training that a candidate has at a rung."""
        return 1.0 if candidate in self.quick else self.shares[rung]

    def size(self, rung: int) -> int:
        """How many candidates a rung has."""
        return max(self.finals, math.ceil(len(self.candidates) / FACTOR**rung)) if rung else len(self.candidates)


def make_plan(
    seconds: Mapping[str, float], available: float, *, finals: int, per_trial: float, per_final: float
) -> Plan:
    """The largest search that keeps its time.

    seconds     of a whole training of each candidate, by name, the candidates that matter most first
    available   seconds for trials, whole trainings and exports
    per_trial   as of Plan
    per_final   seconds that every whole training takes besides: its export and measurement
    What does not fit is left out in this order: candidates from the end of the list, down to FACTOR for each whole
    training; whole trainings but one; the other candidates; steps of the last one, which learns for half of the time at
    least, however long its export takes.
    """
    names = tuple(seconds)
    for count, whole in _sizes(len(names), finals):
        plan = _plan({name: seconds[name] for name in names[:count]}, whole, per_trial)
        if plan_seconds(plan, seconds, per_final) <= available:
            return plan
    share = max(available - per_final, available / 2) / max(seconds[names[0]], 1e-9) if names else 1.0
    return Plan(names[:1], (), 1, min(1.0, max(share, LEAST_SHARE)))


def _plan(seconds: Mapping[str, float], finals: int, per_trial: float) -> Plan:
    """All of these candidates, by turns where they are more than can be trained whole."""
    if len(seconds) <= finals:
        return Plan(tuple(seconds), (), finals)
    limit = max(SHARES[0] * max(seconds.values()), per_trial)
    quick = tuple(name for name in seconds if seconds[name] <= limit)
    return Plan(tuple(seconds), SHARES, finals, quick=quick, per_trial=per_trial)


def _sizes(candidates: int, finals: int) -> Iterable[tuple[int, int]]:
    """(candidates, whole trainings), largest search first; FACTOR candidates for each whole training where possible."""
    for whole in range(min(finals, candidates), 0, -1):
        for count in range(candidates, min(candidates, FACTOR * whole) - 1, -1):
            yield count, whole
    yield from ((count, 1) for count in range(min(candidates, FACTOR) - 1, 0, -1))


def plan_seconds(plan: Plan, seconds: Mapping[str, float], per_final: float) -> float:
    """What a plan takes at most: at each rung, and at the end, the slowest of its candidates."""
    costs = sorted((seconds[name] for name in plan.candidates), reverse=True)
    slow = sorted((seconds[name] for name in plan.candidates if name not in plan.quick), reverse=True)
    rungs = [[plan.per_trial + share * each for each in slow[: plan.size(r)]] for r, share in enumerate(plan.shares)]
    quick = [plan.per_trial + seconds[name] for name in plan.quick]
    return sum(map(sum, rungs)) + sum(quick) + sum(costs[: plan.finals]) + plan.finals * per_final


def next_trial(plan: Plan, trials: Sequence[Trial]) -> tuple[str, int] | None:
    """The next (candidate, rung); None where every rung is done."""
    for rung in range(len(plan.shares)):
        done = {trial.candidate for trial in trials if trial.rung == rung or trial.candidate in plan.quick}
        for candidate in members(plan, rung, trials):
            if candidate not in done:
                return candidate, rung
    return None


def members(plan: Plan, rung: int, trials: Sequence[Trial]) -> list[str]:
    """Who is at a rung: all at the first, then the best of the rung below."""
    if rung == 0:
        return list(plan.candidates)
    return ranking(_standing(plan, rung - 1, trials))[: plan.size(rung)]


def _standing(plan: Plan, rung: int, trials: Sequence[Trial]) -> list[Trial]:
    """What those at a rung have come to there; the quick ones bring their scores with them."""
    there = members(plan, rung, trials)
    return [each for each in trials if each.candidate in there and (each.rung == rung or each.candidate in plan.quick)]


def finalists(plan: Plan, trials: Sequence[Trial]) -> list[str]:
    """All who may be trained whole, the best first: by the highest rung that each has been tried at, then by its score.

    The quick ones stand at every rung that they reach, once others were tried there.
    """
    if not plan.shares:
        return list(plan.candidates)
    order: list[str] = []
    for rung in range(len(plan.shares) - 1, -1, -1):
        if any(trial.rung == rung for trial in trials):
            order += [name for name in ranking(_standing(plan, rung, trials)) if name not in order]
    return order


def next_final(order: Iterable[str], done: Mapping[str, bool], finals: int) -> str | None:
    """Who is trained whole next: `finals` of them are, and further ones while none keeps the budget; None: nobody.

    order   who may be, the best first
    done    who was, and whether it keeps the budget as it was measured
    """
    if len(done) >= finals and any(done.values()):
        return None
    return next((name for name in order if name not in done), None)


def ranking(trials: Iterable[Trial]) -> list[str]:
    """The candidates by score, the best first; of equal ones the one tried first. Those without a score are out."""
    scored = [(trial.score, trial.candidate) for trial in trials if trial.score is not None]
    return [candidate for _, candidate in sorted(scored, key=lambda pair: -pair[0])]
