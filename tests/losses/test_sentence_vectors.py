"""Sentence vectors against a float64 re-computation, text by text, and what the two terms are 1 of."""

import math

import numpy as np
import pytest
import torch
from encoder_states import leaves, random_states, tensors, with_padding
from torch import Tensor

from emdistill.losses import SentenceVectors
from emdistill.losses.sentence_vectors import Vector
from emdistill.states import EncoderShape, EncoderStates

RECURRENT, LAYERED, TEACHER = EncoderShape(3, 6, 0), EncoderShape(3, 6, 2), EncoderShape(4, 10, 2)
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 0]])
Case = tuple[SentenceVectors, EncoderStates, EncoderStates]


def drawn(student: EncoderShape, vector: Vector = "mean", seed: int = 0) -> Case:
    torch.manual_seed(seed)
    loss = SentenceVectors(student, TEACHER, vector=vector).double()
    return loss, random_states(student, MASK, seed), random_states(TEACHER, MASK, seed + 1)


@pytest.mark.parametrize("vector", ["mean", "first"])
@pytest.mark.parametrize("shape", [RECURRENT, LAYERED])
def test_it_is_the_equation(shape: EncoderShape, vector: Vector) -> None:
    loss, student, teacher = drawn(shape, vector)
    loss.fit([teacher])
    lengths = MASK.sum(dim=1).tolist()

    def of_text(layer: Tensor | None, row: int) -> np.ndarray:
        assert layer is not None
        tokens = layer[row, : lengths[row]].numpy()
        return tokens.mean(axis=0) if vector == "mean" else tokens[0]  # type: ignore[no-any-return]

    targets = np.stack([of_text(teacher.hidden[-1], row) for row in range(4)])
    mean = targets.mean(axis=0)
    targets = (targets - mean) / math.sqrt(np.square(targets - mean).mean())
    weight, bias = (parameter.detach().numpy() for parameter in loss.map.parameters())
    squared, turned = 0.0, 0.0
    for row, target in enumerate(targets):
        if shape is RECURRENT:
            layers = [
                layer[row, : lengths[row]].numpy().max(axis=0) for layer in (student.hidden[0], student.hidden[2])
            ]
            own = np.concatenate(layers)
        else:
            own = of_text(student.hidden[-1], row)
        answer = weight @ own + bias
        squared += np.square(answer - target).mean() / 4
        turned += (1 - answer @ target / np.linalg.norm(answer) / np.linalg.norm(target)) / 4
    terms = loss(student, teacher, {})
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {"vectors": squared, "directions": turned}, abs=1e-12
    )


def test_the_mean_vector_has_1_in_both() -> None:
    loss, student, teacher = drawn(LAYERED)
    loss.fit([teacher])
    with torch.no_grad():
        for parameter in loss.map.parameters():
            parameter.zero_()
    assert [term.item() for term in loss(student, teacher, {}).values()] == pytest.approx([1, 1])


@pytest.mark.parametrize("shape", [RECURRENT, LAYERED])
def test_only_the_student_and_its_map_learn_and_padding_says_nothing(shape: EncoderShape) -> None:
    loss, student, teacher = drawn(shape)
    student, teacher = leaves(student), leaves(teacher)
    sum(loss(student, teacher, {}).values()).backward()
    read = [student.hidden[layer] for layer in loss.student_layers]
    assert all(layer.grad.any() and layer.grad.isfinite().all() for layer in read)
    assert not any(layer.grad[MASK == 0].any() for layer in read)
    assert all(state.grad is None for state in tensors(teacher))
    assert loss.map.weight.grad is not None
    spoiled = with_padding(student, math.nan), with_padding(teacher, math.nan)
    for one, other in zip(loss(*spoiled, {}).values(), loss(student, teacher, {}).values(), strict=True):
        assert torch.equal(one, other)
