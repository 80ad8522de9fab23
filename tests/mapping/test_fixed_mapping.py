"""Fixed mappings: the flow as given, its mass and pairs; the layer loss over it asks for nothing else."""

from collections.abc import Callable

import pytest
import torch
from encoder_states import leaves, only_layers, random_states
from messages import names
from plain_losses import mean_square
from torch import Tensor

from emdistill.errors import ConfigError, LayerCountError
from emdistill.losses import AttentionScoreCosts, HiddenStateCosts, LayerLoss, Objective
from emdistill.mapping import (
    MAPPINGS,
    EmdMapping,
    FixedMapping,
    LayerMapping,
    final_mapping,
    first_mapping,
    last_mapping,
    layer_costs,
    pkd_last_mapping,
    skip_mapping,
    uniform_mapping,
)
from emdistill.states import EncoderShape, EncoderStates

NAN = float("nan")
FLOW = torch.tensor([[0.0, 0.25, 0.0, 0.5], [0.0, 0.0, 0.0, 2.0]])


def test_the_flow_is_as_given_whatever_the_costs() -> None:
    mapping = FixedMapping(FLOW)
    for costs in (torch.zeros(2, 4), torch.full((2, 4), NAN), torch.rand(2, 4, requires_grad=True)):
        flow = mapping(costs)
        assert torch.equal(flow, FLOW)
        assert not flow.requires_grad
    assert torch.equal(mapping(torch.rand(3, 2, 4)), FLOW.expand(3, 2, 4))
    assert mapping(torch.rand(2, 4, dtype=torch.float64)).dtype == torch.float64
    assert mapping.mass == 2.75
    assert mapping.pairs == ((0, 1), (0, 3), (1, 3))
    assert (mapping.student_layers, mapping.teacher_layers) == (2, 4)
    assert repr(mapping) == "FixedMapping(pairs=[(0, 1), (0, 3), (1, 3)])"


def test_later_changes_of_the_given_matrix_change_nothing() -> None:
    given = FLOW.clone().requires_grad_()
    mapping = FixedMapping(given)
    with torch.no_grad():
        given.zero_()
    assert torch.equal(mapping(torch.zeros(2, 4)), FLOW)
    assert not list(mapping.parameters())


def test_whole_and_double_precision_shares_are_taken() -> None:
    assert torch.equal(FixedMapping(torch.eye(3, dtype=torch.long))(torch.zeros(3, 3)), torch.eye(3))
    assert FixedMapping(torch.eye(2, dtype=torch.float64)).fixed_flow.dtype == torch.float32


@pytest.mark.parametrize(
    "flow",
    [
        torch.ones(3),
        torch.ones(1, 2, 3),
        torch.empty(0, 3),
        torch.tensor([[1.0, -0.1]]),
        torch.tensor([[1.0, NAN]]),
        torch.tensor([[1.0, float("inf")]]),
        torch.tensor([[1e300]], dtype=torch.float64),
    ],
    ids=["a vector", "three dimensions", "empty", "negative", "NaN", "infinite", "beyond float32"],
)
def test_flows_that_are_none_are_refused(flow: Tensor) -> None:
    with pytest.raises(ConfigError):
        FixedMapping(flow)


def test_the_flow_is_a_buffer_that_is_saved_and_moved() -> None:
    mapping, other = FixedMapping(FLOW), FixedMapping(2 * FLOW)
    assert mapping.state_dict().keys() == {"fixed_flow"}
    other.load_state_dict(mapping.state_dict())
    assert torch.equal(other(torch.zeros(2, 4)), FLOW)
    assert mapping.to("meta").fixed_flow.device.type == "meta"


@pytest.mark.parametrize(
    ("layers", "pairs"),
    [
        ((3, 12), [(0, 3), (1, 7), (2, 11)]),  # M | N: every fourth
        ((4, 4), [(0, 0), (1, 1), (2, 2), (3, 3)]),
        ((1, 5), [(0, 4)]),
        ((4, 6), [(0, 0), (1, 2), (2, 3), (3, 5)]),  # M does not divide N: as evenly spaced layers are kept
        ((3, 2), [(0, 0), (1, 0), (2, 1)]),  # M > N: teacher layers teach several
        ((5, 1), [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)]),
    ],
)
def test_uniform(layers: tuple[int, int], pairs: list[tuple[int, int]]) -> None:
    mapping = uniform_mapping(*layers)
    assert mapping.pairs == tuple(pairs)
    assert mapping.mass == layers[0]
    flow = mapping(torch.zeros(layers))
    assert flow.sum(dim=1).tolist() == [1.0] * layers[0]
    assert flow[-1, -1] == 1  # the last layer learns from the last


@pytest.mark.parametrize(
    ("build", "layers", "teachers"),
    [
        (last_mapping, (3, 12), [9, 10, 11]),
        (last_mapping, (3, 3), [0, 1, 2]),
        (last_mapping, (5, 3), [0, 0, 0, 1, 2]),  # deeper than its teacher: the first teaches several
        (last_mapping, (1, 4), [3]),
        (first_mapping, (3, 12), [0, 1, 2]),
        (first_mapping, (5, 3), [0, 1, 2, 2, 2]),  # the last teaches several
        (first_mapping, (1, 4), [0]),
        (skip_mapping, (6, 12), [1, 3, 5, 7, 9, None]),  # the paper's 6 of 12: its layers 2, 4, 6, 8, 10
        (skip_mapping, (3, 12), [3, 7, None]),
        (skip_mapping, (4, 6), [0, 2, 3, None]),  # M does not divide N
        (skip_mapping, (5, 3), [0, 0, 0, 1, None]),
        (skip_mapping, (2, 2), [0, None]),
        (skip_mapping, (1, 6), [5]),  # nothing would be left to learn
        (pkd_last_mapping, (6, 12), [6, 7, 8, 9, 10, None]),  # the paper's: its layers 7, 8, 9, 10, 11
        (pkd_last_mapping, (3, 12), [9, 10, None]),
        (pkd_last_mapping, (5, 3), [0, 0, 0, 1, None]),
        (pkd_last_mapping, (1, 6), [5]),
        (final_mapping, (3, 12), [None, None, 11]),
        (final_mapping, (5, 3), [None, None, None, None, 2]),
        (final_mapping, (1, 1), [0]),
    ],
)
def test_which_layer_teaches_each(
    build: Callable[[int, int], FixedMapping], layers: tuple[int, int], teachers: list[int | None]
) -> None:
    mapping = build(*layers)
    taught = [(i, j) for i, j in enumerate(teachers) if j is not None]
    assert mapping.pairs == tuple(taught)
    assert mapping.mass == mapping.taught_layers == len(taught)
    assert mapping(torch.zeros(layers)).sum(dim=1).tolist() == [float(j is not None) for j in teachers]


@pytest.mark.parametrize("build", MAPPINGS.values(), ids=list(MAPPINGS))
def test_no_mapping_is_made_without_layers(build: Callable[[int, int], LayerMapping]) -> None:
    for layers, side in (((0, 3), "student_layers=0"), ((3, -1), "teacher_layers=-1")):
        with names(ConfigError, side):
            build(*layers)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("emd", "cost_attention='inverse', weight_floor=0.001, cost_floor=0.01, smoothing=0"),
        ("sinkhorn", "epsilon=0.01, differentiable=False"),
        ("unbalanced", "penalty=1"),
    ],
)
def test_a_mapping_prints_its_settings(name: str, settings: str) -> None:
    assert repr(MAPPINGS[name](3, 6)).partition("(")[2] == f"student_layers=3, teacher_layers=6, {settings})"


def test_pairs_may_be_given_instead_of_a_matrix() -> None:
    mapping = FixedMapping.of_pairs([(1, 3), (0, 1), (1, 0)], 3, 4)
    assert mapping.pairs == ((0, 1), (1, 0), (1, 3))
    assert (mapping.mass, mapping.taught_layers) == (3, 2)
    for pair, *named in (((3, 0), "student layer 3", "0..2"), ((0, -1), "teacher layer -1", "0..3")):
        with names(LayerCountError, *named):
            FixedMapping.of_pairs([(0, 0), pair], 3, 4)


def test_a_mapping_may_teach_nothing() -> None:
    """Layers that nothing asks for are not even recorded; other terms of an objective still teach."""
    mapping = FixedMapping(torch.zeros(3, 4))
    assert (mapping.mass, mapping.pairs, mapping.taught_layers) == (0, (), 0)
    assert not mapping(torch.rand(2, 3, 4)).any()
    loss = LayerLoss([HiddenStateCosts(), AttentionScoreCosts()], mapping)
    student, teacher = only_layers(drawn(3, 1), set()), only_layers(drawn(4, 2), set())
    costs = layer_costs(student.hidden, teacher.hidden, student.mask, pairs=mapping.pairs)
    assert torch.equal(costs, torch.zeros(3, 4))
    assert [term.item() for term in loss(student, teacher, {}).values()] == [0, 0]
    objective = Objective([loss], dict.fromkeys(("hidden_states", "attention_scores"), 1.0))
    assert objective.student_layers == objective.teacher_layers == frozenset()


def drawn(layers: int, seed: int) -> EncoderStates:
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    return leaves(random_states(EncoderShape(layers, 6, 2), mask, seed, dtype=torch.float32))


def test_the_layer_loss_is_that_of_its_pairs_and_asks_for_no_other_layer() -> None:
    flow = torch.tensor([[0.0, 0.25, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.0]])
    loss = LayerLoss([HiddenStateCosts(), AttentionScoreCosts()], FixedMapping(flow))
    assert (loss.student_layers, loss.teacher_layers) == ({0, 2}, {1, 3})
    student, teacher = drawn(3, 1), drawn(4, 2)
    terms = loss(only_layers(student, {0, 2}), only_layers(teacher, {1, 3}), {})
    for name, kind in (("hidden_states", "hidden"), ("attention_scores", "attention_scores")):
        pairs = [(i, j) for i in range(3) for j in range(4) if flow[i, j] > 0]
        tensors, constants = getattr(student, kind), getattr(teacher, kind)
        expected = sum(
            flow[i, j].double() * mean_square(tensors[i].double(), constants[j].detach().double(), student.mask)
            for i, j in pairs
        )
        torch.testing.assert_close(terms[name].double(), expected, rtol=1e-6, atol=0)
        found = torch.autograd.grad(terms[name], [tensors[0], tensors[2]], retain_graph=True)
        wanted = torch.autograd.grad(expected, [tensors[0], tensors[2]])
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
        assert torch.equal(loss.last_flows[name], flow)


def test_costs_outside_the_pairs_are_not_computed() -> None:
    """NaN in every layer that no pair names, and in those that are named with others only, does no harm."""
    student, teacher = drawn(2, 1), drawn(3, 2)
    with torch.no_grad():
        for tensors in (teacher.hidden, teacher.attention_scores):
            tensors[1].fill_(NAN)
        for tensors in (student.hidden, student.attention_scores):
            tensors[0].fill_(NAN)
    mapping = FixedMapping(torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 1.0]]))
    loss = LayerLoss([HiddenStateCosts(), AttentionScoreCosts()], mapping)
    costs = loss.layer_costs(student, teacher)
    assert costs.isfinite().all()
    assert (costs[:, 0] == 0).all()
    assert (costs[:, 1, 1] == 0).all()
    assert all(term.isfinite() for term in loss(student, teacher, {}).values())


def test_objectives_ask_for_the_layers_of_all_their_losses() -> None:
    def hidden(flow: Tensor) -> LayerLoss:
        return LayerLoss([HiddenStateCosts()], FixedMapping(flow))

    first, second = torch.zeros(3, 4), torch.zeros(3, 4)
    first[0, 1] = second[2, 3] = 1
    assert Objective([hidden(first)], {}).student_layers == {0}
    both = Objective([hidden(first), hidden(second)], {})
    assert (both.student_layers, both.teacher_layers) == ({0, 2}, {1, 3})
    moving = LayerLoss([AttentionScoreCosts()], EmdMapping(3, 4))
    assert Objective([hidden(first), moving], {}).student_layers is None
    assert Objective([hidden(first), moving], {}).teacher_layers is None
