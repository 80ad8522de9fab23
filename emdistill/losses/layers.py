"""The many-to-many layer loss: one flow per kind of state, all kinds of one mapping sharing its layer weights."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypedDict, Unpack

import torch
from torch import Tensor

from emdistill.errors import ConfigError, TrainingError
from emdistill.losses.loss import Loss
from emdistill.mapping import FixedMapping, HostCopy, LayerMapping, Pair
from emdistill.processes import of_all_processes
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
    cost_memory μ: flows (and what cost attention makes of them) come from the exponential mean of the costs of many
                batches, C ← μ C + (1 − μ) D with the start's bias taken out; 0: from each batch's own. Buffers
                remembered_costs [K, M, N] and remembered_share. The loss is of the batch's costs; no gradient passes
                through the flow.
    compiled    whether the costs are computed by compiled kernels; the trainer decides
    Of several processes the costs are the means over all of them, so that all have the same flows and layer weights.
    Raises ConfigError for a memory out of range, or of a fixed mapping; TrainingError, naming the kind, where a cost
    that decides a flow is NaN or infinite.
    Source: BERT-EMD (Li et al., EMNLP 2020).
    """

    remembered_costs: Tensor
    remembered_share: Tensor

    def __init__(
        self,
        costs: Sequence[LayerCosts],
        mapping: LayerMapping,
        *,
        layer_mass: float | None = None,
        cost_memory: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= cost_memory < 1:
            raise ConfigError(f"cost_memory={cost_memory:g} must lie in [0, 1): a share of the old costs stays")
        if cost_memory and isinstance(mapping, FixedMapping):
            raise ConfigError(
                f"cost_memory={cost_memory:g} smooths the costs that a flow follows, and a fixed mapping follows none; "
                "leave it out, or take a mapping such as emd"
            )
        self.cost_memory = cost_memory
        if cost_memory:  # only then: checkpoints of other runs know no such buffers
            shape = len(costs), mapping.student_layers, mapping.teacher_layers
            self.register_buffer("remembered_costs", torch.zeros(shape))
            self.register_buffer("remembered_share", torch.zeros(()))
        self.scale = 1.0
        if layer_mass is not None and mapping.mass > 0:
            self.scale = layer_mass * mapping.taught_layers / mapping.mass
        self.costs = tuple(costs)
        self.mapping = mapping
        self.compiled = False
        self.needs = frozenset().union(*(kind.needs for kind in self.costs))
        if mapping.pairs is not None:
            self.student_layers = frozenset(i for i, _ in mapping.pairs)
            self.teacher_layers = frozenset(j for _, j in mapping.pairs)
        self.last_flows: dict[str, Tensor] = {}

    def forward(self, student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        costs = self.layer_costs(student, teacher)
        return self.terms(costs, HostCopy(self.host_inputs(costs)).wait())

    def layer_costs(self, student: EncoderStates, teacher: EncoderStates) -> Tensor:
        """The costs of all kinds, [K, M, N], of all processes: the part of the loss that needs no flow."""
        options = CostOptions(pairs=self.mapping.pairs, compiled=self.compiled)
        return of_all_processes(torch.stack([kind(student, teacher, **options) for kind in self.costs]))

    def host_inputs(self, costs: Tensor) -> list[Tensor]:
        """What `terms` reads on the CPU; in training mode the batch's costs are remembered first."""
        if self.cost_memory and self.training:
            # Of a batch whose costs are not finite, and which may be left out, nothing is remembered.
            share = (1 - self.cost_memory) * costs.detach().isfinite().all()
            self.remembered_costs.lerp_(costs.detach().nan_to_num(0, 0, 0).to(self.remembered_costs), share)
            self.remembered_share.lerp_(torch.ones_like(self.remembered_share), share)
        return self.mapping.host_inputs(self._deciding(costs).detach())

    def _deciding(self, costs: Tensor) -> Tensor:
        """The costs that a flow is drawn from; those of the batch where they are not finite, for `terms` to find."""
        if not self.cost_memory:
            return costs
        remembers = (self.remembered_share > 0) & costs.detach().isfinite().all()
        return torch.where(remembers, self.remembered_costs / self.remembered_share, costs.detach())

    def terms(self, costs: Tensor, host: Sequence[Tensor]) -> dict[str, Tensor]:
        """The loss, given the copies of `host_inputs`."""
        deciding = self._deciding(costs)
        # What a mapping reads where the costs are; not on an accelerator, which would have to be waited for.
        here = [] if host or self.mapping.pairs is not None or costs.device.type != "cpu" else [deciding]
        for values in [*host, *here]:
            if values.ndim == costs.ndim and not torch.isfinite(values).all():
                wrong = [
                    kind.name for kind, matrix in zip(self.costs, values, strict=True) if not matrix.isfinite().all()
                ]
                raise TrainingError(f"the layer costs of {', '.join(wrong)} are NaN or infinite")
        if self.mapping.differentiable:
            flows = self.mapping.flow(deciding, host)
        else:
            with torch.no_grad():
                flows = self.mapping.flow(deciding.detach(), host)
        names = [kind.name for kind in self.costs]
        self.last_flows = dict(zip(names, flows.detach(), strict=True))
        return dict(zip(names, self.scale * (flows * costs).sum(dim=(1, 2)), strict=True))
