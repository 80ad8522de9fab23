"""What every kind of layer costs promises; what one kind alone promises stands in its own file."""

import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from encoder_states import leaves, longer, mapped, only_layers, random_states, with_padding
from messages import names
from plain_losses import (
    attention_divergence,
    cosine_distance,
    feature_map_distance,
    feature_mean_distance,
    feature_variance_distance,
    first_token_distance,
    flow_difference,
    mean_square,
    relation_divergence,
    unit_discrepancy,
)
from torch import Tensor

import emdistill.losses as losses
from emdistill.errors import ConfigError
from emdistill.losses import LayerLoss, Loss, Projection
from emdistill.losses.relations import RELATIONS
from emdistill.mapping import FixedMapping
from emdistill.states import EncoderShape, EncoderStates

# Padding on the right, on the left, a single token, and nothing else.
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
TEXTS = 4  # with a token
STUDENT, TEACHER = EncoderShape(2, 6, 2), EncoderShape(3, 6, 2)
HEADS = 3  # of relations

Plain = Callable[[EncoderStates, EncoderStates, int, int], float]


def by_layer(plain: Callable[[Tensor, Tensor, Tensor], float | Tensor], *kinds: str) -> tuple[tuple[str, ...], Plain]:
    """The sum over kinds of states of what `plain` makes of one layer of each side."""

    def cost(student: EncoderStates, teacher: EncoderStates, i: int, j: int) -> float:
        pairs = [(getattr(student, kind)[i].double(), getattr(teacher, kind)[j].double()) for kind in kinds]
        return sum(float(plain(one, other, MASK)) for one, other in pairs)

    return kinds, cost


def flow_cost(student: EncoderStates, teacher: EncoderStates, i: int, j: int) -> float:
    """From the embeddings to a layer, of each side."""
    sides = ((states.embeddings.double(), states.hidden[at].double()) for states, at in ((student, i), (teacher, j)))
    return flow_difference(*sides, MASK)


# Kind, and its options -> the layers it reads, and its cost of layer i of the student and layer j of the teacher.
PLAIN: dict[str, tuple[tuple[str, ...], Plain]] = {
    "AttentionDistributionCosts": by_layer(attention_divergence, "attention_scores"),
    "AttentionDistributionCosts cross-entropy": by_layer(
        partial(attention_divergence, cross_entropy=True), "attention_scores"
    ),
    "AttentionDistributionCosts kl mean": by_layer(partial(attention_divergence, mean_heads=True), "attention_scores"),
    "AttentionScoreCosts": by_layer(mean_square, "attention_scores"),
    "CosineCosts": by_layer(cosine_distance, "hidden"),
    "FeatureMapCosts": by_layer(feature_map_distance, "hidden"),
    "FeatureMapCosts means": by_layer(feature_mean_distance, "hidden"),
    "FeatureMapCosts variances": by_layer(feature_variance_distance, "hidden"),
    "FirstTokenCosts": by_layer(first_token_distance, "hidden"),
    "HiddenStateCosts": by_layer(mean_square, "hidden"),
    "NeuronSelectivityCosts": by_layer(unit_discrepancy, "hidden"),
    "RelationCosts": by_layer(partial(relation_divergence, heads=HEADS), *RELATIONS),
    "SolutionFlowCosts": (("hidden",), flow_cost),
}
OF_TEXTS = ("AttentionDistribution", "FirstToken", "NeuronSelectivity", "Relation", "SolutionFlow")


@pytest.fixture(params=PLAIN)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def costs_of(kind: str) -> Any:
    name, *options = kind.split()
    return getattr(losses, name)(*[HEADS] if name == "RelationCosts" else options)


def drawn(shape: EncoderShape, seed: int, dtype: torch.dtype = torch.float64) -> EncoderStates:
    return random_states(shape, MASK, seed, dtype=dtype)


def test_every_kind_has_its_equation() -> None:
    parts = [part for part in vars(losses).values() if inspect.isclass(part)]
    kinds = [part for part in parts if isinstance(vars(part).get("needs"), frozenset) and not issubclass(part, Loss)]
    assert {part.__name__ for part in kinds} == {kind.split()[0] for kind in PLAIN}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.float16, 1e-5)])
def test_costs_are_those_of_the_plain_equation(kind: str, dtype: torch.dtype, tolerance: float) -> None:
    student, teacher = drawn(STUDENT, 1, dtype), drawn(TEACHER, 2, dtype)
    costs = costs_of(kind)(student, teacher)
    assert costs.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = [[PLAIN[kind][1](student, teacher, i, j) for j in range(3)] for i in range(2)]
    torch.testing.assert_close(costs.double(), torch.tensor(expected, dtype=torch.float64), rtol=tolerance, atol=0)


def test_gradient(kind: str) -> None:
    """By finite differences for the student's states; none for the teacher's."""
    student, teacher = leaves(drawn(EncoderShape(1, 3, 1), 3)), leaves(drawn(EncoderShape(2, 3, 1), 4))
    states, costs = PLAIN[kind][0], costs_of(kind)
    layers = [getattr(student, name)[0] for name in states]

    def of(*layers: Tensor) -> Tensor:
        return costs(replace(student, **{name: (layer,) for name, layer in zip(states, layers, strict=True)}), teacher)

    assert torch.autograd.gradcheck(of, layers)
    of(*layers).sum().backward()
    assert all(layer.grad.any() for layer in layers)
    assert all(getattr(teacher, name)[0].grad is None for name in states)


@pytest.mark.parametrize("filler", [1e30, math.nan, math.inf])
def test_padding_has_neither_value_nor_gradient(kind: str, filler: float) -> None:
    student, teacher, costs = drawn(STUDENT, 5, torch.float32), drawn(TEACHER, 6, torch.float32), costs_of(kind)
    spoiled = with_padding(student, filler)
    found = costs(spoiled, with_padding(teacher, filler))
    assert torch.equal(found, costs(student, teacher))
    padding = MASK == 0
    pairs = (padding[:, :, None] | padding[:, None, :])[:, None]
    layers = [layer for name in PLAIN[kind][0] for layer in getattr(spoiled, name)]
    for gradient in torch.autograd.grad(found.sum(), layers):
        assert gradient.isfinite().all()
        assert not (gradient * (padding[..., None] if gradient.ndim == 3 else pairs)).any()


def test_more_padding_changes_nothing(kind: str) -> None:
    student, teacher, costs = drawn(STUDENT, 7), drawn(TEACHER, 8), costs_of(kind)
    found = costs(longer(student, 2, 3), longer(teacher, 2, 3))
    torch.testing.assert_close(found, costs(student, teacher), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", [kind for kind in PLAIN if kind.startswith(OF_TEXTS)])
def test_texts_weigh_the_same_in_any_company(kind: str) -> None:
    student, teacher, costs = drawn(STUDENT, 9), drawn(TEACHER, 10), costs_of(kind)

    def alone(states: EncoderStates, text: int) -> EncoderStates:
        return replace(mapped(states, lambda tensor: tensor[[text]]), mask=MASK[[text]])

    each = [costs(alone(student, text), alone(teacher, text)) for text in range(TEXTS)]
    torch.testing.assert_close(torch.stack(each).mean(dim=0), costs(student, teacher), rtol=1e-12, atol=1e-15)


def test_autocast_does_not_round_and_nan_shows(kind: str) -> None:
    student, teacher, costs = drawn(STUDENT, 11, torch.float32), drawn(TEACHER, 12, torch.float32), costs_of(kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = costs(student, teacher)
    assert torch.equal(found, costs(student, teacher))
    for name in PLAIN[kind][0]:
        getattr(student, name)[0].view(-1)[0] = math.nan
    assert costs(student, teacher)[0].isnan().all()


def test_only_what_the_pairs_name_is_read(kind: str) -> None:
    student, teacher, costs = drawn(STUDENT, 13), drawn(TEACHER, 14), costs_of(kind)
    every, fewer = costs(student, teacher), (only_layers(student, {1}), only_layers(teacher, {0, 2}))
    found = costs(*fewer, pairs=[(1, 2), (1, 0)])
    torch.testing.assert_close(found, torch.stack([torch.zeros(3).double(), every[1] * torch.tensor([1, 0, 1])]))
    assert not costs(*fewer, pairs=[]).any()
    for pair, layer in (((1, 1), "teacher layer 1"), ((0, 2), "student layer 0")):
        with names(ConfigError, layer):
            costs(*fewer, pairs=[pair])


@pytest.mark.parametrize("kind", ["CosineCosts", "FeatureMapCosts", "FirstTokenCosts", "HiddenStateCosts"])
@pytest.mark.parametrize("projection", ["shared", "per_layer"])
def test_unequal_widths_meet_through_a_projection(kind: str, projection: Any) -> None:
    narrow = EncoderShape(2, 4, 1)
    student, teacher = drawn(narrow, 15), drawn(TEACHER, 16)
    with names(ConfigError, "width 6"):
        costs_of(kind)(student, teacher)
    matrices = Projection(narrow, TEACHER, projection).double()
    loss = LayerLoss([costs_of(kind)], FixedMapping(torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]]))).double()
    (term,) = loss(matrices(student), teacher, {}).values()
    weights = [*matrices.parameters()][-2:] * (2 if projection == "shared" else 1)
    layers = [layer @ weight.detach().T for layer, weight in zip(student.hidden, weights, strict=True)]
    wide, plain = replace(student, hidden=tuple(layers)), PLAIN[kind][1]
    assert term.item() == pytest.approx(plain(wide, teacher, 0, 1) + 2 * plain(wide, teacher, 1, 2), rel=1e-12)
