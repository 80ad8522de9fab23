"""Masked words: how many, which, what stands in their place, and that a resumed run masks as an uninterrupted one."""

from typing import Any

import numpy as np
import pytest
import torch
from accelerate import skip_first_batches
from messages import names
from torch.utils.data import DataLoader

from emdistill.data.batches import LengthGroupedSampler, MaskingCollator, PaddingCollator, TokenBudgetSampler
from emdistill.errors import ConfigError, TokenizerError

Rows = list[dict[str, Any]]


@pytest.fixture
def rows(tiny_tokenizer) -> Rows:
    """400 texts of 1 to 60 ordinary tokens between [CLS] and [SEP]."""
    draw = np.random.default_rng(0)
    words = sorted(set(tiny_tokenizer.get_vocab().values()) - set(tiny_tokenizer.all_special_ids))
    first, last = tiny_tokenizer.cls_token_id, tiny_tokenizer.sep_token_id
    return [{"input_ids": [first, *draw.choice(words, 1 + row % 60).tolist(), last]} for row in range(400)]


def test_a_batch_is_padded_and_the_masked_words_are_asked_for(tiny_tokenizer, rows: Rows) -> None:
    plain = PaddingCollator(tiny_tokenizer)(rows)
    batch = MaskingCollator(tiny_tokenizer, seed=3)(rows)
    assert batch.keys() == {"input_ids", "attention_mask", "labels"}
    assert torch.equal(batch["attention_mask"], plain["attention_mask"])
    assert all(tensor.dtype == torch.int64 and tensor.shape == (400, 62) for tensor in batch.values())
    masked = batch["labels"] != -100
    assert torch.equal(batch["labels"][masked], plain["input_ids"][masked])
    assert torch.equal(batch["input_ids"][~masked], plain["input_ids"][~masked])
    special = torch.isin(plain["input_ids"], torch.tensor(tiny_tokenizer.all_special_ids))
    assert not (masked & special).any()
    assert not (masked & (batch["attention_mask"] == 0)).any()


@pytest.mark.parametrize("share", [0.001, 0.15, 0.5, 1.0])
def test_each_text_has_its_share_and_at_least_one(tiny_tokenizer, rows: Rows, share: float) -> None:
    batch = MaskingCollator(tiny_tokenizer, share=share)(rows)
    words = np.array([len(row["input_ids"]) - 2 for row in rows])
    expected = np.maximum(1, np.round(np.float32(share) * words.astype(np.float32)))
    assert ((batch["labels"] != -100).sum(1).numpy() == expected).all()


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_unmasked_tokens_are_asked_for_too(tiny_tokenizer, rows: Rows, share: float) -> None:
    """The masked ones always, of the others their share, special tokens included; masks stay as they were."""
    plain = MaskingCollator(tiny_tokenizer, seed=3)(rows)
    batch = MaskingCollator(tiny_tokenizer, unmasked_share=share, seed=3)(rows)
    assert all(torch.equal(batch[name], plain[name]) for name in plain)
    masked, tokens, answered = plain["labels"] != -100, plain["attention_mask"] != 0, batch["asked"]
    assert answered[masked].all()
    assert not answered[~tokens].any()
    others = answered[tokens & ~masked].double()
    assert others.mean().item() == pytest.approx(share, abs=0.02)
    assert answered[:, 0].double().mean().item() == pytest.approx(share, abs=0.1)
    assert torch.equal(MaskingCollator(tiny_tokenizer, unmasked_share=share, seed=3)(rows)["asked"], answered)


def test_what_stands_in_their_place(tiny_tokenizer, rows: Rows) -> None:
    """Over 20,000 masked words: 80 % [MASK], 10 % random ordinary tokens, 10 % kept; and every position alike."""
    ids, labels = [], []
    for seed in range(10):
        batch = MaskingCollator(tiny_tokenizer, seed=seed)(rows)
        ids.append(batch["input_ids"])
        labels.append(batch["labels"])
    found, words = torch.stack(ids), torch.stack(labels)
    asked = words != -100
    count = asked.sum().item()
    hidden = (found == tiny_tokenizer.mask_token_id) & asked
    kept = (found == words) & asked
    other = asked & ~hidden & ~kept
    vocabulary = len(tiny_tokenizer) - len(tiny_tokenizer.all_special_ids)
    for part, share in ((hidden, 0.8), (kept, 0.1 + 0.1 / vocabulary), (other, 0.1 - 0.1 / vocabulary)):
        assert part.sum().item() / count == pytest.approx(share, abs=4 * (share * (1 - share) / count) ** 0.5)
    random_words = found[other]
    assert not torch.isin(random_words, torch.tensor(tiny_tokenizer.all_special_ids)).any()
    assert len(random_words.unique()) == vocabulary
    of_longest = asked[:, [row for row in range(400) if row % 60 == 59], 1:61].float().mean((0, 1))
    draws = asked.shape[0] * 6
    assert (of_longest - 9 / 60).abs().max() < 5 * (0.15 * 0.85 / draws) ** 0.5


def test_texts_without_an_ordinary_token_have_no_masked_word(tiny_tokenizer) -> None:
    first, last, unknown = tiny_tokenizer.cls_token_id, tiny_tokenizer.sep_token_id, tiny_tokenizer.unk_token_id
    word = tiny_tokenizer.get_vocab()["good"]
    texts = [[first, last], [first, unknown, last], [first, word, last]]
    labels = MaskingCollator(tiny_tokenizer, share=1.0)([{"input_ids": ids} for ids in texts])["labels"]
    assert labels.tolist() == [[-100] * 3, [-100] * 3, [-100, word, -100]]


def test_what_else_a_row_holds_is_kept(tiny_tokenizer) -> None:
    rows = [{"input_ids": [2, 9, 3, 8, 7, 3], "token_type_ids": [0, 0, 0, 1, 1, 1], "row": 7}]
    rows += [{"input_ids": [2, 9, 3, 3], "token_type_ids": [0, 0, 0, 1], "row": 8}]
    batch = MaskingCollator(tiny_tokenizer)(rows)
    assert batch["row"].tolist() == [7, 8]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 0, 0]]


def test_masks_are_a_function_of_seed_and_batch(tiny_tokenizer, rows: Rows) -> None:
    torch.manual_seed(0)
    random_state = torch.get_rng_state()
    first = MaskingCollator(tiny_tokenizer, seed=1)(rows[:8])
    assert torch.equal(torch.get_rng_state(), random_state)
    torch.manual_seed(5)
    collator = MaskingCollator(tiny_tokenizer, seed=1)
    collator(rows[8:16])
    again = collator(rows[:8])
    assert all(torch.equal(first[name], again[name]) for name in first)
    others = [MaskingCollator(tiny_tokenizer, seed=2)(rows[:8]), collator(rows[:7] + rows[9:10])]
    assert all(not torch.equal(first["labels"][:7], other["labels"][:7]) for other in others)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_epoch_is_masked_as_an_uninterrupted_one_and_the_next_anew(
    tiny_tokenizer, rows: Rows, workers: int
) -> None:
    def loader(epoch: int) -> DataLoader[Any]:
        sampler = TokenBudgetSampler([len(row["input_ids"]) for row in rows], 500, seed=4)
        sampler.set_epoch(epoch)
        collator = MaskingCollator(tiny_tokenizer, seed=4)
        return DataLoader(rows, batch_sampler=sampler, collate_fn=collator, num_workers=workers)  # type: ignore[arg-type]

    whole = list(loader(1))
    resumed = list(skip_first_batches(loader(1), 9))
    assert len(resumed) == len(whole) - 9
    for expected, found in zip(whole[9:], resumed, strict=True):
        assert all(torch.equal(expected[name], found[name]) for name in expected)

    def masks(epoch: int) -> set[tuple[int, ...]]:
        sampler = LengthGroupedSampler([len(row["input_ids"]) for row in rows], 16, seed=4)
        sampler.set_epoch(epoch)
        collator = MaskingCollator(tiny_tokenizer, seed=4)
        batches = [collator([rows[index] for index in batch]) for batch in sampler.batches()]
        return {tuple(labels) for batch in batches for labels in batch["labels"].tolist() if len(labels) > 30}

    assert len(masks(0) & masks(1)) < 0.05 * len(masks(0))


def test_tokenizers_and_shares_that_cannot_mask(tokenizer_factory) -> None:
    tokenizer = tokenizer_factory()
    for share in (0.0, -0.1, 1.1, float("nan")):
        with names(ConfigError, share):
            MaskingCollator(tokenizer, share=share)
    tokenizer.mask_token = None
    with pytest.raises(TokenizerError):
        MaskingCollator(tokenizer)
