"""BERT-EMD's layer mapping: an optimal transport plan, and the cost attention that sets its layer weights."""

import math
import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from emdistill.errors import ConfigError
from emdistill.mapping.mapping import LayerMapping
from emdistill.mapping.transport import solve_transport
from emdistill.values import with_choices

CostAttention = Literal["inverse", "softmax", "reverse", "off"]

# Below it the softmax rule oscillates or collapses on random costs.
STEADY_TEMPERATURE = 10.0
# A unit cost this small a share of the mean is as good as none; less would overflow its inverse.
SMALLEST_COST_FLOOR = 1e-12


@with_choices
class EmdMapping(LayerMapping):
    """Flow from student to teacher layers by exact transport, between layer weights that cost attention moves.

    forward: costs [..., M, N] -> flow [..., M, N], detached, of total mass 1, one plan per matrix, between the
    weights as they are. In training mode `cost_attention_update` then replaces the weights by their mean over the
    matrices (stack the costs of several losses to couple them; build one mapping per loss to keep them apart). Buffers
    student_weights [M] and teacher_weights [N] start uniform.
    Settings are those of `cost_attention_update`; "off" keeps the weights.
    Raises ConfigError for settings out of range, TransportError for costs that are no transport problem.
    Source: Li et al., BERT-EMD, EMNLP 2020 (arXiv 2010.06133).
    """

    mass = 1.0
    student_weights: Tensor
    teacher_weights: Tensor

    def __init__(
        self,
        student_layers: int,
        teacher_layers: int,
        *,
        cost_attention: CostAttention = "inverse",
        temperature: float = 10.0,
        weight_floor: float = 1e-3,
        cost_floor: float = 1e-2,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__(student_layers, teacher_layers)
        self.cost_attention: CostAttention = cost_attention
        self.temperature = temperature
        self.weight_floor = weight_floor
        self.cost_floor = cost_floor
        self.smoothing = smoothing
        self._check_settings()
        if cost_attention == "softmax" and temperature < STEADY_TEMPERATURE:
            warnings.warn(
                f"cost attention by softmax at temperature {temperature:g} may oscillate or collapse; "
                f"use {STEADY_TEMPERATURE:g} or more, or cost_attention='inverse'",
                stacklevel=2,
            )
        self.register_buffer("student_weights", torch.full((student_layers,), 1 / student_layers))
        self.register_buffer("teacher_weights", torch.full((teacher_layers,), 1 / teacher_layers))

    def host_inputs(self, costs: Tensor) -> list[Tensor]:
        self.check_shape(costs)
        return [costs, self.student_weights, self.teacher_weights]

    @torch.no_grad()
    def flow(self, costs: Tensor, host: Sequence[Tensor]) -> Tensor:
        matrices, student, teacher = (values.double() for values in host)
        matrices = matrices.view(-1, self.student_layers, self.teacher_layers)
        student, teacher = student / student.sum(), teacher / teacher.sum()
        flow = torch.stack([solve_transport(matrix, student, teacher).flow for matrix in matrices])
        if self.training and self.cost_attention != "off":
            self._update_weights(flow, matrices, student, teacher)
        # Not blocking: a copy that waits for the device would wait for all that was queued meanwhile.
        return flow.view(costs.shape).to(costs.dtype).to(costs.device, non_blocking=True)

    def extra_repr(self) -> str:
        shape = super().extra_repr()
        if self.cost_attention == "off":
            return f"{shape}, cost_attention='off'"
        temperature = f", temperature={self.temperature:g}" if self.cost_attention == "softmax" else ""
        return (
            f"{shape}, cost_attention='{self.cost_attention}'{temperature}, weight_floor={self.weight_floor:g}, "
            f"cost_floor={self.cost_floor:g}, smoothing={self.smoothing:g}"
        )

    def _check_settings(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ConfigError(f"temperature={self.temperature:g} must be positive and finite")
        uniform = 1 / max(self.student_layers, self.teacher_layers)
        if not 0 <= self.weight_floor <= uniform:
            raise ConfigError(f"weight_floor={self.weight_floor:g} must lie between 0 and {uniform:g}, the uniform one")
        if not SMALLEST_COST_FLOOR <= self.cost_floor <= 1:
            bounds = f"between {SMALLEST_COST_FLOOR:g} and 1, as a share of the mean"
            raise ConfigError(f"cost_floor={self.cost_floor:g} must lie {bounds}")
        if not 0 <= self.smoothing < 1:
            raise ConfigError(f"smoothing={self.smoothing:g} must lie in [0, 1): a share of the old weights stays")

    def _update_weights(self, flow: Tensor, costs: Tensor, student: Tensor, teacher: Tensor) -> None:
        new_student, new_teacher = cost_attention_update(
            flow,
            costs,
            student,
            teacher,
            cost_attention=self.cost_attention,
            temperature=self.temperature,
            weight_floor=self.weight_floor,
            cost_floor=self.cost_floor,
            smoothing=self.smoothing,
        )
        weights = torch.cat([new_student.mean(dim=0), new_teacher.mean(dim=0)]).to(self.student_weights.dtype)
        weights = weights.to(self.student_weights.device, non_blocking=True)
        self.student_weights.copy_(weights[: self.student_layers])
        self.teacher_weights.copy_(weights[self.student_layers :])


@with_choices
def cost_attention_update(
    flow: Tensor,
    costs: Tensor,
    student_weights: Tensor,
    teacher_weights: Tensor,
    *,
    cost_attention: CostAttention = "inverse",
    temperature: float = 10.0,
    weight_floor: float = 1e-3,
    cost_floor: float = 1e-2,
    smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The next layer weights, from what one unit of each layer's mass paid; float64, no gradient.

    c_i = Σ_j F_ij D_ij / w_i, at least cost_floor · mean(c);  u_i = Σ c / c_i
    w_i = u_i / Σ u ("inverse"), softmax(u / temperature)_i ("softmax") or, dear layers first, c_i / Σ c ("reverse")
    then w = smoothing · old + (1 − smoothing) · w, each at least weight_floor, divided by the sum.

    flow, costs [..., M, N]; student_weights [M], teacher_weights [N], the masses that flow moves; returns
    [..., M] and [..., N]. The teacher's side takes sums over i. All costs 0: uniform. A layer without mass
    is rated by its cheapest pair.
    """
    flow, costs = flow.detach().double(), costs.detach().double()
    updated = []
    for dim, old in ((-1, student_weights), (-2, teacher_weights)):
        old = old.detach().double().expand(*flow.shape[:-2], -1)
        if cost_attention == "off":
            updated.append(old.clone())
            continue
        floored = _floored(_unit_costs(flow, costs, dim), cost_floor)
        attraction = floored.sum(dim=-1, keepdim=True) / floored
        if cost_attention == "inverse":
            new = attraction / attraction.sum(dim=-1, keepdim=True)
        elif cost_attention == "softmax":
            new = torch.softmax(attraction / temperature, dim=-1)
        else:
            new = floored / floored.sum(dim=-1, keepdim=True)
        new = (smoothing * old + (1 - smoothing) * new).clamp_min(weight_floor)
        updated.append(new / new.sum(dim=-1, keepdim=True))
    return updated[0], updated[1]


def _unit_costs(flow: Tensor, costs: Tensor, dim: int) -> Tensor:
    """What one unit of each layer's mass paid, c; the masses are the flow's own sums, so that no rounding shows."""
    mass = flow.sum(dim=dim)
    paid = (flow * costs).sum(dim=dim) / torch.where(mass > 0, mass, 1)
    return torch.where(mass > 0, paid, costs.amin(dim=dim))


def _floored(unit_costs: Tensor, cost_floor: float) -> Tensor:
    """c over the largest, none below cost_floor · mean(c), so that Σ c / c is bounded; 1 where every layer is free."""
    largest = unit_costs.amax(dim=-1, keepdim=True)
    relative = torch.where(largest > 0, unit_costs / torch.where(largest > 0, largest, 1), 1)
    return torch.maximum(relative, cost_floor * relative.mean(dim=-1, keepdim=True))
