"""The many-to-many layer loss: one flow a kind of state, all kinds of one mapping sharing its layer weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from emdistill.errors import TrainingError
from emdistill.losses.loss import Loss
from emdistill.states import EncoderStates


class LayerCosts(Protocol):
    """A kind of layer state that can be compared: its name, what it needs captured, its costs [M, N]."""

    name: str
    needs: frozenset[str]

    def __call__(self, student: EncoderStates, teacher: EncoderStates) -> Tensor: ...


class LayerLoss(Loss):
    """L_k = Σ_ij F^k[i, j] · D^k[i, j] for every kind k of layer state (hidden states, attention scores).

    costs    the kinds; with several, their flows come from one set of layer weights, and cost attention moves
             these by the average over the kinds ("coupled"). Separate weights: two LayerLosses.
    mapping  costs [K, M, N] -> flow [K, M, N]; the flow is a constant for the gradient (envelope theorem)
    Raises TrainingError, naming the kind, where a cost is NaN or infinite.
    Source: BERT-EMD (Li et al., EMNLP 2020).
    """

    def __init__(self, costs: Sequence[LayerCosts], mapping: nn.Module) -> None:
        super().__init__()
        self.costs = tuple(costs)
        self.mapping = mapping
        self.needs = frozenset().union(*(kind.needs for kind in self.costs))
        self.last_flows: dict[str, Tensor] = {}

    def forward(self, student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        costs = {kind.name: kind(student, teacher) for kind in self.costs}
        stacked = torch.stack(list(costs.values()))
        finite = torch.isfinite(stacked).flatten(1).all(dim=1).tolist()
        for name, fine in zip(costs, finite, strict=True):
            if not fine:
                raise TrainingError(f"the layer costs of {name} are NaN or infinite")
        flows = self.mapping(stacked.detach())
        self.last_flows = dict(zip(costs, flows, strict=True))
        return {name: (self.last_flows[name] * costs[name]).sum() for name in costs}
