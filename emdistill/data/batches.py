"""Sentences into batches: tokenised once, grouped by length, padded to the longest of their batch."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler
from transformers import BatchEncoding, DataCollatorWithPadding, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from emdistill.data.arrow_files import ROWS_AT_ONCE, chunk_by_chunk
from emdistill.data.corpus import TextEncoder
from emdistill.errors import ConfigError, TokenizerError
from emdistill.states import (
    ANSWERS,
    ASKED,
    ENDS,
    NO_ANSWER,
    NO_CLASS,
    NO_WORD,
    NOT_MASKED,
    TEACHER_LOGITS,
    TEACHERS,
    WORDS_OF_TOKENS,
)
from emdistill.tasks import TaskKind
from emdistill.tasks.columns import column, text_columns
from emdistill.tasks.features import Feature, Reader, reader_of

Index = TypeVar("Index", int, list[int])
Lengths = NDArray[np.int32]

BATCHES_PER_POOL = 50


def tokenise(
    examples: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, kind: TaskKind | None = None
) -> Dataset:
    """Token ids of every example, unpadded, with its `labels`, its `length` in tokens, and the answer of its teacher.

    examples    columns `text`, optionally `text_pair`, `label`, TEACHER_LOGITS and those of the kind
    max_length  tokens at most, special ones included; the longer of a pair is cut first
    kind        of the task; where it has several answers per row, a row may become several examples, and all have
                their places (ANSWERS)
    """
    if kind is not None and not kind.one_answer:
        rows = examples.to_dict()
        return windowed(kind.features(rows, [reader(tokenizer)], max_length), labelled="label" in rows)
    return chunk_by_chunk(examples, lambda chunk: _tokenised(chunk, tokenizer, max_length))


def _tokenised(examples: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    rows = examples.to_dict()
    encoded: dict[str, list[Any]] = dict(encode(rows, tokenizer, max_length))
    encoded["length"] = [len(ids) for ids in encoded["input_ids"]]
    if "label" in rows:
        encoded["labels"] = rows["label"]
    if TEACHER_LOGITS in rows:
        encoded[TEACHER_LOGITS] = rows[TEACHER_LOGITS]
    return Dataset.from_dict(encoded)  # in memory: the same files read twice must never meet a stale cache


def windowed(features: Sequence[Feature], *, labelled: bool, further: Mapping[str, list[Any]] | None = None) -> Dataset:
    """The inputs of features as `tokenise` gives them; a second reader's are the teacher's."""
    of_reader = zip(("", TEACHERS), zip(*(feature.sides for feature in features), strict=True), strict=False)
    columns: dict[str, list[Any]] = {
        prefix + name: [side.inputs[name] for side in sides] for prefix, sides in of_reader for name in sides[0].inputs
    }
    columns |= further or {}
    columns["length"] = [max(len(side.sequences) for side in feature.sides) for feature in features]
    if labelled:
        columns["labels"] = [feature.labels for feature in features]
    return Dataset.from_dict(columns)


def reader(tokenizer: PreTrainedTokenizerBase) -> Reader:
    """How a tokenizer reads windows; raises TokenizerError for one that does not say where its tokens stand."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise TokenizerError(
            f"answers stand at places in the text, which a {type(tokenizer).__name__} does not give; take an encoder "
            "with a fast tokenizer (tokenizer.json)"
        )
    return reader_of(tokenizer.backend_tokenizer, tokenizer.model_input_names)


def check_tokens(texts: Iterable[Sequence[int]]) -> None:
    """Raise TokenizerError for a text without any token, which no model can answer; texts: the tokens of each."""
    if not all(texts):
        raise TokenizerError(
            "a text has no tokens, for it is empty and this tokenizer puts no special tokens around texts; leave out "
            "rows of empty texts, or give the tokenizer the template that the encoder was trained with"
        )


def encode(rows: Mapping[str, list[Any]], tokenizer: PreTrainedTokenizerBase, max_length: int) -> BatchEncoding:
    """The tokens of the columns `text` and `text_pair`, unpadded, at most `max_length` for each row.

    Raises TokenizerError for a row without any, as an empty text is to a tokenizer that puts no special tokens around.
    """
    encoding: BatchEncoding = tokenizer(*text_columns(rows), truncation=True, max_length=max_length)
    check_tokens(encoding["input_ids"])
    return encoding


def texts_cut(
    examples: Dataset, encoded: Dataset, tokenizers: Sequence[PreTrainedTokenizerBase], max_length: int
) -> int:
    """How many of the examples, which `encoded` has in this order, have more than `max_length` tokens.

    Those that fill them are read again, uncut.
    """
    full = np.flatnonzero(lengths_of(encoded) >= max_length)
    cut = 0
    for rows in examples.select(full).iter(ROWS_AT_ONCE):
        readings = [tokenizer(*text_columns(rows), verbose=False)["input_ids"] for tokenizer in tokenizers]
        cut += sum(max(map(len, ids)) > max_length for ids in zip(*readings, strict=True))
    return cut


def note_cut(cut: int, texts: int, max_length: int, longest: int) -> str:
    """How many of so many texts are cut at max_length, and the mend; `longest` is what the encoder reads at most."""
    mend = f"--max-length reads up to {longest:,}" if max_length < longest else "the encoder reads no more"
    return f"note: {cut:,} of {texts:,} texts are longer than {max_length:,} tokens, and are cut there; {mend}"


class PaddingCollator(DataCollatorWithPadding):
    """Pads a batch to its longest sentence; columns per token or per answer are filled with what stands for none."""

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        fills = {name: fill for name, fill in FILLS.items() if name in features[0]}
        if ANSWERS in fills:  # else a row has one label
            fills["labels"] = NO_CLASS
        rows = [{name: value for name, value in row.items() if name not in fills} for row in features]
        batch: dict[str, Any] = super().__call__(rows)
        left = self.tokenizer.padding_side == "left"
        for name, fill in fills.items():
            if name in features[0]:
                batch[name] = _padded([row[name] for row in features], fill, left=left and name == WORDS_OF_TOKENS)
        return batch


FILLS = {ANSWERS: NO_ANSWER, ENDS: NO_ANSWER, WORDS_OF_TOKENS: NO_WORD}


def _padded(rows: Sequence[list[int]], fill: int, *, left: bool) -> Tensor:
    longest = max(map(len, rows))
    gaps = [[fill] * (longest - len(row)) for row in rows]
    return torch.tensor([gap + row if left else row + gap for gap, row in zip(gaps, rows, strict=True)])


def text_encoder(tokenizer: PreTrainedTokenizerBase) -> TextEncoder:
    """The tokenizer as a corpus needs it: long texts are not cut, and special tokens stand apart."""

    def encode(texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    (bare,) = encode(["a"])
    whole: list[int] = tokenizer("a")["input_ids"]
    place = whole.index(bare[0])
    return TextEncoder(encode, tuple(whole[:place]), tuple(whole[place + len(bare) :]), tokenizer_key(tokenizer))


def tokenizer_key(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the vocabulary, the special tokens and, where they can be had, all rules of splitting."""
    rules: dict[str, Any] = {}
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        del rules["truncation"], rules["padding"]  # left by the last call; they change no ids here
    decides = [type(tokenizer).__name__, tokenizer.get_vocab(), tokenizer.all_special_ids, rules]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


class MaskingCollator:
    """Pads a batch, masks words as BERT does, and has them in `labels`: [B, L], -100 at all other positions.

    share   of a text's tokens, at least one, special tokens and padding apart: of these 80 % become [MASK], 10 % a
            random token, 10 % stay
    unmasked_share  of all other tokens, special ones too: the share whose answers are learned, in ASKED with the
            masked ones; 0: the masked ones alone, and no such column
    The draw is a function of `seed` and the batch's tokens: a resumed run masks as an uninterrupted one, every
    evaluation masks alike, and new batches are masked anew.
    Raises TokenizerError for a tokenizer without a mask token, ConfigError for a share outside (0, 1].
    Source: Devlin et al., NAACL 2019, section 3.1.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, share: float = 0.15, unmasked_share: float = 0.0, seed: int = 0
    ) -> None:
        if tokenizer.mask_token_id is None:
            raise TokenizerError("this tokenizer has no mask token, so it masks no words; take an encoder's own")
        if not 0 < share <= 1:
            raise ConfigError(f"the share of tokens that are masked lies between 0 and 1, not at {share}")
        self.share = share
        self.unmasked_share = unmasked_share
        self.seed = seed
        self._pad = PaddingCollator(tokenizer)
        self._mask = int(tokenizer.mask_token_id)
        self._special = torch.tensor(sorted(set(tokenizer.all_special_ids)))
        self._words = torch.tensor(sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)))

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Tokenised rows, unpadded -> input_ids, attention_mask, their other columns, labels and perhaps ASKED."""
        batch: dict[str, Tensor] = dict(self._pad(rows))
        ids = batch["input_ids"]
        generator = torch.Generator().manual_seed(self._seed_of(ids))
        maskable = ~torch.isin(ids, self._special)
        counts = (self.share * maskable.sum(-1, keepdim=True)).round().clamp(min=1)
        # The `counts` positions of a text that drew the smallest numbers.
        ranks = torch.rand(ids.shape, generator=generator).masked_fill(~maskable, 2).argsort(-1).argsort(-1)
        chosen = maskable & (ranks < counts)
        fate = torch.rand(ids.shape, generator=generator)
        random_words = self._words[torch.randint(len(self._words), ids.shape, generator=generator)]
        masked = ids.masked_fill(chosen & (fate < 0.8), self._mask)
        batch["input_ids"] = torch.where(chosen & (fate >= 0.9), random_words, masked)
        batch["labels"] = ids.masked_fill(~chosen, NOT_MASKED)
        if self.unmasked_share:
            drawn = torch.rand(ids.shape, generator=generator) < self.unmasked_share
            batch[ASKED] = chosen | (drawn & (batch["attention_mask"] != 0))
        return batch

    def _seed_of(self, ids: Tensor) -> int:
        tokens = hashlib.blake2b(f"{self.seed} {tuple(ids.shape)}".encode(), digest_size=8)
        tokens.update(ids.contiguous().numpy().data)
        return int.from_bytes(tokens.digest(), "big") >> 1


def lengths_of(examples: Dataset) -> Lengths:
    """Tokens of every example, [rows], whether they are counted already or not."""
    if "length" in examples.column_names:
        return column(examples, "length", np.int32)
    return np.fromiter(map(len, examples["input_ids"]), np.int32, len(examples))


def share_of_padding(lengths: Lengths, batches: Iterable[Sequence[int]]) -> float:
    """Padded positions as a share of all positions: 1 - Σ length / Σ (batch size · longest of batch)."""
    tokens = positions = 0
    for batch in batches:
        tokens += int(lengths[batch].sum())
        positions += len(batch) * int(lengths[batch].max())
    return 1 - tokens / positions


class _EpochSampler(Sampler[Index]):
    """Every index once per epoch, in an order that is a function of (seed, epoch) alone; 4 bytes a row."""

    def __init__(self, lengths: Sequence[int] | Lengths, seed: int) -> None:
        self.lengths = np.asarray(lengths, dtype=np.int32)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    def _draw(self) -> tuple[torch.Generator, NDArray[np.int32]]:
        """The epoch's generator, and all indices in a random order."""
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator, dtype=torch.int32)
        return generator, order.numpy()

    def _longest_first(self, rows: NDArray[np.int32]) -> NDArray[np.int32]:
        """Rows by their length; those of one length stay in their order."""
        return rows[np.argsort(-self.lengths[rows], kind="stable")]


class LengthGroupedSampler(_EpochSampler[int]):
    """Every index once per epoch, neighbours of like length, the order a function of (seed, epoch) alone.

    A shuffled pool of 50 batches is sorted by length and cut into batches, then the batches are shuffled: they hold
    little padding, and an interrupted epoch resumes in its order.
    """

    def __init__(self, lengths: Sequence[int] | Lengths, batch_size: int, seed: int) -> None:
        super().__init__(lengths, seed)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def count(self) -> int:
        """The number of batches."""
        return -(-len(self.lengths) // self.batch_size)

    def batches(self) -> Iterator[list[int]]:
        """The epoch's batches in order; the one short batch, if any, comes last."""
        generator, order = self._draw()
        pool = self.batch_size * BATCHES_PER_POOL
        for start in range(0, len(order), pool):
            order[start : start + pool] = self._longest_first(order[start : start + pool])
        whole = len(order) // self.batch_size
        for place in [*torch.randperm(whole, generator=generator).tolist(), *range(whole, self.count)]:
            yield order[place * self.batch_size : (place + 1) * self.batch_size].tolist()

    def __iter__(self) -> Iterator[int]:
        for batch in self.batches():
            yield from batch


class TokenBudgetSampler(_EpochSampler[list[int]]):
    """Batches of sentences of like length, as many as keep sentences × longest within `tokens`.

    Every index once per epoch, the order a function of (seed, epoch) alone. Sentences of one length change places from
    epoch to epoch and the batches are shuffled; their number stays, so that a schedule counts right.
    Raises ConfigError where one sentence alone exceeds the budget.
    """

    def __init__(self, lengths: Sequence[int] | Lengths, tokens: int, seed: int) -> None:
        super().__init__(lengths, seed)
        descending = np.sort(self.lengths)[::-1]
        if len(descending) and descending[0] > tokens:
            raise ConfigError(
                f"--training.tokens_per_batch {tokens} is less than the longest sentence takes, {descending[0]}; "
                "give at least that, or a smaller --max-length"
            )
        self.bounds = [0]  # of the batches, whatever the order of sentences of one length
        while self.bounds[-1] < len(descending):
            self.bounds.append(self.bounds[-1] + tokens // max(1, int(descending[self.bounds[-1]])))

    def __len__(self) -> int:
        return self.count

    @property
    def count(self) -> int:
        """The number of batches."""
        return len(self.bounds) - 1

    def batches(self) -> Iterator[list[int]]:
        """The epoch's batches in order."""
        generator, order = self._draw()
        order = self._longest_first(order)
        for place in torch.randperm(self.count, generator=generator).tolist():
            yield order[self.bounds[place] : self.bounds[place + 1]].tolist()

    def __iter__(self) -> Iterator[list[int]]:
        return self.batches()
