"""Batches of several tasks' rows: each batch of one task, small tasks repeated."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from emdistill.data.batches import BATCHES_PER_POOL
from emdistill.tasks.mixture import TEMPER, batch_counts


class MixtureSampler(Sampler[list[int]]):
    """Batches of one task each, in numbers as of `batch_counts`; the order is a function of (seed, epoch) alone.

    tasks    the task's number of every row
    lengths  tokens of every row: like lengths share a batch
    Each task's rows come in passes, each shuffled anew; an epoch goes on where the one before left off, so that rows
    of a large task are not passed over, and those of a small one come equally often.
    """

    def __init__(
        self,
        tasks: Sequence[int],
        lengths: Sequence[int],
        batch_size: int,
        seed: int,
        *,
        temper: float = TEMPER,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.rows = [np.flatnonzero(np.asarray(tasks) == task) for task in range(max(tasks, default=-1) + 1)]
        self.counts = batch_counts([len(rows) for rows in self.rows], batch_size, temper, weights)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return sum(self.counts)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    def batches(self) -> list[list[int]]:
        """The epoch's batches in order."""
        batches = [batch for task in range(len(self.rows)) for batch in self._of_task(task)]
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(batches))
        return [batches[place] for place in order]

    def __iter__(self) -> Iterator[list[int]]:
        yield from self.batches()

    def _of_task(self, task: int) -> Iterator[list[int]]:
        rows = self._drawn(task)
        pool = self.batch_size * BATCHES_PER_POOL
        for start in range(0, len(rows), pool):
            part = rows[start : start + pool]
            part = part[np.argsort(-self.lengths[part], kind="stable")]
            for place in range(0, len(part), self.batch_size):
                yield part[place : place + self.batch_size].tolist()

    def _drawn(self, task: int) -> np.ndarray:
        """The rows of a task that the epoch meets, from its endless row of shuffled passes."""
        rows = self.rows[task]
        count = self.counts[task] * self.batch_size
        first = self.epoch * count
        passes = range(first // len(rows), (first + count - 1) // len(rows) + 1)
        shuffled = [np.random.default_rng([self.seed, task, number]).permutation(rows) for number in passes]
        start = first % len(rows)
        return np.concatenate(shuffled)[start : start + count]


def batches_in_order(tasks: Sequence[int], batch_size: int) -> list[list[int]]:
    """The rows in their order, cut into batches of one task each."""
    batches: list[list[int]] = []
    for row, task in enumerate(tasks):
        if batches and len(batches[-1]) < batch_size and tasks[batches[-1][0]] == task:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
