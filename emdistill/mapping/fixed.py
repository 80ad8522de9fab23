"""Layer mappings that do not change: a flow given once, as a matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from emdistill.errors import ConfigError
from emdistill.mapping.mapping import LayerMapping


class FixedMapping(LayerMapping):
    """F[i, j] as given, whatever the costs; only pairs with flow need costs.

    flow [M, N], finite and not negative, not all 0; it is a buffer, moved and saved with the mapping.
    Raises ConfigError for a flow that is none.
    """

    fixed_flow: Tensor

    def __init__(self, flow: Tensor) -> None:
        if flow.ndim != 2 or not bool(torch.isfinite(flow).all()) or not bool((flow >= 0).all()) or not flow.any():
            raise ConfigError(
                f"a fixed flow is a matrix [student layers, teacher layers] of shares, finite and not negative, and "
                f"not all 0; this one has shape {tuple(flow.shape)}"
            )
        super().__init__(flow.shape[0], flow.shape[1])
        flow = flow.detach()
        self.register_buffer("fixed_flow", flow.clone().float())
        self.mass = float(flow.sum())
        self.pairs = tuple((int(i), int(j)) for i, j in flow.nonzero())

    def flow(self, costs: Tensor, host: Sequence[Tensor]) -> Tensor:
        self.check_shape(costs)
        return self.fixed_flow.to(costs).expand(costs.shape)

    def extra_repr(self) -> str:
        return f"pairs={list(self.pairs or ())}"


def uniform_mapping(student_layers: int, teacher_layers: int) -> FixedMapping:
    """Every k-th teacher layer, the last one included: F[i, ⌈(i + 1) N / M⌉ − 1] = 1, of mass M.

    Source: TinyBERT (Jiao et al., 2020), section 3; there M divides N.
    """
    flow = torch.zeros(student_layers, teacher_layers)
    for i in range(student_layers):
        flow[i, -(-(i + 1) * teacher_layers // student_layers) - 1] = 1.0
    return FixedMapping(flow)
