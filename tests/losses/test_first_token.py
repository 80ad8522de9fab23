"""First-token costs against equation 7 of Patient KD, one text at a time, in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from encoder_states import leaves, only_layers, random_states
from messages import names
from plain_losses import first_token_distance
from torch import Tensor

from emdistill.errors import ConfigError
from emdistill.losses import FirstTokenCosts, LayerLoss, Projection
from emdistill.mapping import FixedMapping
from emdistill.states import EncoderShape, EncoderStates

# Padding on the right, on the left, and nothing else.
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]])
FIRST = {0: 0, 1: 0, 2: 1}


def drawn(layers: int, width: int, seed: int, dtype: torch.dtype = torch.float64) -> EncoderStates:
    return random_states(EncoderShape(layers, width, 1), MASK, seed, dtype=dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.float16, 1e-5)])
def test_costs_are_equation_7_over_the_batch(dtype: torch.dtype, tolerance: float) -> None:
    student, teacher = drawn(2, 6, 1, dtype), drawn(3, 6, 2, dtype)
    costs = FirstTokenCosts()(student, teacher)
    assert costs.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert costs.shape == (2, 3)
    for i, j in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
        expected = first_token_distance(student.hidden[i].double(), teacher.hidden[j].double(), MASK)  # type: ignore[union-attr]
        assert costs[i, j].item() == pytest.approx(expected, rel=tolerance)


def test_gradient_reaches_first_tokens_only() -> None:
    student, teacher = drawn(2, 3, 3), drawn(2, 3, 4)
    layers = [layer.requires_grad_() for layer in student.hidden if layer is not None]

    def costs(*hidden: Tensor) -> Tensor:
        return FirstTokenCosts()(EncoderStates(student.logits, MASK, hidden=hidden), teacher)

    assert torch.autograd.gradcheck(costs, layers)
    for gradient in torch.autograd.grad(costs(*layers).sum(), layers):
        moved = {(text, place) for text, place in gradient.any(dim=-1).nonzero().tolist()}
        assert moved == {*FIRST.items()}


def test_all_other_tokens_may_hold_anything() -> None:
    student, teacher = drawn(2, 6, 5), drawn(3, 6, 6)
    first = torch.zeros(MASK.shape, dtype=torch.bool)
    first[[*FIRST.keys()], [*FIRST.values()]] = True
    bad, worse = (
        leaves(replace(states, hidden=tuple(layer.masked_fill(~first[..., None], math.nan) for layer in states.hidden)))
        for states in (student, teacher)
    )
    found = FirstTokenCosts()(bad, worse, compiled=True)
    assert torch.equal(found, FirstTokenCosts()(student, teacher))
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(found.sum(), bad.hidden))


def test_only_what_the_pairs_name_is_read() -> None:
    student, teacher = drawn(2, 6, 8), drawn(3, 6, 9)
    every = FirstTokenCosts()(student, teacher)
    fewer = only_layers(student, {0}), only_layers(teacher, {2})
    expected = torch.zeros(2, 3).double()
    expected[0, 2] = every[0, 2]
    torch.testing.assert_close(FirstTokenCosts()(*fewer, pairs=[(0, 2)]), expected)
    with names(ConfigError, "student layer 1"):
        FirstTokenCosts()(*fewer, pairs=[(1, 2)])


def test_the_patient_loss_of_a_narrow_student() -> None:
    """L = Σ over the mapped layers of equation 7, the student's states carried to the teacher's width."""
    student, teacher = drawn(2, 4, 10), drawn(3, 6, 11)
    with names(ConfigError, "width 6"):
        FirstTokenCosts()(student, teacher)
    projection = Projection(EncoderShape(2, 4, 1), EncoderShape(3, 6, 1), "shared").double()
    loss = LayerLoss([FirstTokenCosts()], FixedMapping(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])))
    (term,) = loss(projection(student), teacher, {}).values()
    (weight,) = projection.parameters()
    layers = [layer @ weight.T for layer in student.hidden]  # type: ignore[operator]
    expected = sum(first_token_distance(layers[i], teacher.hidden[i], MASK) for i in (0, 1))
    assert term.item() == pytest.approx(expected, rel=1e-12)
