"""The objective: a weighted sum that says what it needs, prints its equation, and refuses what does not add up."""

from collections.abc import Mapping

import pytest
import torch
from encoder_states import leaves, random_states
from messages import names
from torch import Tensor

from emdistill.errors import CaptureError, ConfigError, TrainingError
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
from emdistill.mapping import EmdMapping, FixedMapping, uniform_mapping
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
    with pytest.raises(ConfigError):
        Objective([], {})


@pytest.mark.parametrize("weights", [{}, {"one": 1.0}, {"one": 1.0, "two": 1.0, "three": 1.0}])
def test_terms_and_weights_must_be_the_same(weights: dict[str, float]) -> None:
    objective = Objective([Constant(one=1.0, two=2.0)], weights)
    with names(ConfigError, "one, two", ", ".join(weights) or "none"):
        objective(STATES, STATES, BATCH)


def test_a_term_of_two_losses_is_refused() -> None:
    objective = Objective([Constant(one=1.0), Constant(one=2.0)], {"one": 1.0})
    with names(ConfigError, "one"):
        objective(STATES, STATES, BATCH)


def test_states_that_were_not_captured() -> None:
    with names(CaptureError, "--objective.embeddings 0"):
        EmbeddingLoss()(STATES, STATES, BATCH)
    with names(ConfigError, "student"):
        LayerLoss([HiddenStateCosts()], EmdMapping(2, 2))(STATES, STATES, BATCH)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_temperatures(temperature: float) -> None:
    with names(ConfigError, "temperature"):
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


def drawn(layers: int, seed: int) -> EncoderStates:
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    return leaves(random_states(EncoderShape(layers, 6, 2), mask, seed, outputs=3, dtype=torch.float32))


def several_layer_losses() -> list[Loss]:
    """Of separate layer weights, fixed flows and both kinds; the second lies between losses of other kinds."""
    hidden, scores, fixed = HiddenStateCosts(), AttentionScoreCosts(), HiddenStateCosts()
    fixed.name = "fixed"
    return [
        LayerLoss([hidden], EmdMapping(2, 3, weight_floor=0.01)),
        SoftTargets(),
        LayerLoss([fixed], uniform_mapping(2, 3)),
        LayerLoss([scores], EmdMapping(2, 3, cost_attention="softmax")),
        HardLabels(),
    ]


def test_several_layer_losses_each_get_their_own_costs_and_weights_back() -> None:
    """All share one copy to the CPU; each must then do what it does alone, twice, for its layer weights move."""
    together, alone = several_layer_losses(), several_layer_losses()
    weights = dict.fromkeys(("hidden_states", "soft_targets", "fixed", "attention_scores", "hard_labels"), 1.0)
    objective = Objective(together, weights)
    for seed in (1, 2):
        student, teacher = drawn(2, seed), drawn(3, 10 + seed)
        total, terms = objective(student, teacher, BATCH)
        expected: dict[str, Tensor] = {}
        for loss in alone:
            expected |= loss(student, teacher, BATCH)
        assert list(terms) == list(expected) == list(weights)
        for name, value in expected.items():
            assert torch.equal(terms[name], value), name
        for one, other in zip(together, alone, strict=True):
            assert one.state_dict().keys() == other.state_dict().keys()
            assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
        gradients = torch.autograd.grad(total, student.hidden + student.attention_scores)
        wanted = torch.autograd.grad(sum(expected.values()), student.hidden + student.attention_scores)
        for gradient, other in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(gradient, other)


def test_meanwhile_comes_once_after_all_costs_and_before_any_flow() -> None:
    losses = several_layer_losses()
    events: list[str] = []
    for loss in losses:
        if isinstance(loss, LayerLoss):
            costs, flow = loss.layer_costs, loss.mapping.flow
            loss.layer_costs = lambda *states, costs=costs: events.append("costs") or costs(*states)
            loss.mapping.flow = lambda *given, flow=flow: events.append("flow") or flow(*given)
    weights = dict.fromkeys(("hidden_states", "soft_targets", "fixed", "attention_scores", "hard_labels"), 1.0)
    objective = Objective(losses, weights)
    objective(drawn(2, 1), drawn(3, 2), BATCH, lambda: events.append("meanwhile"))
    assert events == ["costs"] * 3 + ["meanwhile"] + ["flow"] * 3
    calls: list[int] = []
    Objective([SoftTargets()], {"soft_targets": 1.0})(STATES, STATES, BATCH, lambda: calls.append(1))
    assert calls == [1]  # without layers too


def test_meanwhile_changes_no_number() -> None:
    student, teacher = drawn(2, 1), drawn(3, 2)
    weights = dict.fromkeys(("hidden_states", "soft_targets", "fixed", "attention_scores", "hard_labels"), 0.5)
    outcomes = [
        Objective(several_layer_losses(), weights)(student, teacher, BATCH, *more) for more in ((), (lambda: None,))
    ]
    assert torch.equal(outcomes[0][0], outcomes[1][0])


def test_a_flow_that_decides_nothing_may_meet_costs_that_are_not_finite() -> None:
    """The trainer finds the term; a plan cannot be solved, so that its costs are refused at once and by name."""
    student, teacher = drawn(2, 1), drawn(3, 2)
    with torch.no_grad():
        teacher.hidden[2].fill_(float("nan"))
    (term,) = LayerLoss([HiddenStateCosts()], FixedMapping(torch.eye(2, 3)))(student, teacher, {}).values()
    assert term.isfinite()  # layer 2 is in no pair
    (term,) = LayerLoss([HiddenStateCosts()], uniform_mapping(2, 3))(student, teacher, {}).values()
    assert term.isnan()
    moving = LayerLoss([AttentionScoreCosts(), HiddenStateCosts()], EmdMapping(2, 3))
    with names(TrainingError, "hidden_states"):
        moving(student, teacher, {})
