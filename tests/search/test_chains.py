"""What there is, what it costs, what survives and what fits, against counting all of it."""

import itertools
import random

import pytest
from messages import names

from emdistill.errors import ConfigError
from emdistill.search.chains import (
    BlockCandidate,
    Chain,
    ChainCost,
    Limit,
    best_chains,
    bins_of,
    candidates,
    check_count,
    cost_of,
    drawn,
    read_limits,
    shrunk,
)

TABLE = {"a": ChainCost(4, 2.0), "f": ChainCost(8, 1.0), "c3": ChainCost(1, 0.5)}


def test_a_block_has_all_sequences() -> None:
    found = list(candidates(list(TABLE), 3))
    assert len(found) == len(set(found)) == 3 + 9 + 27
    assert ("c3", "a", "a") in found
    assert sum(1 for _ in candidates("abcde", 6)) == 19_530  # NAS-BERT counts 5 widths of each: 97,650
    assert cost_of(("a", "c3", "f"), TABLE) == ChainCost(13, 3.5)


def test_a_bin_keeps_both_of_its_limits() -> None:
    costs = [ChainCost(10, 1.0), ChainCost(5, 1.0), ChainCost(5, 2.0), ChainCost(1, 0.1), ChainCost(6, 0.2)]
    assert bins_of(costs, 2) == [2, 1, 2, 1, 2]
    assert bins_of(costs, 10) == [10, 5, 10, 1, 6]


def test_the_worse_half_of_the_judged_goes_and_a_bin_keeps_its_least() -> None:
    bins = {(letter,): 1 + (letter in "xyz") for letter in "abcdefxyz"}
    losses = {(letter,): float(place) for place, letter in enumerate("abcdxyz")}
    kept = shrunk(bins, list(bins), losses, 3)
    assert kept == [(letter,) for letter in "abefxyz"]  # of the second bin all three are its least
    assert shrunk(bins, list(bins), losses, 2) == [(letter,) for letter in "abefxy"]
    assert shrunk(bins, list(bins), losses, 5) == [(letter,) for letter in "abcefxyz"]


def test_those_judged_are_drawn_from_each_bin() -> None:
    bins = {(f"{number:02d}",): number // 10 for number in range(30)}
    found = drawn(bins, list(bins), 4, "seed")
    assert [sum(bins[name] == group for name in found) for group in range(3)] == [4, 4, 4]
    assert drawn(bins, reversed(bins), 4, "seed") == found != drawn(bins, list(bins), 4, "other")
    assert len(drawn(bins, list(bins), 40, "seed")) == 30


@pytest.mark.parametrize("limit", [Limit(), Limit(30), Limit(None, 4.0), Limit(25, 3.0), Limit(3), Limit(2, 1.0)])
def test_the_best_chains_are_those_of_all_that_fit(limit: Limit) -> None:
    generator, outside = random.Random(1), ChainCost(1, 0.25)
    names_of = list(candidates(list(TABLE), 2))
    costs = {name: cost_of(name, TABLE) for name in names_of}
    losses: list[dict[BlockCandidate, float]] = [
        {name: generator.random() for name in generator.sample(names_of, 9)} for _ in range(3)
    ]
    every = [
        Chain(blocks, sum(own[name] for own, name in zip(losses, blocks, strict=True)), cost)
        for blocks in itertools.product(*losses)
        if limit.allows(cost := sum((costs[name] for name in blocks), outside))
    ]
    expected = sorted(every, key=lambda chain: chain.loss)[:7]
    found = best_chains(losses, costs, limit, 7, outside)
    assert [chain.blocks for chain in found] == [chain.blocks for chain in expected]
    assert [chain.cost.parameters for chain in found] == [chain.cost.parameters for chain in expected]
    assert [chain.loss for chain in found] == pytest.approx([chain.loss for chain in expected])


def test_a_chain_is_written_as_a_student() -> None:
    assert Chain((("a", "c3"), ("d9",)), 0.0, ChainCost(1, 1.0)).word == "ac3d9"


def test_a_block_of_countless_candidates_is_refused() -> None:
    check_count("afcd", 12, 3)
    check_count("a", 200, 1)
    for layers, blocks, size in ((12, 1, 12), (12, 2, 6), (13, 3, 5)):
        with names(ConfigError, f"--blocks {blocks}", size, layers, "--operators"):
            check_count("afcd", layers, blocks)


def test_limits_are_read() -> None:
    assert read_limits("16M/8ms, 14.5M,5ms,any") == [
        Limit(16_000_000, 8.0), Limit(14_500_000), Limit(None, 5.0), Limit()
    ]  # fmt: skip
    assert not read_limits("0.0000004M")[0].allows(ChainCost(1, 1.0))  # rounded to 0, which is a limit too
    assert [str(limit) for limit in read_limits("16M/8ms,5ms,any")] == ["16M/8ms", "5ms", "any"]
    for wrong in ("16", "M", "8 s", "-1M", "1M/2M", "0ms", "", "5ms/", "/"):
        with names(ConfigError, f"--limits {wrong}"):
            read_limits(wrong)
