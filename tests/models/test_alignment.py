"""Words at which tokens of two tokenizers meet: against a brute-force search, and states against a plain loop."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from byte_pairs import byte_pair_tokenizer
from encoder_states import KINDS, random_states, tensors
from torch import Tensor

from emdistill.models.alignment import Span, meet, token_spans, words_of_tokens
from emdistill.states import NO_WORD, EncoderShape, EncoderStates

STUDENT, TEACHER = EncoderShape(layers=2, width=4, heads=2), EncoderShape(layers=3, width=6, heads=3)


def words_by_search(student: list[Span | None], teacher: list[Span | None]) -> tuple[list[int], list[int]]:
    """Walk from token to token wherever two have a character in common; words in order of their first characters."""
    spans = [*student, *teacher]
    sides = [0] * len(student) + [1] * len(teacher)

    def characters(token: int) -> set[tuple[int, int]]:
        span = spans[token]
        return set() if span is None else {(span[0], place) for place in range(span[1], span[2])}

    words: list[set[int]] = []
    unseen = set(range(len(spans)))
    while unseen:
        word, edge = set[int](), {unseen.pop()}
        while edge:
            word |= edge
            edge = {token for token in unseen if any(characters(token) & characters(seen) for seen in edge)}
            unseen -= edge
        if {sides[token] for token in word} == {0, 1}:
            words.append(word)
    words.sort(key=lambda word: min(min(characters(token)) for token in word))
    number = {token: place for place, word in enumerate(words) for token in word}
    numbers = [number.get(token, NO_WORD) for token in range(len(spans))]
    return numbers[: len(student)], numbers[len(student) :]


def random_reading(draw: np.random.Generator) -> list[Span | None]:
    """Tokens of two texts, with gaps, cut short, sometimes several to a character, and special ones around."""
    spans: list[Span | None] = [(0, 0, 1)]
    for part in (1, 3):
        place = 0
        while place < draw.integers(6, 14):
            place += int(draw.integers(0, 2))
            length = int(draw.integers(0, 5))
            spans += [(part, place, place + length) if length else None] * int(draw.choice([1, 1, 1, 2]))
            place += length
        spans += [(2, 0, 1)] * int(draw.integers(1, 3)) if part == 1 else [(4, 0, 1)]
    return spans


def test_words_are_those_of_a_search_from_token_to_token() -> None:
    draw = np.random.default_rng(0)
    for _ in range(200):
        student, teacher = random_reading(draw), random_reading(draw)
        expected = words_by_search(student, teacher)
        assert words_of_tokens(student, teacher) == expected
        assert words_of_tokens(teacher, student) == expected[::-1]


def test_equal_readings_meet_token_by_token() -> None:
    spans: list[Span | None] = [(0, 0, 1), (1, 0, 3), (1, 4, 5), None, (1, 5, 9), (4, 0, 1)]
    assert words_of_tokens(spans, spans) == ([0, 1, 2, NO_WORD, 3, 4],) * 2


def test_white_space_belongs_to_no_token() -> None:
    spans = token_spans([None, 0, 0, 0, None], [(0, 0), (0, 1), (1, 5), (4, 6), (0, 0)], ["a  bc "])
    assert spans == [(0, 0, 1), (1, 0, 1), (1, 3, 5), (1, 4, 5), (4, 0, 1)]
    assert token_spans([0, 0], [(0, 1), (1, 3)], ["a  "]) == [(1, 0, 1), None]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["Goodbook", "it."], ["[CLS]<s>", "goodGood", "bb", "ookook", "[SEP]</s></s>", "itit", "..", "[SEP]</s>"]),
        (["a  é", ""], ["[CLS]<s>", "aa", "eé", "[SEP]</s></s>", "[SEP]</s>"]),
        (["", "bad"], ["[CLS]<s>", "[SEP]</s></s>", "badbad", "[SEP]</s>"]),
        (["the 🙂 book"], ["[CLS]<s>", "thethe", "[UNK]🙂", "bookbook", "[SEP]</s>"]),
        ([""], ["[CLS]<s>", "[SEP]</s>"]),
    ],
)
def test_word_pieces_meet_byte_pairs(tiny_tokenizer, texts: list[str], words: list[str]) -> None:
    readers = tiny_tokenizer, byte_pair_tokenizer()
    readings = [reader(*[[text] for text in texts]).encodings[0] for reader in readers]
    numbers = words_of_tokens(*(token_spans(r.sequence_ids, r.offsets, texts) for r in readings))
    met = [""] * (1 + max(numbers[0]))
    for reader, reading, of_tokens in zip(readers, readings, numbers, strict=True):
        for word in range(len(met)):
            ids = [id for id, number in zip(reading.ids, of_tokens, strict=True) if number == word]
            met[word] += reader.decode(ids).replace(" ", "").replace("##", "")
    assert met == words


WORDS = torch.tensor([[0, 1, 1, -1, 2, 3], [0, 1, 2, 3, -1, -1]])
TEACHER_WORDS = torch.tensor([[-1, -1, 0, 1, 2, 2, 3], [0, 1, 2, 2, 2, 3, 3]])
BATCH = {"words": WORDS, "teacher_words": TEACHER_WORDS}


def states(dtype: torch.dtype = torch.float64) -> tuple[EncoderStates, EncoderStates]:
    """What stands at tokens: the features of a head do not."""
    own = random_states(STUDENT, torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]]), 1, dtype=dtype)
    others = random_states(TEACHER, torch.ones(2, 7, dtype=torch.long), 2, dtype=dtype)
    return replace(own, features=()), replace(others, features=())


def mean_by_loop(state: Tensor, words: Tensor, count: int) -> Tensor:
    """Word by word, of vectors [B, L, d] or scores [B, h, L, L]."""
    scores = state.ndim == 4
    size = (state.shape[1], count, count) if scores else (count, state.shape[-1])
    means = torch.zeros(len(state), *size, dtype=torch.float64)
    for text, word in product(range(len(state)), range(count)):
        tokens = [t for t, number in enumerate(words[text].tolist()) if number == word]
        if not scores and tokens:
            means[text, word] = sum(state[text, t].double() for t in tokens) / len(tokens)
        for other in range(count) if scores else ():
            keys = [t for t, number in enumerate(words[text].tolist()) if number == other]
            if tokens and keys:
                total = sum(state[text, :, t, u].double() for t, u in product(tokens, keys))
                means[text, :, word, other] = total / (len(tokens) * len(keys))
    return means


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_states_at_words_are_means_over_tokens(dtype: torch.dtype) -> None:
    before = states(dtype)
    for side, after, words in zip(before, meet(*before, BATCH), (WORDS, TEACHER_WORDS), strict=True):
        assert torch.equal(after.mask, torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0]]))
        assert torch.equal(after.logits, side.logits)
        for state, mean in zip(tensors(side)[1:], tensors(after)[1:], strict=True):
            assert mean.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            torch.testing.assert_close(mean.double(), mean_by_loop(state, words, 6), rtol=1e-5, atol=1e-6)


def test_without_words_the_states_stay() -> None:
    before = states()
    assert meet(*before, {"labels": torch.zeros(2)}) == before


def test_layers_that_were_not_recorded_stay_absent() -> None:
    student, teacher = states()
    student = replace(student, embeddings=None, hidden=(None, student.hidden[1]), queries=())
    after, _ = meet(student, teacher, BATCH)
    assert after.embeddings is None
    assert after.hidden[0] is None
    assert after.hidden[1] is not None
    assert after.queries == ()


def test_tokens_without_a_word_change_nothing_and_get_no_gradient() -> None:
    student, teacher = states()
    leaves = {kind: [layer.clone().requires_grad_() for layer in getattr(student, kind)] for kind in KINDS}
    apart = WORDS == NO_WORD
    for kind, layers in leaves.items():
        for layer in layers:
            with torch.no_grad():
                pairs = apart[:, :, None] | apart[:, None, :]
                layer.masked_fill_(pairs[:, None] if kind == "attention_scores" else apart[..., None], torch.nan)
    broken, _ = meet(replace(student, **{kind: tuple(layers) for kind, layers in leaves.items()}), teacher, BATCH)
    whole, _ = meet(student, teacher, BATCH)
    for kind in KINDS:
        assert all(torch.equal(*pair) for pair in zip(getattr(broken, kind), getattr(whole, kind), strict=True))
    sum(layer.sum() for kind in KINDS for layer in getattr(broken, kind)).backward()
    for layer in leaves["hidden"]:
        assert torch.equal(layer.grad == 0, apart[..., None].expand_as(layer))
