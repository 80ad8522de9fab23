"""Attention distributions, nst and fsp against their equations, one text at a time, in float64."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from encoder_states import random_states
from messages import names
from plain_losses import attention_divergence, flow_difference, unit_discrepancy
from torch import Tensor

from emdistill.errors import CaptureError, ConfigError
from emdistill.losses import AttentionDistributionCosts, NeuronSelectivityCosts, SolutionFlowCosts
from emdistill.losses.layers import LayerCosts
from emdistill.states import EncoderShape, EncoderStates

# Padding on the right, on the left, a single token, and nothing else.
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
STUDENT, TEACHER = EncoderShape(layers=2, width=6, heads=2), EncoderShape(layers=3, width=6, heads=2)


def drawn(shape: EncoderShape, seed: int, dtype: torch.dtype = torch.float64) -> EncoderStates:
    return random_states(shape, MASK, seed, vectors=0, dtype=dtype)


def matrix(student: EncoderStates, teacher: EncoderStates, cost: Callable[[int, int], float]) -> Tensor:
    rows = [[cost(i, j) for j in range(len(teacher.hidden))] for i in range(len(student.hidden))]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("heads", ["equal", "mean"])
@pytest.mark.parametrize("divergence", ["kl", "cross-entropy"])
def test_attention_distributions(divergence: str, heads: str) -> None:
    kind = AttentionDistributionCosts(divergence, heads)  # type: ignore[arg-type]
    student = drawn(STUDENT, 0) if heads == "equal" else drawn(replace(STUDENT, heads=3), 0)
    teacher = drawn(TEACHER, 1)
    expected = matrix(
        student,
        teacher,
        lambda i, j: attention_divergence(
            student.attention_scores[i],
            teacher.attention_scores[j],
            MASK,
            cross_entropy=divergence == "cross-entropy",
            mean_heads=heads == "mean",
        ),
    )
    torch.testing.assert_close(kind(student, teacher), expected, rtol=1e-12, atol=0)


def test_cross_entropy_and_divergence_teach_alike_and_have_names_of_their_own() -> None:
    student, teacher = drawn(STUDENT, 2), drawn(TEACHER, 3)
    gradients = []
    for kind in (AttentionDistributionCosts(), AttentionDistributionCosts("cross-entropy")):
        scores = student.attention_scores[0].clone().requires_grad_()  # type: ignore[union-attr]
        costs = kind(replace(student, attention_scores=(scores, *student.attention_scores[1:])), teacher)
        gradients += torch.autograd.grad(costs.sum(), scores)
    torch.testing.assert_close(gradients[0], gradients[1])
    assert AttentionDistributionCosts().name != AttentionDistributionCosts("cross-entropy").name


def test_unequal_heads_are_refused() -> None:
    with names(ConfigError, 2, 3, "minilm"):
        AttentionDistributionCosts()(drawn(STUDENT, 4), drawn(replace(TEACHER, heads=3), 5))


def test_scores_of_masks_and_of_any_size_stay_finite() -> None:
    student, teacher = drawn(STUDENT, 6, torch.float32), drawn(TEACHER, 7, torch.float32)
    least = torch.finfo(torch.float32).min
    scores = tuple(layer * 1e4 for layer in student.attention_scores if layer is not None)
    scores[0][0, 0, 0, 1] = teacher.attention_scores[1][0, 0, 0, 1] = least  # type: ignore[index]
    costs = AttentionDistributionCosts()(replace(student, attention_scores=scores), teacher)
    assert costs.isfinite().all()


@pytest.mark.parametrize("width", [6, 4])
def test_neuron_selectivity(width: int) -> None:
    student, teacher = drawn(replace(STUDENT, width=width), 8), drawn(TEACHER, 9)
    expected = matrix(student, teacher, lambda i, j: unit_discrepancy(student.hidden[i], teacher.hidden[j], MASK))
    torch.testing.assert_close(NeuronSelectivityCosts()(student, teacher), expected, rtol=1e-10, atol=1e-14)


def test_units_that_are_never_active_have_finite_gradients() -> None:
    student, teacher = drawn(STUDENT, 10), drawn(TEACHER, 11)
    silent = student.hidden[0].clone()  # type: ignore[union-attr]
    silent[..., 0] = 0
    silent.requires_grad_()
    costs = NeuronSelectivityCosts()(replace(student, hidden=(silent, student.hidden[1])), teacher)
    assert torch.autograd.grad(costs.sum(), silent)[0].isfinite().all()


def test_flow_of_the_solution() -> None:
    student, teacher = drawn(STUDENT, 12), drawn(TEACHER, 13)
    assert student.embeddings is not None
    assert teacher.embeddings is not None
    starts = student.embeddings, teacher.embeddings
    expected = matrix(
        student,
        teacher,
        lambda i, j: flow_difference((starts[0], student.hidden[i]), (starts[1], teacher.hidden[j]), MASK),
    )
    torch.testing.assert_close(SolutionFlowCosts()(student, teacher), expected, rtol=1e-12, atol=0)


def test_flows_need_embeddings_and_one_width() -> None:
    student, teacher = drawn(STUDENT, 14), drawn(TEACHER, 15)
    with names(CaptureError, "--objective.fsp"):
        SolutionFlowCosts()(replace(student, embeddings=None), teacher)
    with names(ConfigError, 4, 6, "--objective.projection"):
        SolutionFlowCosts()(drawn(replace(STUDENT, width=4), 16), teacher)


@pytest.mark.parametrize("kind", [AttentionDistributionCosts(), NeuronSelectivityCosts(), SolutionFlowCosts()])
def test_only_the_pairs_are_read_and_a_layer_that_lacks_is_named(kind: LayerCosts) -> None:
    student, teacher = drawn(STUDENT, 17), drawn(TEACHER, 18)
    every = kind(student, teacher)
    lacking = {
        name: tuple(layer if number == 1 else None for number, layer in enumerate(getattr(teacher, name)))
        for name in ("hidden", "attention_scores")
    }
    costs = kind(student, replace(teacher, **lacking), pairs=[(0, 1)])
    assert torch.equal(costs, torch.zeros_like(every).index_put((torch.tensor(0), torch.tensor(1)), every[0, 1]))
    assert not kind(student, teacher, pairs=[]).any()
    with names(ConfigError, "teacher", 0):
        kind(student, replace(teacher, **lacking))


@pytest.mark.parametrize("kind", [AttentionDistributionCosts(), NeuronSelectivityCosts(), SolutionFlowCosts()])
def test_texts_weigh_the_same_in_any_company(kind: LayerCosts) -> None:
    student, teacher = drawn(STUDENT, 19), drawn(TEACHER, 20)

    def alone(states: EncoderStates, text: int) -> EncoderStates:
        assert states.embeddings is not None
        layers = {
            name: tuple(layer[[text]] for layer in getattr(states, name)) for name in ("hidden", "attention_scores")
        }
        return replace(states, mask=MASK[[text]], embeddings=states.embeddings[[text]], **layers)

    each = [kind(alone(student, text), alone(teacher, text)) for text in range(4)]  # those with a token
    torch.testing.assert_close(torch.stack(each).mean(dim=0), kind(student, teacher), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", [AttentionDistributionCosts(), NeuronSelectivityCosts(), SolutionFlowCosts()])
def test_autocast_does_not_round_and_nan_shows(kind: LayerCosts) -> None:
    student, teacher = drawn(STUDENT, 21, torch.float32), drawn(TEACHER, 22, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = kind(student, teacher)
    assert torch.equal(found, kind(student, teacher))
    student.hidden[0][0, 0, 0] = student.attention_scores[0][0, 0, 0, 0] = math.nan  # type: ignore[index]
    assert kind(student, teacher)[0].isnan().all()
