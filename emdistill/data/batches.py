"""Sentences into batches: tokenised once, grouped by length, padded only to the longest of their batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from emdistill.errors import ConfigError

BATCHES_A_POOL = 50


def tokenise(
    examples: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, *, regression: bool = False
) -> Dataset:
    """Token ids of every example, unpadded, with its `labels` and its `length` in tokens.

    examples   columns `text`, optionally `text_pair` and `label`
    max_length tokens at most, special ones included; the longer of a pair is cut first
    """
    columns = [name for name in ("text", "text_pair") if name in examples.column_names]

    def encode(rows: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        texts = [rows[name] for name in columns]
        encoded: dict[str, list[Any]] = dict(tokenizer(*texts, truncation=True, max_length=max_length))
        encoded["length"] = [len(ids) for ids in encoded["input_ids"]]
        if "label" in rows:
            encoded["labels"] = [float(label) for label in rows["label"]] if regression else rows["label"]
        return encoded

    # In memory and uncached: the same files read twice in one process must never meet a stale cache.
    return Dataset.from_dict(encode(examples.to_dict()))


def padding_collator(tokenizer: PreTrainedTokenizerBase) -> DataCollatorWithPadding:
    """Pad a batch to its longest sentence."""
    return DataCollatorWithPadding(tokenizer)


def share_of_padding(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """Padded positions as a share of all positions: 1 - Σ length / Σ (batch size · longest of batch)."""
    tokens = sum(lengths[index] for batch in batches for index in batch)
    positions = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
    return 1 - tokens / positions


class LengthGroupedSampler(Sampler[int]):
    """Every index once an epoch, neighbours of like length, the order a function of (seed, epoch) alone.

    A shuffled pool of 50 batches is sorted by length and cut into batches, then the batches are shuffled, so that
    batches hold little padding and an interrupted epoch is resumed in the order it began with.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = list(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration follows."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def batches(self) -> list[list[int]]:
        """The epoch's batches in order; the one short batch, if any, comes last."""
        generator = _generator(self.seed, self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        pool = self.batch_size * BATCHES_A_POOL
        grouped: list[int] = []
        for start in range(0, len(order), pool):
            grouped += sorted(order[start : start + pool], key=lambda index: -self.lengths[index])
        batches = [grouped[start : start + self.batch_size] for start in range(0, len(grouped), self.batch_size)]
        short = [batches.pop()] if batches and len(batches[-1]) < self.batch_size else []
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        return [batches[index] for index in shuffled] + short

    def __iter__(self) -> Iterator[int]:
        for batch in self.batches():
            yield from batch


class TokenBudgetSampler(Sampler[list[int]]):
    """Batches of sentences of like length, as many as keep sentences × longest within `tokens`.

    Every index once an epoch, the order a function of (seed, epoch) alone. Sentences of one length change places
    from epoch to epoch and the batches are shuffled, but their number stays, so that a schedule counts right.
    Raises ConfigError where one sentence alone exceeds the budget.
    """

    def __init__(self, lengths: Sequence[int], tokens: int, seed: int) -> None:
        if max(lengths, default=0) > tokens:
            raise ConfigError(
                f"--training.tokens_per_batch {tokens} is less than the longest sentence takes, {max(lengths)}; "
                "give at least that, or a smaller --max_length"
            )
        self.lengths = list(lengths)
        self.tokens = tokens
        self.seed = seed
        self.epoch = 0
        self._count = len(self.batches())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration follows."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._count

    def batches(self) -> list[list[int]]:
        """The epoch's batches in order."""
        generator = _generator(self.seed, self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        batches: list[list[int]] = []
        for index in sorted(order, key=lambda index: -self.lengths[index]):
            longest = self.lengths[batches[-1][0]] if batches else 0
            if batches and (len(batches[-1]) + 1) * longest <= self.tokens:
                batches[-1].append(index)
            else:
                batches.append([index])
        return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]

    def __iter__(self) -> Iterator[list[int]]:
        yield from self.batches()


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000_003 * seed + epoch)
