"""Cosine costs against 1 - cos of every unpadded token, one at a time, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from emdistill.errors import ConfigError
from emdistill.losses import CosineCosts, LayerLoss, Projection
from emdistill.mapping import FixedMapping
from emdistill.states import EncoderShape, EncoderStates

MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]])


def random_states(layers: int, width: int, seed: int, dtype: torch.dtype = torch.float64) -> EncoderStates:
    draw = torch.Generator().manual_seed(seed)
    hidden = [torch.randn(*MASK.shape, width, generator=draw, dtype=torch.float64).to(dtype) for _ in range(layers)]
    return EncoderStates(torch.zeros(len(MASK), 2), MASK, hidden=tuple(hidden))


def reference(student: Tensor, teacher: Tensor) -> float:
    distances = []
    for text, row in enumerate(MASK.tolist()):
        for place in (place for place, value in enumerate(row) if value):
            one, two = student[text, place].tolist(), teacher[text, place].tolist()
            product = sum(a * b for a, b in zip(one, two, strict=True))
            lengths = [math.sqrt(sum(a * a for a in vector)) for vector in (one, two)]
            distances.append(1 - product / (lengths[0] * lengths[1]))
    return sum(distances) / len(distances)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.float16, 1e-5)])
def test_costs_are_the_mean_over_tokens(dtype: torch.dtype, tolerance: float) -> None:
    student, teacher = random_states(2, 6, 1, dtype), random_states(3, 6, 2, dtype)
    costs = CosineCosts()(student, teacher)
    assert costs.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert costs.shape == (2, 3)
    for i, j in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
        expected = reference(student.hidden[i].double(), teacher.hidden[j].double())  # type: ignore[union-attr]
        assert costs[i, j].item() == pytest.approx(expected, rel=tolerance)


def test_gradient() -> None:
    student, teacher = random_states(2, 3, 3), random_states(2, 3, 4)
    layers = [layer.requires_grad_() for layer in student.hidden if layer is not None]

    def costs(*hidden: Tensor) -> Tensor:
        return CosineCosts()(EncoderStates(student.logits, MASK, hidden=hidden), teacher)

    assert torch.autograd.gradcheck(costs, layers)
    gradients = torch.autograd.grad(costs(*layers).sum(), layers)
    assert not any(gradient[MASK == 0].any() for gradient in gradients)


def test_lengths_do_not_count_and_padding_is_not_read() -> None:
    student, teacher = random_states(2, 6, 5), random_states(3, 6, 6)
    scaled = [7.5 * layer for layer in student.hidden if layer is not None]
    spoiled = [layer.masked_fill((MASK == 0)[..., None], math.nan).requires_grad_() for layer in scaled]
    found = CosineCosts()(EncoderStates(student.logits, MASK, hidden=tuple(spoiled)), teacher)
    torch.testing.assert_close(found, CosineCosts()(student, teacher), rtol=1e-12, atol=0)
    gradients = torch.autograd.grad(found.sum(), spoiled)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_opposite_equal_and_nearly_equal_directions() -> None:
    student = random_states(1, 6, 7, torch.float32)
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
    student, teacher = random_states(2, 6, 8), random_states(3, 6, 9)
    every = CosineCosts()(student, teacher)
    fewer = (
        EncoderStates(student.logits, MASK, hidden=(None, student.hidden[1])),
        EncoderStates(teacher.logits, MASK, hidden=(teacher.hidden[0], None, teacher.hidden[2])),
    )
    found = CosineCosts()(*fewer, pairs=[(1, 2), (1, 0)])
    torch.testing.assert_close(found, torch.stack([torch.zeros(3).double(), every[1] * torch.tensor([1, 0, 1])]))
    with pytest.raises(ConfigError, match="teacher layer 1 was not recorded"):
        CosineCosts()(*fewer, pairs=[(1, 1)])


def test_unequal_widths_meet_through_a_projection() -> None:
    student, teacher = random_states(2, 4, 10), random_states(3, 6, 11)
    with pytest.raises(ConfigError, match="differ in width: project the student's states to width 6"):
        CosineCosts()(student, teacher)
    projection = Projection(EncoderShape(2, 4, 1), EncoderShape(3, 6, 1), "per_layer").double()
    loss = LayerLoss([CosineCosts()], FixedMapping(torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]]))).double()
    (term,) = loss(projection(student), teacher, {}).values()
    _, *weights = projection.parameters()
    layers = [layer @ weight.T for layer, weight in zip(student.hidden, weights, strict=True)]  # type: ignore[operator]
    expected = reference(layers[0], teacher.hidden[1]) + 2 * reference(layers[1], teacher.hidden[2])  # type: ignore[arg-type]
    assert term.item() == pytest.approx(expected, rel=1e-12)
