"""Attention distributions, nst and fsp: what each promises beside its equation (test_costs.py)."""

from dataclasses import replace

import pytest
import torch
from encoder_states import random_states
from messages import names
from plain_losses import attention_divergence, unit_discrepancy

from emdistill.errors import CaptureError, ConfigError
from emdistill.losses import AttentionDistributionCosts, NeuronSelectivityCosts, SolutionFlowCosts
from emdistill.states import EncoderShape, EncoderStates

# Padding on the right, on the left, a single token, and nothing else.
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
STUDENT, TEACHER = EncoderShape(layers=2, width=6, heads=2), EncoderShape(layers=3, width=6, heads=2)


def drawn(shape: EncoderShape, seed: int, dtype: torch.dtype = torch.float64) -> EncoderStates:
    return random_states(shape, MASK, seed, vectors=0, dtype=dtype)


def test_unequal_heads_are_averaged_or_refused() -> None:
    student, teacher = drawn(replace(STUDENT, heads=3), 0), drawn(TEACHER, 1)
    costs = AttentionDistributionCosts("kl", "mean")(student, teacher)
    both = student.attention_scores[1], teacher.attention_scores[2]
    assert costs[1, 2].item() == pytest.approx(attention_divergence(*both, MASK, mean_heads=True), rel=1e-12)
    with names(ConfigError, 3, 2, "minilm"):
        AttentionDistributionCosts()(student, teacher)


def test_cross_entropy_and_divergence_teach_alike_and_have_names_of_their_own() -> None:
    student, teacher = drawn(STUDENT, 2), drawn(TEACHER, 3)
    gradients = []
    for kind in (AttentionDistributionCosts(), AttentionDistributionCosts("cross-entropy")):
        scores = student.attention_scores[0].clone().requires_grad_()  # type: ignore[union-attr]
        costs = kind(replace(student, attention_scores=(scores, *student.attention_scores[1:])), teacher)
        gradients += torch.autograd.grad(costs.sum(), scores)
    torch.testing.assert_close(gradients[0], gradients[1])
    assert AttentionDistributionCosts().name != AttentionDistributionCosts("cross-entropy").name


def test_scores_of_masks_and_of_any_size_stay_finite() -> None:
    student, teacher = drawn(STUDENT, 6, torch.float32), drawn(TEACHER, 7, torch.float32)
    least = torch.finfo(torch.float32).min
    scores = tuple(layer * 1e4 for layer in student.attention_scores if layer is not None)
    scores[0][0, 0, 0, 1] = teacher.attention_scores[1][0, 0, 0, 1] = least  # type: ignore[index]
    costs = AttentionDistributionCosts()(replace(student, attention_scores=scores), teacher)
    assert costs.isfinite().all()


def test_neuron_selectivity_compares_any_widths() -> None:
    student, teacher = drawn(replace(STUDENT, width=4), 8), drawn(TEACHER, 9)
    costs = NeuronSelectivityCosts()(student, teacher)
    for i, own in enumerate(student.hidden):
        for j, other in enumerate(teacher.hidden):
            assert costs[i, j].item() == pytest.approx(unit_discrepancy(own, other, MASK), rel=1e-10)


def test_units_that_are_never_active_have_finite_gradients() -> None:
    student, teacher = drawn(STUDENT, 10), drawn(TEACHER, 11)
    silent = student.hidden[0].clone()  # type: ignore[union-attr]
    silent[..., 0] = 0
    silent.requires_grad_()
    costs = NeuronSelectivityCosts()(replace(student, hidden=(silent, student.hidden[1])), teacher)
    assert torch.autograd.grad(costs.sum(), silent)[0].isfinite().all()


def test_flows_need_embeddings_and_one_width() -> None:
    student, teacher = drawn(STUDENT, 14), drawn(TEACHER, 15)
    with names(CaptureError, "--objective.fsp"):
        SolutionFlowCosts()(replace(student, embeddings=None), teacher)
    with names(ConfigError, 4, 6, "--objective.projection"):
        SolutionFlowCosts()(drawn(replace(STUDENT, width=4), 16), teacher)
