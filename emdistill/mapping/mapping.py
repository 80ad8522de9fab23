"""The one base of all layer mappings: from costs [M, N] to a flow [M, N]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from emdistill.errors import TransportError
from emdistill.mapping.host_copy import HostCopy
from emdistill.mapping.kernels import Pair


class LayerMapping(nn.Module, ABC):
    """costs [..., M, N] -> flow [..., M, N], detached: how much each student layer learns from each teacher layer.

    mass    what a flow sums to
    pairs   the (i, j) that may carry flow; None: all. The costs of others need not be computed.
    """

    mass: float
    pairs: tuple[Pair, ...] | None = None

    def __init__(self, student_layers: int, teacher_layers: int) -> None:
        super().__init__()
        self.student_layers = student_layers
        self.teacher_layers = teacher_layers

    @torch.no_grad()
    def forward(self, costs: Tensor) -> Tensor:
        return self.flow(costs, HostCopy(self.host_inputs(costs)).wait())

    def host_inputs(self, costs: Tensor) -> list[Tensor]:
        """What `flow` reads on the CPU; a caller may copy it there together with other things."""
        return []

    @abstractmethod
    def flow(self, costs: Tensor, host: Sequence[Tensor]) -> Tensor:
        """The flow, given the copies of `host_inputs`; in training mode a mapping with weights moves them."""

    def check_shape(self, costs: Tensor) -> None:
        """Raise TransportError unless costs are those of the layers that the mapping was built for."""
        layers = (self.student_layers, self.teacher_layers)
        if costs.ndim < 2 or tuple(costs.shape[-2:]) != layers or costs.numel() == 0:
            raise TransportError(
                f"costs have shape {tuple(costs.shape)}; this mapping, built for {layers[0]} student and "
                f"{layers[1]} teacher layers, needs [..., {layers[0]}, {layers[1]}]"
            )
