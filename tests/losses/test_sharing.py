"""What tasks share: orthogonality of private features, the discriminator behind reversed gradients."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from encoder_states import random_states
from torch import Tensor

from emdistill.errors import CaptureError
from emdistill.losses import Orthogonality, TaskDiscriminator
from emdistill.losses.task_discriminator import reverse
from emdistill.states import EncoderShape, EncoderStates

MASK = torch.ones(6, 4, dtype=torch.long)


def states(*features: Tensor) -> EncoderStates:
    return replace(random_states(EncoderShape(1, 4, 2), MASK, 0), features=features)


def orthogonality(shared: Tensor, private: Tensor) -> Tensor:
    return Orthogonality()(states(shared, private), states(), {})["orthogonality"]


def test_orthogonality_by_hand() -> None:
    draw = np.random.RandomState(1)
    shared, private = draw.standard_normal((6, 4)), draw.standard_normal((6, 3))
    rows = [part / np.sqrt((part**2).sum(axis=1, keepdims=True)) for part in (shared, private)]
    expected = sum((rows[0][:, i] @ rows[1][:, j]) ** 2 for i in range(4) for j in range(3)) / 36
    assert orthogonality(torch.tensor(shared), torch.tensor(private)).item() == pytest.approx(expected, rel=1e-12)


def test_orthogonal_features_cost_nothing() -> None:
    """Columns of S and of P from an orthogonal basis of the rows; rows of unit length all the same."""
    basis, _ = np.linalg.qr(np.random.RandomState(2).standard_normal((6, 6)))
    signs = np.where(basis > 0, 1.0, -1.0)
    hadamard = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64)
    shared, private = hadamard[:, :2] / math.sqrt(2), hadamard[:, 2:] / math.sqrt(2)
    assert orthogonality(shared, private).item() == pytest.approx(0, abs=1e-12)
    assert orthogonality(torch.tensor(signs), torch.tensor(signs)).item() > 0.1


def test_orthogonality_needs_private_features() -> None:
    with pytest.raises(CaptureError):
        Orthogonality()(states(torch.ones(6, 4), None), states(), {})  # type: ignore[arg-type]


def test_training_makes_features_orthogonal() -> None:
    """A private layer that is free to move away from the shared features does."""
    torch.manual_seed(0)
    inputs, private = torch.randn(64, 8), torch.nn.Linear(8, 8)
    shared = inputs[:, :4]
    optimizer = torch.optim.Adam(private.parameters(), lr=0.05)
    first = orthogonality(shared, private(inputs)).item()
    for _ in range(200):
        loss = orthogonality(shared, private(inputs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05 * first


def test_reversed_gradients() -> None:
    features = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 4, dtype=torch.float64)
    (weights * reverse(features)).sum().backward()
    assert torch.equal(features.grad, -weights)
    assert torch.equal(reverse(features), features)


@pytest.mark.parametrize("adversary", [True, False])
def test_the_discriminator_comes_to_chance(adversary: bool) -> None:
    """Inputs that betray their task; the encoder may keep what the label needs, and forget the task."""
    torch.manual_seed(0)
    tasks = torch.arange(256) % 2
    inputs = torch.randn(256, 6)
    inputs[:, 0] += 3.0 * (2 * tasks - 1)  # the task
    labels = inputs[:, 1]
    encoder, regressor = torch.nn.Linear(6, 3), torch.nn.Linear(3, 1)
    loss = TaskDiscriminator(3, 2)
    optimizer = torch.optim.Adam([*encoder.parameters(), *regressor.parameters()], lr=0.01)
    opponent = torch.optim.Adam(loss.parameters(), lr=0.02)
    for _ in range(600):
        features = encoder(inputs)
        task_loss = (regressor(features)[:, 0] - labels).square().mean()
        cost = loss(states(features if adversary else features.detach()), states(), {"task": tasks})
        optimizer.zero_grad()
        opponent.zero_grad()
        (task_loss + cost["task_discriminator"]).backward()
        optimizer.step()
        opponent.step()
    features = encoder(inputs).detach()
    right = (loss.discriminate(features).argmax(dim=-1) == tasks).float().mean().item()
    assert task_loss.item() < 0.1
    assert abs(right - 0.5) < 0.15 if adversary else right > 0.95


def test_the_features_of_tokens_are_averaged_over_the_text() -> None:
    loss = TaskDiscriminator(4, 2).double()
    tokens = torch.randn(6, 4, 4, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 0, 0]] * 6)
    batch = {"task": torch.ones(6, dtype=torch.long)}
    several = loss(replace(states(tokens), mask=mask), states(), batch)["task_discriminator"]
    mean = loss(states(tokens[:, :2].mean(dim=1)), states(), batch)["task_discriminator"]
    torch.testing.assert_close(several, mean, rtol=1e-5, atol=1e-6)
