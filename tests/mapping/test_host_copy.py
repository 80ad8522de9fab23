"""Small tensors to the CPU in one copy: the same values, shapes and order, nothing of the gradient."""

import pytest
import torch

from emdistill.mapping import HostCopy


def test_values_shapes_and_order_are_kept() -> None:
    tensors = [torch.randn(2, 3, 4), torch.tensor(5.0), torch.randn(7), torch.empty(0, 3)]
    for sent, arrived in zip(tensors, HostCopy(tensors).wait(), strict=True):
        assert torch.equal(sent, arrived)
    assert HostCopy([]).wait() == []


def test_it_holds_what_the_tensors_held_then_and_no_gradient() -> None:
    weights = torch.ones(3, requires_grad=True)
    buffer = torch.zeros(2)
    copy = HostCopy([weights * 2, buffer])
    buffer.fill_(9.0)  # layer weights move on before the copy is read
    first, second = copy.wait()
    assert not first.requires_grad
    assert first.tolist() == [2.0, 2.0, 2.0]
    assert second.tolist() == [0.0, 0.0]
    assert copy.wait()[0].tolist() == first.tolist()  # waiting twice is no harm


@pytest.mark.parametrize(
    ("given", "arrives"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.bool, torch.float32),
    ],
)
def test_numbers_arrive_in_at_least_float32(given: torch.dtype, arrives: torch.dtype) -> None:
    values = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).to(given)
    (arrived,) = HostCopy([values]).wait()
    assert arrived.dtype == arrives
    assert torch.equal(arrived, values.to(arrives))


def test_nan_and_infinity_arrive() -> None:
    (arrived,) = HostCopy([torch.tensor([float("nan"), float("inf"), -float("inf")])]).wait()
    assert arrived.isnan().tolist() == [True, False, False]
    assert arrived[1:].tolist() == [float("inf"), -float("inf")]
