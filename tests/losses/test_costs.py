"""Every kind of layer costs against its plain equation; what one kind alone promises stands in its own file."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from encoder_states import leaves, only_layers, random_states
from messages import names
from plain_losses import (
    attention_divergence,
    cosine_distance,
    feature_map_distance,
    feature_mean_distance,
    feature_variance_distance,
    first_token_distance,
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
STUDENT, TEACHER = EncoderShape(2, 6, 2), EncoderShape(3, 6, 2)
HEADS = 3  # of relations

Plain = Callable[[Tensor, Tensor, Tensor], float | Tensor]
# Kind -> the states it reads, and what it makes of those of one layer of each side.
PLAIN: dict[str, tuple[tuple[str, ...], Plain]] = {
    "AttentionDistributionCosts": (("attention_scores",), attention_divergence),
    "AttentionScoreCosts": (("attention_scores",), mean_square),
    "CosineCosts": (("hidden",), cosine_distance),
    "FeatureMapCosts": (("hidden",), feature_map_distance),
    "FeatureMapCosts means": (("hidden",), feature_mean_distance),
    "FeatureMapCosts variances": (("hidden",), feature_variance_distance),
    "FirstTokenCosts": (("hidden",), first_token_distance),
    "HiddenStateCosts": (("hidden",), mean_square),
    "NeuronSelectivityCosts": (("hidden",), unit_discrepancy),
    "RelationCosts": (RELATIONS, lambda *states: relation_divergence(*states, HEADS)),
}


@pytest.fixture(params=PLAIN)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def costs_of(kind: str) -> Any:
    name, *options = kind.split()
    return getattr(losses, name)(*[HEADS] if name == "RelationCosts" else options)


def drawn(shape: EncoderShape, seed: int, dtype: torch.dtype = torch.float64) -> EncoderStates:
    return random_states(shape, MASK, seed, dtype=dtype)


def plain_cost(kind: str, student: EncoderStates, teacher: EncoderStates, i: int, j: int) -> float:
    states, plain = PLAIN[kind]
    pairs = [(getattr(student, name)[i].double(), getattr(teacher, name)[j].double()) for name in states]
    return sum(float(plain(one, other, MASK)) for one, other in pairs)


def test_every_kind_has_its_equation() -> None:
    parts = [part for part in vars(losses).values() if inspect.isclass(part)]
    kinds = [part for part in parts if isinstance(vars(part).get("needs"), frozenset) and not issubclass(part, Loss)]
    # That one reads the embeddings too: test_matched_states.py
    assert {part.__name__ for part in kinds} == {kind.split()[0] for kind in PLAIN} | {"SolutionFlowCosts"}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.float16, 1e-5)])
def test_costs_are_those_of_the_plain_equation(kind: str, dtype: torch.dtype, tolerance: float) -> None:
    student, teacher = drawn(STUDENT, 1, dtype), drawn(TEACHER, 2, dtype)
    costs = costs_of(kind)(student, teacher)
    assert costs.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = [[plain_cost(kind, student, teacher, i, j) for j in range(3)] for i in range(2)]
    torch.testing.assert_close(costs.double(), torch.tensor(expected, dtype=torch.float64), rtol=tolerance, atol=0)


def test_gradient(kind: str) -> None:
    """By finite differences for the student's states; none for padding, none for the teacher's."""
    student, teacher = leaves(drawn(EncoderShape(1, 3, 1), 3)), leaves(drawn(EncoderShape(2, 3, 1), 4))
    states, costs = PLAIN[kind][0], costs_of(kind)
    layers = [getattr(student, name)[0] for name in states]

    def of(*layers: Tensor) -> Tensor:
        return costs(replace(student, **{name: (layer,) for name, layer in zip(states, layers, strict=True)}), teacher)

    assert torch.autograd.gradcheck(of, layers)
    of(*layers).sum().backward()
    padding = MASK == 0
    pairs = (padding[:, :, None] | padding[:, None, :])[:, None]
    for layer in layers:
        assert layer.grad.any()
        assert not (layer.grad * (padding[..., None] if layer.ndim == 3 else pairs)).any()
    assert all(getattr(teacher, name)[0].grad is None for name in states)


def test_only_what_the_pairs_name_is_read(kind: str) -> None:
    student, teacher = drawn(STUDENT, 8), drawn(TEACHER, 9)
    every, fewer = costs_of(kind)(student, teacher), (only_layers(student, {1}), only_layers(teacher, {0, 2}))
    found = costs_of(kind)(*fewer, pairs=[(1, 2), (1, 0)])
    torch.testing.assert_close(found, torch.stack([torch.zeros(3).double(), every[1] * torch.tensor([1, 0, 1])]))
    for pair, layer in (((1, 1), "teacher layer 1"), ((0, 2), "student layer 0")):
        with names(ConfigError, layer):
            costs_of(kind)(*fewer, pairs=[pair])


@pytest.mark.parametrize("kind", ["CosineCosts", "FeatureMapCosts", "FirstTokenCosts", "HiddenStateCosts"])
@pytest.mark.parametrize("projection", ["shared", "per_layer"])
def test_unequal_widths_meet_through_a_projection(kind: str, projection: Any) -> None:
    narrow = EncoderShape(2, 4, 1)
    student, teacher = drawn(narrow, 10), drawn(TEACHER, 11)
    with names(ConfigError, "width 6"):
        costs_of(kind)(student, teacher)
    matrices = Projection(narrow, TEACHER, projection).double()
    loss = LayerLoss([costs_of(kind)], FixedMapping(torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]]))).double()
    (term,) = loss(matrices(student), teacher, {}).values()
    weights = [*matrices.parameters()][-2:] * (2 if projection == "shared" else 1)
    layers = [layer @ weight.detach().T for layer, weight in zip(student.hidden, weights, strict=True)]
    plain = PLAIN[kind][1]
    expected = plain(layers[0], teacher.hidden[1], MASK) + 2 * plain(layers[1], teacher.hidden[2], MASK)
    assert term.item() == pytest.approx(float(expected), rel=1e-12)
