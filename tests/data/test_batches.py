"""Batches: every example once an epoch, little padding, an order that is a function of seed and epoch alone."""

import tracemalloc

import numpy as np
import pytest
from datasets import Dataset
from messages import names
from tokenizers.processors import TemplateProcessing

from emdistill.data.batches import (
    LengthGroupedSampler,
    TokenBudgetSampler,
    lengths_of,
    reader,
    share_of_padding,
    tokenise,
)
from emdistill.errors import ConfigError, TokenizerError
from emdistill.tasks import KINDS
from emdistill.tasks.task import Task, TaskData
from emdistill.training.splits import make_splits


def skewed_lengths(rows: int, seed: int = 0) -> np.ndarray:
    """Mostly short, a few long, 3 to 128."""
    draw = np.random.default_rng(seed)
    return np.clip(draw.lognormal(2.8, 0.7, rows), 3, 128).astype(np.int32)


def epochs(sampler: TokenBudgetSampler | LengthGroupedSampler, count: int) -> list[list[list[int]]]:
    found = []
    for epoch in range(count):
        sampler.set_epoch(epoch)
        found.append(list(sampler.batches()))
    return found


@pytest.mark.parametrize("lengths", [skewed_lengths(500), [7] * 100, [128], list(range(1, 129))])
@pytest.mark.parametrize("tokens", [128, 1000, 10**6])
def test_every_sentence_once_an_epoch_and_no_batch_over_the_budget(lengths: list[int], tokens: int) -> None:
    sampler = TokenBudgetSampler(lengths, tokens, seed=3)
    for epoch, batches in enumerate(epochs(sampler, 4)):
        assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
        assert all(batch and len(batch) * max(lengths[index] for index in batch) <= tokens for batch in batches)
        assert len(batches) == len(sampler)  # a schedule counts on it
        sampler.set_epoch(epoch)
        assert list(sampler) == batches


def test_a_batch_is_closed_only_when_the_next_sentence_would_not_fit() -> None:
    """Longest first, the batches are the greedy ones: nothing smaller is possible without splitting neighbours."""
    lengths = [9, 1, 4, 4, 9, 5, 1]
    batches = sorted(TokenBudgetSampler(lengths, 10, seed=0).batches(), key=lambda batch: -lengths[batch[0]])
    assert [sorted((lengths[index] for index in batch), reverse=True) for batch in batches] == [
        [9], [9], [5, 4], [4, 1], [1],
    ]  # fmt: skip


def test_token_budgets_change_from_epoch_to_epoch_and_with_the_seed_and_repeat() -> None:
    lengths = skewed_lengths(500)
    first, second = epochs(TokenBudgetSampler(lengths, 600, seed=3), 2)
    together = [{frozenset(batch) for batch in batches} for batches in (first, second)]
    assert len(together[0] & together[1]) < len(first) / 2  # other sentences share a batch
    assert [max(lengths[i] for i in batch) for batch in first] != [max(lengths[i] for i in batch) for batch in second]
    assert epochs(TokenBudgetSampler(lengths, 600, seed=3), 2) == [first, second]
    assert list(TokenBudgetSampler(lengths, 600, seed=4).batches()) != first


def test_a_budget_below_the_longest_sentence_is_refused() -> None:
    with names(ConfigError, "--training.tokens_per_batch", 99, 100):
        TokenBudgetSampler([5, 100, 7], 99, seed=0)
    assert len(TokenBudgetSampler([5, 100, 7], 100, seed=0)) == 2
    assert len(TokenBudgetSampler([], 100, seed=0)) == 0


@pytest.mark.parametrize("tokens", [256, 1024, 4096])
def test_token_budgets_pad_no_more_than_as_many_batches_of_equal_size(tokens: int) -> None:
    lengths = skewed_lengths(3000)
    by_tokens = TokenBudgetSampler(lengths, tokens, seed=0)
    by_sentences = LengthGroupedSampler(lengths, -(-len(lengths) // by_tokens.count), seed=0)
    assert share_of_padding(lengths, by_tokens.batches()) <= share_of_padding(lengths, by_sentences.batches())


def test_length_groups_hold_every_sentence_once_and_repeat() -> None:
    lengths = skewed_lengths(503)
    sampler = LengthGroupedSampler(lengths, 16, seed=3)
    first, second = epochs(sampler, 2)
    assert [len(batch) for batch in first] == [16] * 31 + [7]
    for batches in (first, second):
        assert sorted(index for batch in batches for index in batch) == list(range(503))
    assert first != second
    assert epochs(LengthGroupedSampler(lengths, 16, seed=3), 2) == [first, second]
    unordered = np.random.default_rng(0).permutation(503)[:496].reshape(-1, 16).tolist()
    assert share_of_padding(lengths, first) < share_of_padding(lengths, unordered) / 4


def test_orders_stay_those_of_earlier_versions_so_that_their_runs_resume() -> None:
    lengths = [5, 3, 9, 1, 7, 2, 8, 3, 5]
    by_sentences, by_tokens = LengthGroupedSampler(lengths, 2, seed=3), TokenBudgetSampler(lengths, 12, seed=3)
    assert epochs(by_sentences, 2)[1] == [[2, 6], [1, 5], [4, 8], [0, 7], [3]]
    assert epochs(by_tokens, 2)[1] == [[2], [7, 1, 5, 3], [8, 0], [6], [4]]


@pytest.mark.parametrize("new_sampler", [LengthGroupedSampler, TokenBudgetSampler])
def test_an_order_takes_bytes_a_row_and_not_objects(
    new_sampler: type[LengthGroupedSampler | TokenBudgetSampler],
) -> None:
    lengths = skewed_lengths(50_000)
    tracemalloc.start()
    sampler = new_sampler(lengths, 1024, 0)
    held, _ = tracemalloc.get_traced_memory()
    assert sum(map(len, sampler.batches())) == len(lengths)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sampler.lengths is lengths  # which the trainer holds too
    assert held < 4 * len(lengths)
    assert most < 24 * len(lengths)


def test_lengths_are_those_of_a_selection_counted_before_or_now() -> None:
    ids = [[1] * length for length in skewed_lengths(9000).tolist()]
    chosen = np.random.default_rng(0).permutation(9000)[:8500]
    for columns in ({"input_ids": ids, "length": list(map(len, ids))}, {"input_ids": ids}):
        lengths = lengths_of(Dataset.from_dict(columns).select(chosen))
        assert lengths.dtype == np.int32
        assert lengths.tolist() == [len(ids[row]) for row in chosen]
    assert len(lengths_of(Dataset.from_dict({"input_ids": [], "length": []}))) == 0


def test_padding_is_counted_by_hand() -> None:
    assert share_of_padding(np.array([2, 4, 3], np.int32), [[0, 1], [2]]) == pytest.approx(2 / 11)


def test_splits_report_the_padding_of_the_batches_that_training_draws(tiny_tokenizer) -> None:
    texts = [" ".join(["very"] * (row % 7)) + f" good {row}" for row in range(60)]
    examples = Dataset.from_dict({"text": texts, "label": [row % 2 for row in range(60)]})
    data = TaskData(
        Task("reviews", KINDS["classification"], ("bad", "good"), ("accuracy",)), examples, {"dev": examples}
    )
    options = {"select": "last", "max_length": 32, "batch_size": 8}
    splits = make_splits(data, tiny_tokenizer, tokens_per_batch=60, **options)
    lengths = lengths_of(splits.train)
    assert splits.padding == share_of_padding(lengths, TokenBudgetSampler(lengths, 60, seed=5).batches())
    assert splits.padding != make_splits(data, tiny_tokenizer, **options).padding
    with names(ConfigError, "--training.tokens_per_batch", 5):
        make_splits(data, tiny_tokenizer, tokens_per_batch=5, **options)


def test_a_text_without_a_token_is_refused(tiny_tokenizer):
    """It would be answered by the padding of its batch, and fails alone."""
    texts = Dataset.from_dict({"text": ["good", ""]})
    assert list(tokenise(texts, tiny_tokenizer, 8)["length"]) == [3, 2]
    tiny_tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    with names(TokenizerError, "empty"):
        tokenise(texts, tiny_tokenizer, 8)


@pytest.mark.parametrize(
    ("single", "pair"),
    [
        ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
        ("[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP] $B [SEP]"),
        ("[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP]:1 $B:1 [SEP]:1"),
        ("[CLS]:2 $A [SEP]", "[CLS]:2 $A [SEP] $B:1 [SEP]:1"),
        ("$A [SEP] [CLS]:2", "$A [SEP] $B:1 [SEP]:1 [CLS]:2"),
        ("$A", "$A $B:1"),
    ],
)
def test_a_reader_gives_what_its_tokenizer_gives(tiny_tokenizer, single, pair):
    """Windows of texts have the special tokens, and the token types, that whole texts have."""
    template = TemplateProcessing(single=single, pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tiny_tokenizer.backend_tokenizer.post_processor = template
    tiny_tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    of_windows = reader(tiny_tokenizer)
    texts = ["the movie was good", "a bad book"]
    pieces = of_windows.encode(texts)
    for count in (1, 2):
        expected = tiny_tokenizer(*texts[:count])
        assert of_windows.read(*pieces[:count]).inputs == dict(expected)
