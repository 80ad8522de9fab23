"""The many-to-many layer loss: one flow per kind of state, all kinds of one mapping sharing its layer weights."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypedDict, Unpack

import torch
from torch import Tensor

from emdistill.errors import TrainingError
from emdistill.losses.loss import Loss
from emdistill.mapping import HostCopy, LayerMapping, Pair
from emdistill.states import EncoderStates


class CostOptions(TypedDict, total=False):
    """Which costs are computed, the (i, j) of `pairs` (None: all), and whether by compiled kernels (`layer_costs`)."""

    pairs: Sequence[Pair] | None
    compiled: bool


class LayerCosts(Protocol):
    """A kind of layer state that can be compared: its name, what it needs captured, its costs [M, N]."""

    name: str
    needs: frozenset[str]

    def __call__(self, student: EncoderStates, teacher: EncoderStates, **options: Unpack[CostOptions]) -> Tensor: ...


class LayerLoss(Loss):
    """L_k = Σ_ij F^k[i, j] · D^k[i, j] for every kind k of layer state (hidden states, attention scores).

    costs       the kinds; with several, their flows come from one set of layer weights, and cost attention moves
                these by the average over the kinds ("coupled"). Separate weights: two LayerLosses.
    mapping     costs [K, M, N] -> flow [K, M, N]; the flow is a constant for the gradient (envelope theorem)
    layer_mass  flows are scaled so that they sum to this much for each student layer that is taught: 1 adds up the
                layers as TinyBERT does, 1/M averages them; None leaves them as the mapping gives them
    compiled    compute the costs by compiled kernels
    Raises TrainingError, naming the kind, where a cost that decides a flow is NaN or infinite.
    Source: BERT-EMD (Li et al., EMNLP 2020).
    """

    def __init__(
        self,
        costs: Sequence[LayerCosts],
        mapping: LayerMapping,
        *,
        layer_mass: float | None = None,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.scale = 1.0
        if layer_mass is not None and mapping.mass > 0:
            self.scale = layer_mass * mapping.taught_layers / mapping.mass
        self.costs = tuple(costs)
        self.mapping = mapping
        self.compiled = compiled
        self.needs = frozenset().union(*(kind.needs for kind in self.costs))
        if mapping.pairs is not None:
            self.student_layers = frozenset(i for i, _ in mapping.pairs)
            self.teacher_layers = frozenset(j for _, j in mapping.pairs)
        self.last_flows: dict[str, Tensor] = {}

    def forward(self, student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        costs = self.layer_costs(student, teacher)
        return self.terms(costs, HostCopy(self.host_inputs(costs)).wait())

    def layer_costs(self, student: EncoderStates, teacher: EncoderStates) -> Tensor:
        """The costs of all kinds, [K, M, N]: the part of the loss that the flow is not needed for."""
        options = CostOptions(pairs=self.mapping.pairs, compiled=self.compiled)
        return torch.stack([kind(student, teacher, **options) for kind in self.costs])

    def host_inputs(self, costs: Tensor) -> list[Tensor]:
        """What `terms` reads on the CPU."""
        return self.mapping.host_inputs(costs.detach())

    def terms(self, costs: Tensor, host: Sequence[Tensor]) -> dict[str, Tensor]:
        """The loss, given the copies of `host_inputs`."""
        for values in host:
            if values.shape == costs.shape and not torch.isfinite(values).all():
                wrong = [
                    kind.name for kind, matrix in zip(self.costs, values, strict=True) if not matrix.isfinite().all()
                ]
                raise TrainingError(f"the layer costs of {', '.join(wrong)} are NaN or infinite")
        if self.mapping.differentiable:
            flows = self.mapping.flow(costs, host)
        else:
            with torch.no_grad():
                flows = self.mapping.flow(costs.detach(), host)
        names = [kind.name for kind in self.costs]
        self.last_flows = dict(zip(names, flows.detach(), strict=True))
        return dict(zip(names, self.scale * (flows * costs).sum(dim=(1, 2)), strict=True))
