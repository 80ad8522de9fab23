"""Cosine costs against 1 - cos of every unpadded token, one at a time, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from encoder_states import mapped, only_layers, random_states, with_padding
from messages import names
from plain_losses import cosine_distance
from torch import Tensor

from emdistill.errors import ConfigError
from emdistill.losses import CosineCosts, LayerLoss, Projection
from emdistill.mapping import FixedMapping
from emdistill.states import EncoderShape, EncoderStates

MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]])


def drawn(layers: int, width: int, seed: int, dtype: torch.dtype = torch.float64) -> EncoderStates:
    return random_states(EncoderShape(layers, width, 1), MASK, seed, dtype=dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.float16, 1e-5)])
def test_costs_are_the_mean_over_tokens(dtype: torch.dtype, tolerance: float) -> None:
    student, teacher = drawn(2, 6, 1, dtype), drawn(3, 6, 2, dtype)
    costs = CosineCosts()(student, teacher)
    assert costs.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert costs.shape == (2, 3)
    for i, j in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
        expected = cosine_distance(student.hidden[i].double(), teacher.hidden[j].double(), MASK)  # type: ignore[union-attr]
        assert costs[i, j].item() == pytest.approx(expected, rel=tolerance)


def test_gradient() -> None:
    student, teacher = drawn(2, 3, 3), drawn(2, 3, 4)
    layers = [layer.requires_grad_() for layer in student.hidden if layer is not None]

    def costs(*hidden: Tensor) -> Tensor:
        return CosineCosts()(EncoderStates(student.logits, MASK, hidden=hidden), teacher)

    assert torch.autograd.gradcheck(costs, layers)
    gradients = torch.autograd.grad(costs(*layers).sum(), layers)
    assert not any(gradient[MASK == 0].any() for gradient in gradients)


def test_lengths_do_not_count_and_padding_is_not_read() -> None:
    student, teacher = drawn(2, 6, 5), drawn(3, 6, 6)
    bad = with_padding(mapped(student, lambda tensor: 7.5 * tensor), math.nan)
    found = CosineCosts()(bad, teacher)
    torch.testing.assert_close(found, CosineCosts()(student, teacher), rtol=1e-12, atol=0)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(found.sum(), bad.hidden))


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


def test_only_what_the_pairs_name_is_read() -> None:
    student, teacher = drawn(2, 6, 8), drawn(3, 6, 9)
    every = CosineCosts()(student, teacher)
    fewer = only_layers(student, {1}), only_layers(teacher, {0, 2})
    found = CosineCosts()(*fewer, pairs=[(1, 2), (1, 0)])
    torch.testing.assert_close(found, torch.stack([torch.zeros(3).double(), every[1] * torch.tensor([1, 0, 1])]))
    with names(ConfigError, "teacher layer 1"):
        CosineCosts()(*fewer, pairs=[(1, 1)])


def test_unequal_widths_meet_through_a_projection() -> None:
    student, teacher = drawn(2, 4, 10), drawn(3, 6, 11)
    with names(ConfigError, "width 6"):
        CosineCosts()(student, teacher)
    projection = Projection(EncoderShape(2, 4, 1), EncoderShape(3, 6, 1), "per_layer").double()
    loss = LayerLoss([CosineCosts()], FixedMapping(torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]]))).double()
    (term,) = loss(projection(student), teacher, {}).values()
    _, *weights = projection.parameters()
    layers = [layer @ weight.T for layer, weight in zip(student.hidden, weights, strict=True)]  # type: ignore[operator]
    expected = cosine_distance(layers[0], teacher.hidden[1], MASK)
    expected += 2 * cosine_distance(layers[1], teacher.hidden[2], MASK)  # type: ignore[arg-type]
    assert term.item() == pytest.approx(expected, rel=1e-12)
