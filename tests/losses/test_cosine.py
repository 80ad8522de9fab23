"""Cosine costs see directions alone, down to the smallest angles."""

import math

import pytest
import torch
from encoder_states import mapped, random_states

from emdistill.losses import CosineCosts
from emdistill.states import EncoderShape, EncoderStates

MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]])


def drawn(layers: int, width: int, seed: int, dtype: torch.dtype = torch.float64) -> EncoderStates:
    return random_states(EncoderShape(layers, width, 1), MASK, seed, dtype=dtype)


def test_lengths_do_not_count() -> None:
    student, teacher = drawn(2, 6, 5), drawn(3, 6, 6)
    found = CosineCosts()(mapped(student, lambda tensor: 7.5 * tensor), teacher)
    torch.testing.assert_close(found, CosineCosts()(student, teacher), rtol=1e-12, atol=0)


def test_opposite_equal_and_nearly_equal_directions() -> None:
    student = drawn(1, 6, 7, torch.float32)
    (layer,) = student.hidden
    assert layer is not None
    across = torch.zeros_like(layer)  # at right angles to the layer
    across[..., 0], across[..., 1] = -layer[..., 1], layer[..., 0]
    norms = layer.norm(dim=-1, keepdim=True)
    near = layer + 1e-4 * norms * across / across.norm(dim=-1, keepdim=True)
    teacher = EncoderStates(student.logits, MASK, hidden=(layer, -layer, near))
    costs = CosineCosts()(student, teacher)[0].tolist()
    assert costs[:2] == [0, pytest.approx(2, rel=1e-6)]
    assert costs[2] == pytest.approx(1 - math.cos(math.atan(1e-4)), rel=1e-2)  # 5e-9: 1 - cos in float32 would be 0
