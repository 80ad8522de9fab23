"""Flows from the costs of many batches: the exponential mean, its state, and the loss that stays the batch's own."""

import pytest
import torch
from encoder_states import leaves, random_states
from messages import names

from emdistill.errors import ConfigError, TrainingError
from emdistill.losses import AttentionScoreCosts, HiddenStateCosts, LayerLoss
from emdistill.mapping import (
    EmdMapping,
    LayerMapping,
    SinkhornMapping,
    UnbalancedMapping,
    solve_transport,
)
from emdistill.mapping.learned import LearnedMapping
from emdistill.states import EncoderShape, EncoderStates

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


def drawn(layers: int, seed: int) -> EncoderStates:
    return leaves(random_states(EncoderShape(layers, 6, 2), MASK, seed, dtype=torch.float32))


def batches(count: int, start: int = 0) -> list[tuple[EncoderStates, EncoderStates]]:
    return [(drawn(2, seed), drawn(3, 100 + seed)) for seed in range(start, start + count)]


def drawn_with_nan() -> tuple[EncoderStates, EncoderStates]:
    student, teacher = drawn(2, 7), drawn(3, 107)
    first = student.hidden[0]
    assert first is not None
    first.data[0, 0, 0] = float("nan")
    return student, teacher


def remembering(memory: float = 0.8) -> LayerLoss:
    mapping = EmdMapping(2, 3, cost_attention="off")
    return LayerLoss([AttentionScoreCosts(), HiddenStateCosts()], mapping, cost_memory=memory)


def test_flows_are_those_of_the_bias_corrected_exponential_mean() -> None:
    loss, uniform = remembering(), (torch.full((2,), 1 / 2), torch.full((3,), 1 / 3))
    seen = []
    for student, teacher in batches(6):
        costs = loss.layer_costs(student, teacher)
        seen.append(costs.detach().double())
        shares = torch.tensor([0.8**age for age in range(len(seen))][::-1], dtype=torch.float64)
        mean = torch.einsum("b,bkmn->kmn", shares / shares.sum(), torch.stack(seen))
        terms = loss(student, teacher, {})
        for name, matrix, own in zip(("attention_scores", "hidden_states"), mean, costs, strict=True):
            flow = solve_transport(matrix, *uniform).flow.float()
            torch.testing.assert_close(loss.last_flows[name], flow)
            torch.testing.assert_close(terms[name], (flow * own).sum())
            assert terms[name].requires_grad


def test_one_batch_is_remembered_as_itself_and_evaluation_remembers_nothing() -> None:
    loss, plain = remembering().eval(), LayerLoss([AttentionScoreCosts(), HiddenStateCosts()], EmdMapping(2, 3)).eval()
    (student, teacher), (other, another) = batches(2)
    assert loss(student, teacher, {}) == plain(student, teacher, {})
    loss.train()(student, teacher, {})
    state = {name: value.clone() for name, value in loss.state_dict().items()}
    loss.eval()(other, another, {})
    assert all(torch.equal(value, state[name]) for name, value in loss.state_dict().items())
    flows = loss.last_flows
    loss(student, teacher, {})
    assert all(torch.equal(flow, flows[name]) for name, flow in loss.last_flows.items())


def test_it_goes_on_from_its_state() -> None:
    whole, resumed = remembering(), remembering()
    for states in batches(4):
        whole(*states, {})
    resumed.load_state_dict(whole.state_dict())
    for states in batches(3, start=4):
        assert whole(*states, {}) == resumed(*states, {})


@pytest.mark.parametrize("mapping", [UnbalancedMapping(2, 3), SinkhornMapping(2, 3, differentiable=True)])
def test_any_mapping_may_remember(mapping: UnbalancedMapping | SinkhornMapping) -> None:
    loss = LayerLoss([HiddenStateCosts()], mapping, cost_memory=0.5)
    for student, teacher in batches(3):
        (term,) = loss(student, teacher, {}).values()
        term.backward()
        assert all(torch.isfinite(layer.grad).all() for layer in student.hidden)


@pytest.mark.parametrize("memory", [0.0, 0.5])
@pytest.mark.parametrize("mapping", [EmdMapping, UnbalancedMapping, SinkhornMapping, LearnedMapping])
def test_a_batch_that_is_not_finite_leaves_no_trace(mapping: type[LayerMapping], memory: float) -> None:
    """It may be left out: what comes after it is as if it had not been."""
    loss, unharmed = (LayerLoss([HiddenStateCosts()], mapping(2, 3), cost_memory=memory) for _ in range(2))
    (first, second), (student, teacher) = batches(2), drawn_with_nan()
    assert loss(*first, {}) == unharmed(*first, {})
    with names(TrainingError, "hidden_states"):
        loss(student, teacher, {})
    assert loss(*second, {}) == unharmed(*second, {})


def test_without_memory_there_is_no_state_and_nonsense_is_refused() -> None:
    assert not any("remembered" in name for name in remembering(0.0).state_dict())
    with names(ConfigError, "cost_memory=1"):
        remembering(1.0)
