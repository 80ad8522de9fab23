"""Batches of several tasks: one task each, small tasks repeated, the order a function of seed and epoch."""

from collections import Counter

import numpy as np
import pytest

from emdistill.data.mixed_batches import MixtureSampler, batches_in_order
from emdistill.tasks.mixture import batch_counts

SIZES = [7, 40, 200]
TASKS = [task for task, size in enumerate(SIZES) for _ in range(size)]
LENGTHS = np.random.default_rng(0).integers(3, 60, len(TASKS)).tolist()


def sampler(seed: int = 3, **options: float) -> MixtureSampler:
    return MixtureSampler(TASKS, LENGTHS, 8, seed, **options)


def epoch(number: int, seed: int = 3) -> list[list[int]]:
    drawn = sampler(seed)
    drawn.set_epoch(number)
    assert len(drawn) == len(list(drawn))
    return list(drawn)


def test_a_batch_is_of_one_task_in_tempered_numbers() -> None:
    batches = epoch(0)
    assert all(len(batch) == 8 and len({TASKS[row] for row in batch}) == 1 for batch in batches)
    counts = Counter(TASKS[batch[0]] for batch in batches)
    assert [counts[task] for task in range(3)] == batch_counts(SIZES, 8)


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    assert epoch(4) == epoch(4)
    assert epoch(4) != epoch(5)
    assert epoch(4) != epoch(4, seed=4)


def test_rows_of_a_task_come_equally_often() -> None:
    """Over many epochs no row of a task has come twice more than another."""
    seen = Counter(row for number in range(9) for batch in epoch(number) for row in batch)
    for task in range(3):
        counts = [seen[row] for row, of in enumerate(TASKS) if of == task]
        assert max(counts) - min(counts) <= 1


def test_like_lengths_share_a_batch() -> None:
    spread = [max(LENGTHS[row] for row in batch) - min(LENGTHS[row] for row in batch) for batch in epoch(0)]
    assert np.mean(spread) < 20


@pytest.mark.parametrize("size", [1, 3, 64])
def test_batches_in_order_keep_the_order_and_the_tasks_apart(size: int) -> None:
    tasks = [0, 0, 0, 1, 2, 2]
    batches = batches_in_order(tasks, size)
    assert [row for batch in batches for row in batch] == [0, 1, 2, 3, 4, 5]
    assert all(len(batch) <= size and len({tasks[row] for row in batch}) == 1 for batch in batches)
    assert len(batches) == {1: 6, 3: 3, 64: 3}[size]
