"""Two tokenizers read one text: their tokens meet at words, the finest segments whose borders both have."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from emdistill.models.capture import OF_LAYERS, field_of
from emdistill.states import NO_WORD, TEACHERS, WORDS_OF_TOKENS, EncoderStates, precise

# Where a token stands: the part of its input, counted in reading order, and its first and last character there. Texts
# are parts 1 and 3; special tokens have parts of their own: before, between and behind them.
Span = tuple[int, int, int]
BEFORE, BETWEEN, BEHIND = 0, 2, 4


def token_spans(
    sequences: Sequence[int | None], offsets: Sequence[tuple[int, int]], texts: Sequence[str]
) -> list[Span | None]:
    """Where each token stands; None for one of white space alone.

    sequences  the number of each token's text, 0 or 1 of a pair; None: a special token. The first and the last token
               may be the special ones before and behind all texts, any other one separates
    offsets    each token's characters [start, end) in its text, white space around them or not
    """
    spans: list[Span | None] = []
    for token, (sequence, (start, end)) in enumerate(zip(sequences, offsets, strict=True)):
        if sequence is None:
            part = BEFORE if token == 0 else BEHIND if token == len(sequences) - 1 else BETWEEN
            spans.append((part, 0, 1))
            continue
        piece = texts[sequence][start:end]
        start += len(piece) - len(piece.lstrip())
        end = start + len(piece.strip())
        spans.append((2 * sequence + 1, start, end) if start < end else None)
    return spans


def words_of_tokens(student: Sequence[Span | None], teacher: Sequence[Span | None]) -> tuple[list[int], list[int]]:
    """The number of each token's word, for both sides; NO_WORD for a token that meets none of the other side.

    Words are the connected components of overlapping spans that have tokens of both sides, numbered in reading order.
    """
    numbers = [NO_WORD] * len(student), [NO_WORD] * len(teacher)
    every = sorted(
        (span, side, token)
        for side, spans in enumerate((student, teacher))
        for token, span in enumerate(spans)
        if span is not None
    )
    components: list[list[tuple[int, int]]] = []
    reached = (-1, 0)
    for (part, start, end), side, token in every:
        if (part, start) >= reached:
            components.append([])
            reached = (part, end)
        components[-1].append((side, token))
        reached = max(reached, (part, end))
    shared = (component for component in components if len({side for side, _ in component}) == 2)
    for word, component in enumerate(shared):
        for side, token in component:
            numbers[side][token] = word
    return numbers


def meet(
    student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]
) -> tuple[EncoderStates, EncoderStates]:
    """Both encoders' states at words: h_w = mean of h_t over the tokens t of word w; scores, over those of both words.

    batch   with `words` [B, L] and `teacher_words` [B, L'], the number of each token's word, or NO_WORD: states become
            [B, W, d], scores [B, h, W, W], masks [B, W] (1 = word); W is the shorter length. Logits stay.
            Without them both read the same tokens, and the states are given back as they are.
    Means are taken in float32, or float64 where the states are; tokens without a word change nothing.
    """
    if WORDS_OF_TOKENS not in batch:
        return student, teacher
    own, others = batch[WORDS_OF_TOKENS], batch[TEACHERS + WORDS_OF_TOKENS]
    count = min(own.shape[1], others.shape[1])  # no more words than tokens on either side
    return _at_words(student, own, count), _at_words(teacher, others, count)


def _at_words(states: EncoderStates, words: Tensor, count: int) -> EncoderStates:
    """The states [B, L, …] of one side at `count` words."""
    members = words[:, None, :] == torch.arange(count, device=words.device)[:, None]
    shares = members / members.sum(dim=-1, keepdim=True).clamp(min=1)  # [B, W, L]
    mean = _mean_of_tokens(shares, words == NO_WORD)
    layers: dict[str, Any] = {field_of(kind): tuple(map(mean, getattr(states, field_of(kind)))) for kind in OF_LAYERS}
    mask = members.any(dim=-1).to(states.mask.dtype)
    return replace(states, mask=mask, embeddings=mean(states.embeddings), **layers)


def _mean_of_tokens(shares: Tensor, apart: Tensor) -> Callable[[Tensor | None], Tensor | None]:
    """[B, L, d] -> [B, W, d] and [B, h, L, L] -> [B, h, W, W]; the tokens `apart` [B, L] may hold anything."""

    def mean(state: Tensor | None) -> Tensor | None:
        if state is None:
            return None
        with torch.autocast(state.device.type, enabled=False):
            exact = precise(state)
            weights = shares.to(exact.dtype)
            if state.ndim == 3:
                return weights @ exact.masked_fill(apart[..., None], 0)
            weights, pairs = weights[:, None], (apart[:, :, None] | apart[:, None, :])[:, None]
            return weights @ exact.masked_fill(pairs, 0) @ weights.transpose(-1, -2)

    return mean
