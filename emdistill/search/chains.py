"""Chains of operators as candidates: what there is of a block, what it costs, which of a size survive, what fits.

A teacher is cut into blocks; for each there are candidates, sequences of 1 to K operators. A chain is a candidate per
block, its loss, parameters and milliseconds the sums over its blocks. Pure functions, after NAS-BERT (Xu et al., KDD
2021, arXiv 2105.14444), section 3.
"""

import heapq
import itertools
import math
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from emdistill.errors import ConfigError

BlockCandidate = tuple[str, ...]
MOST_CANDIDATES = 100_000  # of a block: four operators in four layers are 87,380


@dataclass(frozen=True)
class ChainCost:
    """What an operator, a candidate or a chain takes: parameters, and milliseconds per text."""

    parameters: int
    milliseconds: float

    def __add__(self, other: "ChainCost") -> "ChainCost":
        return ChainCost(self.parameters + other.parameters, self.milliseconds + other.milliseconds)


NOTHING = ChainCost(0, 0.0)


@dataclass(frozen=True)
class Limit:
    """The most that a student may take; None: as much as it likes."""

    parameters: int | None = None
    milliseconds: float | None = None

    def allows(self, cost: ChainCost) -> bool:
        """Whether a student of this cost keeps the limit."""
        most = [math.inf if limit is None else limit for limit in (self.parameters, self.milliseconds)]
        return cost.parameters <= most[0] and cost.milliseconds <= most[1]

    def __str__(self) -> str:
        parts = [f"{self.parameters / 1e6:g}M"] if self.parameters is not None else []
        parts += [f"{self.milliseconds:g}ms"] if self.milliseconds is not None else []
        return "/".join(parts) or "any"


@dataclass(frozen=True)
class Chain:
    """A candidate per block, and what they lose and take together; `cost` with what is outside the blocks."""

    blocks: tuple[BlockCandidate, ...]
    loss: float
    cost: ChainCost

    @property
    def word(self) -> str:
        """As `--student chain:WORD` takes it."""
        return "".join(itertools.chain(*self.blocks))


def read_limits(text: str) -> list[Limit]:
    """'16M/8ms,14M,5ms' -> a Limit each; raises ConfigError for what is none."""
    return [_read_limit(part.strip()) for part in text.split(",")]


def _read_limit(text: str) -> Limit:
    limits: dict[str, float] = {}
    for part in [] if text == "any" else text.split("/"):
        unit = "ms" if part.endswith("ms") else part[-1:]
        try:
            value = float(part.removesuffix(unit))
        except ValueError:
            value = math.nan
        if unit not in ("M", "ms") or unit in limits or not 0 < value < math.inf:
            raise ConfigError(f"--limits {text}: a limit is 16M (parameters), 8ms, both as 16M/8ms, or any")
        limits[unit] = value
    return Limit(round(limits["M"] * 1e6) if "M" in limits else None, limits.get("ms"))


def check_reach(limits: Sequence[Limit], operators: Sequence[ChainCost], blocks: int, outside: ChainCost) -> None:
    """Raise ConfigError for a limit that no chain keeps: a block has one operator at least."""
    least = ChainCost(
        outside.parameters + blocks * min(cost.parameters for cost in operators),
        outside.milliseconds + blocks * min(cost.milliseconds for cost in operators),
    )
    for limit in limits:
        if not limit.allows(least):
            raise ConfigError(
                f"--limits {limit}: the smallest chain of these operators has {least.parameters / 1e6:.4g}M "
                f"parameters, the fastest takes {least.milliseconds:.3g}ms; give more, or a smaller teacher"
            )


def candidates(operators: Sequence[str], places: int) -> Iterator[BlockCandidate]:
    """All sequences of 1 to `places` operators, Σ_k n^k: shorter ones are those with the identity at their tail."""
    for length in range(1, places + 1):
        yield from itertools.product(operators, repeat=length)


def check_count(operators: Sequence[str], layers: int, blocks: int) -> None:
    """Raise ConfigError where a block has more candidates than can be listed, and all of them judged at the end."""
    size = -(-layers // blocks)  # of the largest block
    count = sum(len(operators) ** length for length in range(1, 2 * size + 1))
    if count > MOST_CANDIDATES:
        raise ConfigError(
            f"--blocks {blocks}: a block of {size} of the teacher's {layers} layers has {count:,} candidates of "
            f"{len(operators)} operators, and {MOST_CANDIDATES:,} are the most; give more blocks, up to {layers}, or "
            "fewer --operators"
        )


def cost_of(candidate: BlockCandidate, table: Mapping[str, ChainCost]) -> ChainCost:
    """The sum over its operators."""
    return sum((table[name] for name in candidate), NOTHING)


def bins_of(costs: Sequence[ChainCost], bins: int) -> list[int]:
    """The bin of each: the least b in 1..bins with parameters ≤ b/bins of the most, and milliseconds likewise."""
    most = ChainCost(max(cost.parameters for cost in costs), max(cost.milliseconds for cost in costs))

    def bin_of(cost: ChainCost) -> int:
        shares = cost.parameters / most.parameters, cost.milliseconds / most.milliseconds
        return max(math.ceil(bins * share - 1e-9) for share in shares)

    return [max(1, bin_of(cost)) for cost in costs]


def drawn(
    bins: Mapping[BlockCandidate, int], survivors: Collection[BlockCandidate], most: int, seed: str
) -> list[BlockCandidate]:
    """At most so many survivors of each bin, drawn at random: those that are judged next."""
    generator, found = random.Random(seed), []
    for members in _by_bin(bins, survivors).values():
        found += members if len(members) <= most else generator.sample(members, most)
    return found


def shrunk(
    bins: Mapping[BlockCandidate, int],
    survivors: Collection[BlockCandidate],
    losses: Mapping[BlockCandidate, float],
    least: int,
) -> list[BlockCandidate]:
    """The survivors without the worse half of those judged in each bin, but at least so many of the bin.

    losses   of those judged; the others survive
    """
    kept = []
    for members in _by_bin(bins, survivors).values():
        judged = sorted((name for name in members if name in losses), key=lambda name: (losses[name], name))
        dropped = max(0, min(len(judged) // 2, len(members) - least))
        worst = set(judged[len(judged) - dropped :])
        kept += [name for name in members if name not in worst]
    return kept


def _by_bin(
    bins: Mapping[BlockCandidate, int], survivors: Collection[BlockCandidate]
) -> dict[int, list[BlockCandidate]]:
    groups: dict[int, list[BlockCandidate]] = {}
    for name in sorted(survivors):
        groups.setdefault(bins[name], []).append(name)
    return dict(sorted(groups.items()))


def best_chains(
    losses: Sequence[Mapping[BlockCandidate, float]],
    costs: Mapping[BlockCandidate, ChainCost],
    limit: Limit,
    count: int,
    outside: ChainCost = NOTHING,
) -> list[Chain]:
    """The `count` chains of least loss within the limit, the best first: branch and bound, exact.

    losses    of each block's candidates
    costs     of every candidate
    outside   what a chain takes beside its blocks
    A branch ends where its loss and the least that the blocks behind it can add exceed the worst of `count` chains, or
    where even the smallest candidates behind it break the limit.
    """
    tables = [sorted(block.items(), key=lambda item: (item[1], item[0])) for block in losses]
    least_loss = _behind([table[0][1] for table in tables])
    least_parameters = _behind([min(costs[name].parameters for name, _ in table) for table in tables])
    least_time = _behind([min(costs[name].milliseconds for name, _ in table) for table in tables])
    best: list[tuple[float, int, Chain]] = []  # a heap, the worst first
    numbers = itertools.count()

    def extend(blocks: tuple[BlockCandidate, ...], loss: float, cost: ChainCost) -> None:
        place = len(blocks)
        if not limit.allows(cost + ChainCost(int(least_parameters[place]), least_time[place])):
            return
        if place == len(tables):
            heapq.heappush(best, (-loss, -next(numbers), Chain(blocks, loss, cost)))
            if len(best) > count:
                heapq.heappop(best)
            return
        for name, own in tables[place]:
            if len(best) == count and loss + own + least_loss[place + 1] >= -best[0][0]:
                return  # the candidates behind lose more
            extend((*blocks, name), loss + own, cost + costs[name])

    extend((), 0.0, outside)
    return [chain for _, _, chain in sorted(best, key=lambda entry: (-entry[0], -entry[1]))]


def _behind(values: Sequence[float]) -> list[float]:
    """[Σ of all, Σ without the first, …, 0]."""
    return [*itertools.accumulate(reversed(values), initial=0.0)][::-1]
