"""The baseline: the layer losses taken the way BERT-EMD's released code takes them, written anew.

A Python loop over all layer pairs with one MSELoss each, every pair kept for the backward pass. Inside the loop the
mask values of the scores are zeroed on both sides, out of a tensor of zeros made for each pair, and the student's
scores go on to the next pair as they then are, so that the wheres of a layer form a chain (commit 82c63ff,
bert_emd/emd_task_distill.py, lines 358 to 373). Every pair's loss is written twice into an (M+N)×(M+N) tensor, in
place and under autograd; its values go to pyemd. All positions count, padding too. pyemd's original C++ solver, which
the released code ran on, is taken where pyemd is installed (`pip install pyemd`), else POT on the same square.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
import ot
import torch
from torch import Tensor, nn

try:
    from pyemd import emd_with_flow
except ImportError:
    emd_with_flow = None

Kind = Literal["hidden", "scores"]
MASKED_SCORE = -1e2


@dataclass
class LayerWeights:
    """Masses of student and teacher layers; `advance` takes the mean of what the kinds proposed since."""

    student: np.ndarray
    teacher: np.ndarray
    proposed: dict[Kind, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @classmethod
    def uniform(cls, students: int, teachers: int) -> Self:
        return cls(np.full(students, 1 / students), np.full(teachers, 1 / teachers))

    def advance(self) -> None:
        student, teacher = zip(*self.proposed.values(), strict=True)
        self.student, self.teacher = np.mean(student, axis=0), np.mean(teacher, axis=0)
        self.proposed.clear()


def layer_loss(
    student_layers: Sequence[Tensor], teacher_layers: Sequence[Tensor], kind: Kind, weights: LayerWeights
) -> Tensor:
    """Σ_ij F_ij D_ij of one kind of layer state; the next layer weights are left in `weights.proposed`."""
    pair_losses = (hidden_costs if kind == "hidden" else score_costs)(student_layers, teacher_layers)
    students, teachers = len(student_layers), len(teacher_layers)
    square = torch.zeros(students + teachers, students + teachers, dtype=pair_losses[0].dtype)
    for place, loss in enumerate(pair_losses):
        i, j = divmod(place, teachers)
        square[i, students + j] = square[students + j, i] = loss
    costs = square[:students, students:]
    matrix = costs.detach().double().numpy()
    flow = solve(matrix, weights.student, weights.teacher)
    weights.proposed[kind] = cost_attention(flow * matrix, weights)
    return (torch.from_numpy(flow).to(costs) * costs).sum()


def hidden_costs(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[Tensor]:
    """The loss of every pair, student layer by student layer, M·N scalars with a graph each."""
    mean_squared_error = nn.MSELoss()
    pair_losses = []
    for student_layer in student:
        for teacher_layer in teacher:
            pair_losses.append(mean_squared_error(student_layer, teacher_layer))
    return pair_losses


def score_costs(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[Tensor]:
    """The same of attention scores, whose mask values are taken out anew for every pair."""
    mean_squared_error = nn.MSELoss()
    pair_losses = []
    for student_scores in student:
        for teacher_scores in teacher:
            student_scores = without_mask_values(student_scores)
            pair_losses.append(mean_squared_error(student_scores, without_mask_values(teacher_scores)))
    return pair_losses


def without_mask_values(scores: Tensor) -> Tensor:
    """Zeros where the mask was added."""
    return torch.where(scores <= MASKED_SCORE, torch.zeros_like(scores), scores)


def solve(costs: np.ndarray, student_weights: np.ndarray, teacher_weights: np.ndarray) -> np.ndarray:
    """The flow [M, N], cut out of the flow of the square problem."""
    first, second, distances = square_problem(costs, student_weights, teacher_weights)
    if emd_with_flow is None:
        flow = ot.emd(first, second, distances)
    else:
        _, flow = emd_with_flow(first, second, distances, backend="cpp")
    students = len(student_weights)
    return np.asarray(flow)[:students, students:]


def square_problem(
    costs: np.ndarray, student_weights: np.ndarray, teacher_weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two histograms over all M + N layers and the distances between these, float64; the costs lie upper right."""
    students, teachers = costs.shape
    first = np.concatenate([student_weights, np.zeros(teachers)])
    second = np.concatenate([np.zeros(students), teacher_weights])
    distances = np.zeros((students + teachers, students + teachers))
    distances[:students, students:] = costs
    return first, second, distances


def cost_attention(paid: np.ndarray, weights: LayerWeights) -> tuple[np.ndarray, np.ndarray]:
    """Weights of both sides by inverse unit costs: c = paid / w, u = Σc / c, w = u / Σu."""
    updated = []
    for side, axis in ((weights.student, 1), (weights.teacher, 0)):
        unit_costs = paid.sum(axis=axis) / side
        attraction = unit_costs.sum() / unit_costs
        updated.append(attraction / attraction.sum())
    return updated[0], updated[1]
