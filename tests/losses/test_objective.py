"""The objective: a weighted sum that says what it needs, prints its equation, and refuses what does not add up."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from emdistill.errors import CaptureError, ConfigError
from emdistill.losses import (
    AttentionScoreCosts,
    EmbeddingLoss,
    HardLabels,
    HiddenStateCosts,
    LayerLoss,
    Loss,
    Objective,
    Projection,
    SoftTargets,
)
from emdistill.mapping import EmdMapping
from emdistill.states import EncoderShape, EncoderStates

SHAPE = EncoderShape(layers=2, width=4, heads=2)


class Constant(Loss):
    """Terms of given values."""

    def __init__(self, **values: float) -> None:
        super().__init__()
        self.values = values

    def forward(self, student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: torch.tensor(value) for name, value in self.values.items()}


STATES = EncoderStates(torch.zeros(2, 3), torch.ones(2, 4, dtype=torch.long))
BATCH = {"labels": torch.tensor([0, 2])}


def test_total_is_the_sum_of_the_weighted_terms() -> None:
    objective = Objective([Constant(one=1.0, two=2.0), Constant(three=3.0)], {"one": 10.0, "three": 0.5, "two": 0.0})
    total, terms = objective(STATES, STATES, BATCH)
    assert total.item() == 11.5
    assert {name: term.item() for name, term in terms.items()} == {"one": 10.0, "two": 0.0, "three": 1.5}


def test_equation() -> None:
    objective = Objective([Constant(one=1.0), Constant(two=2.0)], {"one": 10.0, "two": 0.001})
    assert str(objective) == "L = 10·one + 0.001·two"


@pytest.mark.parametrize(
    ("losses", "needs", "taught"),
    [
        ([HardLabels()], set(), False),
        ([SoftTargets()], set(), True),
        ([HardLabels(), SoftTargets()], set(), True),
        ([EmbeddingLoss()], {"embeddings"}, True),
        ([LayerLoss([HiddenStateCosts()], EmdMapping(2, 2))], {"hidden"}, True),
        ([LayerLoss([AttentionScoreCosts()], EmdMapping(2, 2)), HardLabels()], {"attention"}, True),
        ([LayerLoss([AttentionScoreCosts(), HiddenStateCosts()], EmdMapping(2, 2))], {"attention", "hidden"}, True),
    ],
)
def test_needs_and_taught(losses: list[Loss], needs: set[str], taught: bool) -> None:
    objective = Objective(losses, {})
    assert objective.needs == needs
    assert objective.taught is taught


def test_layer_losses_are_found_for_whoever_records_flows() -> None:
    layer_losses = [LayerLoss([kind], EmdMapping(2, 3)) for kind in (HiddenStateCosts(), AttentionScoreCosts())]
    assert Objective([layer_losses[0], HardLabels(), layer_losses[1]], {}).layer_losses() == layer_losses
    assert all(loss.last_flows == {} for loss in layer_losses)


def test_what_is_learned_is_in_the_state() -> None:
    losses = [LayerLoss([HiddenStateCosts()], EmdMapping(2, 3)), HardLabels()]
    objective = Objective(losses, {}, Projection(SHAPE, SHAPE, "shared"))
    assert set(objective.state_dict()) == {
        "losses.0.mapping.student_weights",
        "losses.0.mapping.teacher_weights",
        "projection.weights.0.weight",
    }
    assert [name for name, _ in objective.named_parameters()] == ["projection.weights.0.weight"]


def test_no_loss_is_refused() -> None:
    with pytest.raises(ConfigError, match="the objective has no loss: give at least one term a weight above 0"):
        Objective([], {})


@pytest.mark.parametrize("weights", [{}, {"one": 1.0}, {"one": 1.0, "two": 1.0, "three": 1.0}])
def test_terms_and_weights_must_be_the_same(weights: dict[str, float]) -> None:
    objective = Objective([Constant(one=1.0, two=2.0)], weights)
    with pytest.raises(ConfigError, match=r"yield the terms one, two, the weights name (none|one|one, two, three): "):
        objective(STATES, STATES, BATCH)


def test_a_term_of_two_losses_is_refused() -> None:
    objective = Objective([Constant(one=1.0), Constant(one=2.0)], {"one": 1.0})
    with pytest.raises(ConfigError, match="two losses yield the term one"):
        objective(STATES, STATES, BATCH)


def test_states_that_were_not_captured() -> None:
    with pytest.raises(CaptureError, match=r"switch it off: --objective\.embeddings 0"):
        EmbeddingLoss()(STATES, STATES, BATCH)
    with pytest.raises(ConfigError, match="no student layers"):
        LayerLoss([HiddenStateCosts()], EmdMapping(2, 2))(STATES, STATES, BATCH)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_temperatures(temperature: float) -> None:
    with pytest.raises(ConfigError, match="temperature must be above 0"):
        SoftTargets(temperature=temperature)


def test_temperature_keeps_the_gradients_scale() -> None:
    """For small logits, d/dz of T² · CE is (z - t) / C, whatever T."""
    teacher = EncoderStates(torch.tensor([[0.01, -0.02, 0.01]]), torch.ones(1, 1))
    gradients = []
    for temperature in (1.0, 4.0, 20.0):
        logits = torch.tensor([[0.03, 0.0, -0.03]], requires_grad=True)
        student = EncoderStates(logits, torch.ones(1, 1))
        SoftTargets(temperature=temperature)(student, teacher, {})["soft_targets"].backward()
        gradients.append(logits.grad)
    expected = (torch.tensor([[0.03, 0.0, -0.03]]) - teacher.logits) / 3
    for gradient in gradients:
        torch.testing.assert_close(gradient, expected, rtol=0.02, atol=2e-4)
