"""Every term and the whole objective against a plain float64 recomputation over the unpadded tokens."""

import itertools
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from encoder_states import leaves, longer, random_states, tensors, with_padding
from linear_programmes import Array, cheapest_flow
from messages import names
from plain_losses import hard_cross_entropy, mean_square, soft_cross_entropy
from torch import Tensor

from emdistill.errors import TrainingError
from emdistill.losses import (
    AttentionScoreCosts,
    EmbeddingLoss,
    HardLabels,
    HiddenStateCosts,
    LayerLoss,
    Objective,
    Projection,
    SoftTargets,
)
from emdistill.mapping import EmdMapping
from emdistill.methods.bert_emd import bert_emd
from emdistill.states import EncoderShape, EncoderStates

STUDENT, TEACHER = EncoderShape(layers=2, width=3, heads=2), EncoderShape(layers=5, width=4, heads=2)
BATCH, LENGTH, CLASSES = 3, 6, 4
TERMS = {"attention_scores": 0.7, "hidden_states": 1.3, "embeddings": 0.4, "soft_targets": 2.0, "hard_labels": 0.9}

# --- the reference, over tests/plain_losses.py ----------------------------------------------------------------------


def cost_rows(student: tuple[Tensor, ...], teacher: tuple[Tensor, ...], mask: Tensor) -> list[list[Tensor]]:
    return [[mean_square(s, t, mask) for t in teacher] for s in student]


def moved_weights(flow: Array, costs: Array, weight_floor: float = 1e-3, cost_floor: float = 1e-2) -> tuple[Array, ...]:
    """Cost attention by the inverse rule: the student's and the teacher's next weights."""
    sides = []
    for moved, price in ((flow, costs), (flow.T, costs.T)):
        unit = np.array([(f * d).sum() / f.sum() for f, d in zip(moved, price, strict=True)])
        unit = np.maximum(unit, cost_floor * unit.mean())
        new = np.maximum((unit.sum() / unit) / (unit.sum() / unit).sum(), weight_floor)
        sides.append(new / new.sum())
    return tuple(sides)


def layer_term(rows: list[list[Tensor]], flow: Array) -> Tensor:
    return sum(flow[i, j] * cost for i, row in enumerate(rows) for j, cost in enumerate(row))  # type: ignore[return-value]


def numbers(rows: list[list[Tensor]]) -> Array:
    return np.array([[cost.item() for cost in row] for row in rows])


def reference_terms(
    student: EncoderStates,
    teacher: EncoderStates,
    labels: Tensor,
    weights: list[Tensor],
    *,
    temperature: float = 1.0,
    regression: bool = False,
) -> dict[str, Tensor]:
    """The five terms at uniform layer weights; `weights` [d_teacher, d_student]: embeddings' and each layer's W."""
    assert student.embeddings is not None
    assert teacher.embeddings is not None
    scores = cost_rows(student.attention_scores, teacher.attention_scores, student.mask)
    projected = tuple(states @ matrix.T for states, matrix in zip(student.hidden, weights[1:], strict=True))
    hidden = cost_rows(projected, teacher.hidden, student.mask)
    uniform = [np.full(len(scores), 1 / len(scores)), np.full(len(scores[0]), 1 / len(scores[0]))]
    terms = {
        "attention_scores": layer_term(scores, cheapest_flow(numbers(scores), *uniform)),
        "hidden_states": layer_term(hidden, cheapest_flow(numbers(hidden), *uniform)),
        "embeddings": mean_square(student.embeddings @ weights[0].T, teacher.embeddings, student.mask),
    }
    if regression:
        terms["soft_targets"] = ((student.logits - teacher.logits) ** 2).sum() / len(labels)
        terms["hard_labels"] = ((student.logits[:, 0] - labels) ** 2).sum() / len(labels)
    else:
        terms["soft_targets"] = soft_cross_entropy(student.logits, teacher.logits, temperature)
        terms["hard_labels"] = hard_cross_entropy(student.logits, labels)
    return terms


# --- random cases -------------------------------------------------------------------------------------------------


def random_mask(seed: int) -> Tensor:
    """Padding at the end of all examples but the first."""
    lengths = [LENGTH, *np.random.RandomState(seed).randint(1, LENGTH + 1, BATCH - 1)]
    return torch.tensor([[int(place < length) for place in range(LENGTH)] for length in lengths])


def drawn(shape: EncoderShape, mask: Tensor, seed: int, outputs: int = CLASSES) -> EncoderStates:
    return random_states(shape, mask, seed, outputs=outputs, vectors=0)


def make_objective(
    projection: str = "shared", *, student: EncoderShape = STUDENT, temperature: float = 1.0, regression: bool = False
) -> Objective:
    """All five terms, one mapping for both layer terms, in float64 with random projections."""
    objective = Objective(
        [
            LayerLoss([AttentionScoreCosts(), HiddenStateCosts()], EmdMapping(student.layers, TEACHER.layers)),
            EmbeddingLoss(),
            SoftTargets(temperature=temperature, link="identity" if regression else "softmax"),
            HardLabels(link="identity" if regression else "softmax"),
        ],
        TERMS,
        Projection(student, TEACHER, projection),  # type: ignore[arg-type]
    ).double()
    for seed, parameter in enumerate(objective.parameters()):
        parameter.data = torch.from_numpy(np.random.RandomState(seed).standard_normal(parameter.shape))
    return objective


def weights_of(objective: Objective, layers: int) -> list[Tensor]:
    """W of the embeddings and of each layer."""
    found = list(objective.parameters())
    if not found:
        return [torch.eye(TEACHER.width, dtype=torch.float64)] * (layers + 1)
    return found * (layers + 1) if len(found) == 1 else found


def labels_for(regression: bool) -> dict[str, Tensor]:
    return {"labels": torch.tensor([0.5, -1.0, 2.0]) if regression else torch.tensor([3, 0, 1])}


CASES = [
    *itertools.product(["shared", "per_layer"], [STUDENT], [1.0, 3.0], [False], [0]),
    ("none", replace(STUDENT, width=TEACHER.width), 1.0, False, 1),
    ("per_layer", replace(STUDENT, layers=3, width=TEACHER.width), 0.5, False, 2),
    ("shared", replace(STUDENT, layers=1), 1.0, True, 3),
    ("shared", replace(STUDENT, layers=6), 2.0, True, 4),
]


# --- values and gradients -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("projection", "shape", "temperature", "regression", "seed"), CASES)
def test_terms_total_and_gradients(
    projection: str, shape: EncoderShape, temperature: float, regression: bool, seed: int
) -> None:
    mask, outputs = random_mask(seed), 1 if regression else CLASSES
    student = leaves(drawn(shape, mask, seed, outputs))
    teacher = drawn(TEACHER, mask, seed + 100, outputs)
    batch = labels_for(regression)
    objective = make_objective(projection, student=shape, temperature=temperature, regression=regression)
    total, terms = objective(student, teacher, batch)

    matrices = weights_of(objective, shape.layers)
    expected = reference_terms(
        student, teacher, batch["labels"], matrices, temperature=temperature, regression=regression
    )
    assert terms.keys() == TERMS.keys()
    for name, value in terms.items():
        tolerance = 1e-12 if name in ("attention_scores", "hidden_states", "embeddings") else 1e-6
        torch.testing.assert_close(value.double(), TERMS[name] * expected[name], rtol=tolerance, atol=0)
    assert total.item() == pytest.approx(sum(value.item() for value in terms.values()), rel=1e-6)

    inputs = tensors(student) + list(objective.parameters())
    found = torch.autograd.grad(total, inputs)
    wanted = torch.autograd.grad(sum(TERMS[name] * expected[name] for name in TERMS), inputs)  # type: ignore[arg-type]
    for gradient, reference in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("heads", ["mean", "match"])
def test_unequal_head_counts(heads: str) -> None:
    mask = random_mask(5)
    student = drawn(replace(STUDENT, heads=1), mask, 5)
    teacher = drawn(replace(TEACHER, heads=2), mask, 6)
    costs = AttentionScoreCosts(heads)(student, teacher)  # type: ignore[arg-type]
    for i, j in itertools.product(range(STUDENT.layers), range(TEACHER.layers)):
        one, two = student.attention_scores[i], teacher.attention_scores[j]
        if heads == "mean":
            expected = mean_square(one, two.mean(dim=1, keepdim=True), mask)
        else:  # a single student head must share itself between both teacher heads
            expected = (mean_square(one, two[:, :1], mask) + mean_square(one, two[:, 1:], mask)) / 2
        torch.testing.assert_close(costs[i, j], expected, rtol=1e-12, atol=0)


def test_coupled_kinds_share_the_mean_weights_and_separate_ones_keep_their_own() -> None:
    mask, shape = random_mask(7), replace(STUDENT, width=TEACHER.width)
    student, teacher = drawn(shape, mask, 7), drawn(TEACHER, mask, 8)
    uniform = [np.full(shape.layers, 1 / shape.layers), np.full(TEACHER.layers, 1 / TEACHER.layers)]
    scores = cost_rows(student.attention_scores, teacher.attention_scores, mask)
    hidden = cost_rows(student.hidden, teacher.hidden, mask)
    alone = [moved_weights(cheapest_flow(numbers(rows), *uniform), numbers(rows)) for rows in (scores, hidden)]

    def second_step(losses: list[LayerLoss]) -> dict[str, Tensor]:
        for loss in losses:
            loss.double()(student, teacher, {})
        return {name: value for loss in losses for name, value in loss(student, teacher, {}).items()}

    def mapping() -> EmdMapping:
        return EmdMapping(shape.layers, TEACHER.layers)

    separate = second_step([LayerLoss([kind], mapping()) for kind in (AttentionScoreCosts(), HiddenStateCosts())])
    coupled = second_step([LayerLoss([AttentionScoreCosts(), HiddenStateCosts()], mapping())])
    both = [np.mean([alone[0][side], alone[1][side]], axis=0) for side in (0, 1)]
    for name, rows, own in zip(coupled, (scores, hidden), alone, strict=True):
        expected = {"own": layer_term(rows, cheapest_flow(numbers(rows), *own))}
        expected["both"] = layer_term(rows, cheapest_flow(numbers(rows), *both))
        torch.testing.assert_close(separate[name], expected["own"], rtol=1e-10, atol=0)
        torch.testing.assert_close(coupled[name], expected["both"], rtol=1e-10, atol=0)
        assert not torch.isclose(expected["own"], expected["both"])


# --- padding ------------------------------------------------------------------------------------------------------


FILLERS = {
    "random": lambda tensor: torch.from_numpy(np.random.RandomState(1).standard_normal(tensor.shape)),
    "large": lambda tensor: torch.full_like(tensor, 1e6),
    "NaN": lambda tensor: torch.full_like(tensor, torch.nan),
    "infinite": lambda tensor: torch.full_like(tensor, torch.inf),
}


def total_and_gradients(
    student: EncoderStates, teacher: EncoderStates, projection: str = "per_layer"
) -> tuple[Tensor, Mapping[str, Tensor], list[Tensor], list[Tensor]]:
    student = leaves(student)
    objective = make_objective(projection)
    total, terms = objective(student, teacher, labels_for(False))
    states, parameters = tensors(student), list(objective.parameters())
    gradients = torch.autograd.grad(total, states + parameters)
    return total, terms, list(gradients[: len(states)]), list(gradients[len(states) :])


@pytest.mark.parametrize("filler", FILLERS)
@pytest.mark.parametrize("projection", ["shared", "per_layer"])
def test_what_padding_holds_changes_nothing(filler: str, projection: str) -> None:
    mask = random_mask(9)
    student, teacher = drawn(STUDENT, mask, 9), drawn(TEACHER, mask, 10)
    total, terms, gradients, learned = total_and_gradients(student, teacher, projection)
    spoiled = [with_padding(states, FILLERS[filler]) for states in (student, teacher)]
    assert not torch.equal(spoiled[0].hidden[0], student.hidden[0])
    total_2, terms_2, gradients_2, learned_2 = total_and_gradients(spoiled[0], spoiled[1], projection)
    assert total_2.item() == total.item()
    assert {name: term.item() for name, term in terms_2.items()} == {name: term.item() for name, term in terms.items()}
    for before, after in zip(gradients + learned, gradients_2 + learned_2, strict=True):
        assert torch.equal(before, after)
    assert not any(gradient[mask == 0].any() for gradient in gradients if gradient.ndim == 3)


def test_more_padding_changes_nothing() -> None:
    mask = random_mask(11)
    student, teacher = drawn(STUDENT, mask, 11), drawn(TEACHER, mask, 12)
    total, terms, _, learned = total_and_gradients(student, teacher)
    total_2, terms_2, _, learned_2 = total_and_gradients(longer(student, 0, 3), longer(teacher, 0, 3))
    torch.testing.assert_close(total_2, total, rtol=1e-12, atol=0)
    for name, term in terms.items():
        torch.testing.assert_close(terms_2[name], term, rtol=1e-12, atol=0)
    for before, after in zip(learned, learned_2, strict=True):
        torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-14)


# --- NaN ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize(("term", "field"), [("hidden_states", "hidden"), ("attention_scores", "attention_scores")])
def test_a_bad_cost_names_its_term_and_leaves_the_layer_weights(bad: float, term: str, field: str) -> None:
    mask = random_mask(13)
    student, teacher = drawn(STUDENT, mask, 13), drawn(TEACHER, mask, 14)
    spoiled = [layer.clone() for layer in getattr(student, field)]
    spoiled[1][0, 0, 0] = bad
    objective = make_objective()
    objective(student, teacher, labels_for(False))
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    with names(TrainingError, term):
        objective(replace(student, **{field: tuple(spoiled)}), teacher, labels_for(False))
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())


# --- golden values ------------------------------------------------------------------------------------------------

GOLDEN = {"first": 10.037316092681909, "second": 10.00234013878072}


def golden_case() -> tuple[Objective, EncoderStates, EncoderStates, dict[str, Tensor]]:
    """BERT-EMD with all terms on, β = 2, θ = 0.5, T = 2, α = 0.75; W = cos of its entries' numbers."""
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]])
    stages = bert_emd(STUDENT, TEACHER, beta=2.0, theta=0.5, embeddings=0.25, temperature=2.0, alpha=0.75)
    objective = stages[0].objective.double()
    (matrix,) = objective.parameters()
    matrix.data = torch.arange(matrix.numel(), dtype=torch.float64).view_as(matrix).cos()
    return objective, drawn(STUDENT, mask, 2010), drawn(TEACHER, mask, 6133), labels_for(False)


def golden_reference() -> dict[str, float]:
    """The total of two steps on one batch, cost attention having moved the layer weights in between."""
    objective, student, teacher, batch = golden_case()
    (matrix,) = objective.parameters()
    terms = reference_terms(student, teacher, batch["labels"], [matrix] * 3, temperature=2.0)
    constant = 2 * 0.25 * terms["embeddings"] + 0.75 * terms["soft_targets"] + 0.25 * terms["hard_labels"]
    kinds = [
        cost_rows(student.attention_scores, teacher.attention_scores, student.mask),
        cost_rows(tuple(states @ matrix.T for states in student.hidden), teacher.hidden, student.mask),
    ]
    weights: list[Array] = [np.full(2, 1 / 2), np.full(5, 1 / 5)]
    totals = {}
    for step in ("first", "second"):
        flows = [cheapest_flow(numbers(rows), *weights) for rows in kinds]
        layers = sum(layer_term(rows, flow) for rows, flow in zip(kinds, flows, strict=True))
        totals[step] = (2 * 0.5 * layers + constant).item()
        new = [moved_weights(flow, numbers(rows)) for flow, rows in zip(flows, kinds, strict=True)]
        weights = [np.mean([pair[side] for pair in new], axis=0) for side in (0, 1)]
    return totals


def test_golden_total() -> None:
    objective, student, teacher, batch = golden_case()
    for step, expected in GOLDEN.items():
        total, _ = objective(student, teacher, batch)
        assert total.item() == pytest.approx(expected, rel=1e-6), step
    assert golden_reference() == pytest.approx(GOLDEN, rel=1e-10)
