"""Standardised logits against 2 (1 − correlation) by NumPy, and what cannot be standardised."""

import numpy as np
import pytest
import torch
from torch import Tensor

from emdistill.losses import StandardisedLogits
from emdistill.states import EncoderStates


def term(student: Tensor, teacher: Tensor) -> Tensor:
    mask = torch.ones(len(student), 1)
    return StandardisedLogits()(EncoderStates(student, mask), EncoderStates(teacher, mask), {})["standardised_logits"]


@pytest.mark.parametrize(("rows", "classes"), [(3, 1), (8, 2), (32, 5)])
def test_it_is_twice_what_a_correlation_lacks(rows: int, classes: int) -> None:
    draw = np.random.RandomState(0)
    student, teacher = draw.standard_normal((2, rows, classes))
    columns = [np.corrcoef(student[:, c], teacher[:, c])[0, 1] for c in range(classes)]
    expected = np.mean([2 * (1 - correlation) for correlation in columns])
    assert term(torch.tensor(student), torch.tensor(teacher)).item() == pytest.approx(expected, rel=1e-12)
    logits = torch.tensor(student, requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: term(values, torch.tensor(teacher)), logits)


def test_scale_and_offset_of_a_class_change_nothing_and_a_turned_one_costs_most() -> None:
    teacher = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert term(teacher * torch.tensor([0.1, 2.0, 30.0]) + 7, teacher).item() == pytest.approx(0, abs=1e-12)
    assert term(-teacher, teacher).item() == pytest.approx(4)


@pytest.mark.parametrize("side", [0, 1])
def test_what_does_not_vary_adds_nothing(side: int) -> None:
    """A class that is constant but for rounding, and a batch of one row; without an infinite gradient."""
    both = [torch.randn(6, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    whole = [2 * (1 - np.corrcoef(both[0][:, c], both[1][:, c])[0, 1]) for c in range(3)]
    both[side][:, 1] = 0.1
    both[side][0, 1] += 1e-8
    student, teacher = both[0].requires_grad_(), both[1]
    value = term(student, teacher)
    assert value.item() == pytest.approx((whole[0] + whole[2]) / 3, rel=1e-5)
    value.backward()
    assert torch.isfinite(student.grad).all()
    assert not student.grad[:, 1].any()
    one = torch.randn(1, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(term(one, teacher[:1]), one)
    assert term(one, teacher[:1]).item() == 0
    assert not gradient.any()


def test_nan_is_seen() -> None:
    student = torch.randn(4, 2)
    student[1, 1] = torch.nan
    assert term(student, torch.randn(4, 2)).isnan()
