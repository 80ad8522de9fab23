"""Random states of an encoder on a padded batch, and what tests do to them."""

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from emdistill.states import EncoderShape, EncoderStates

KINDS = tuple(field.name for field in fields(EncoderStates) if field.name not in ("logits", "mask", "embeddings"))


def random_states(
    shape: EncoderShape,
    mask: Tensor,
    seed: int,
    *,
    outputs: int = 4,
    answers: int | None = None,
    vectors: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> EncoderStates:
    """Every state there is; the same numbers for a seed, whatever the version of torch.

    answers  that the logits are of: one per row by default
    vectors  the width of queries, keys and values: the encoder's by default; 0: they and a head's features are absent
    """
    draw = np.random.RandomState(seed)  # its stream never changes
    batch, length = mask.shape

    def normal(*size: int) -> Tensor:
        return torch.from_numpy(draw.standard_normal(size)).to(dtype)

    def each_layer(*size: int) -> tuple[Tensor, ...]:
        return tuple(normal(*size) for _ in range(shape.layers))

    states = EncoderStates(
        logits=normal(answers or batch, outputs),
        mask=mask,
        embeddings=normal(batch, length, shape.width),
        hidden=each_layer(batch, length, shape.width),
        attention_scores=each_layer(batch, shape.heads, length, length),
    )
    width = shape.width if vectors is None else vectors
    relations = {name: each_layer(batch, length, width) for name in ("queries", "keys", "values")} if width else {}
    features = tuple(normal(batch, width) for _ in range(2)) if width else ()
    return replace(states, features=features, **relations)


def random_layers(count: int, shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """States of one kind alone."""
    draw = np.random.RandomState(seed)
    return [torch.from_numpy(draw.standard_normal(shape)).to(dtype) for _ in range(count)]


def tensors(states: EncoderStates) -> list[Tensor]:
    """All that are there, but for the mask."""
    every = [states.logits, states.embeddings, *(layer for kind in KINDS for layer in getattr(states, kind))]
    return [tensor for tensor in every if tensor is not None]


def mapped(states: EncoderStates, change: Callable[[Tensor], Tensor]) -> EncoderStates:
    """The same states, `change` applied to every tensor but the mask."""

    def changed(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else change(tensor)

    layers = {kind: tuple(map(changed, getattr(states, kind))) for kind in KINDS}
    return replace(states, logits=change(states.logits), embeddings=changed(states.embeddings), **layers)


def leaves(states: EncoderStates) -> EncoderStates:
    """Copies that gradients are asked for."""
    return mapped(states, lambda tensor: tensor.detach().clone().requires_grad_())


def only_layers(states: EncoderStates, layers: set[int]) -> EncoderStates:
    """What a capture of these layers alone holds."""
    kept = {
        kind: tuple(tensor if layer in layers else None for layer, tensor in enumerate(getattr(states, kind)))
        for kind in KINDS
    }
    return replace(states, **kept)


def with_padding(states: EncoderStates, filler: float | Callable[[Tensor], Tensor]) -> EncoderStates:
    """The same states, as leaves, with the filler (or what it makes of a tensor) wherever a padded token takes part."""
    real = states.mask.bool()

    def change(tensor: Tensor) -> Tensor:
        if tensor.ndim == 2:
            return tensor  # logits are of the whole example
        valid = real[..., None] if tensor.ndim == 3 else real[:, None, :, None] & real[:, None, None, :]
        return torch.where(valid, tensor, filler(tensor) if callable(filler) else filler)

    return leaves(mapped(states, change))


def longer(states: EncoderStates, before: int, after: int) -> EncoderStates:
    """The same states with so many padded tokens more on each side, which hold numbers."""
    sides = (before, after)

    def pad(tensor: Tensor) -> Tensor:
        return functional.pad(tensor, {2: (), 3: (0, 0, *sides), 4: (*sides, *sides)}[tensor.ndim], value=17.0)

    return replace(mapped(states, pad), mask=functional.pad(states.mask, sides))
