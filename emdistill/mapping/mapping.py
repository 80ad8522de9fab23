"""The one base of all layer mappings: from costs [M, N] to a flow [M, N]."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from emdistill.errors import ConfigError, LayerCountError, TransportError
from emdistill.mapping.host_copy import HostCopy
from emdistill.mapping.kernels import Pair


class LayerMapping(nn.Module, ABC):
    """costs [..., M, N] -> flow [..., M, N]: how much each student layer learns from each teacher layer.

    mass            what a flow sums to
    pairs           the (i, j) that may carry flow; None: all. The costs of others need not be computed.
    differentiable  whether gradients pass through the flow to the costs; else it is detached, a constant
    Raises ConfigError where a side has no layer.
    """

    mass: float
    pairs: tuple[Pair, ...] | None = None
    differentiable: bool = False

    def __init__(self, student_layers: int, teacher_layers: int) -> None:
        super().__init__()
        check_layer_counts(student_layers, teacher_layers)
        self.student_layers = student_layers
        self.teacher_layers = teacher_layers

    @property
    def taught_layers(self) -> int:
        """How many student layers may receive flow."""
        return self.student_layers if self.pairs is None else len({i for i, _ in self.pairs})

    def forward(self, costs: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()):
            return self.flow(costs, HostCopy(self.host_inputs(costs)).wait())

    def host_inputs(self, costs: Tensor) -> list[Tensor]:
        """What `flow` reads on the CPU; a caller may copy it there together with other things."""
        return []

    @abstractmethod
    def flow(self, costs: Tensor, host: Sequence[Tensor]) -> Tensor:
        """The flow, given the copies of `host_inputs`; in training mode a mapping with weights moves them."""

    def extra_repr(self) -> str:
        return f"student_layers={self.student_layers}, teacher_layers={self.teacher_layers}"

    def check_shape(self, costs: Tensor) -> None:
        """Raise TransportError unless costs are those of the layers that the mapping was built for."""
        layers = (self.student_layers, self.teacher_layers)
        if costs.ndim < 2 or tuple(costs.shape[-2:]) != layers or costs.numel() == 0:
            raise TransportError(
                f"costs have shape {tuple(costs.shape)}; this mapping, built for {layers[0]} student and "
                f"{layers[1]} teacher layers, needs [..., {layers[0]}, {layers[1]}]"
            )


class SolvedMapping(LayerMapping):
    """A mapping that solves one matrix of costs after another on the CPU; its flow is a constant, of total mass 1."""

    mass = 1.0

    @abstractmethod
    def solve(self, costs: Tensor) -> Tensor:
        """The flow [M, N] of costs [M, N], in float64."""

    def host_inputs(self, costs: Tensor) -> list[Tensor]:
        self.check_shape(costs)
        return [costs]

    @torch.no_grad()
    def flow(self, costs: Tensor, host: Sequence[Tensor]) -> Tensor:
        solved = [self.solve(matrix.double()) for matrix in host[0].reshape(-1, *costs.shape[-2:])]
        # Not blocking: a copy that waits for the device would wait for all that was queued meanwhile.
        return torch.stack(solved).view(costs.shape).to(costs.dtype).to(costs.device, non_blocking=True)


def check_layer_counts(student_layers: int, teacher_layers: int) -> None:
    """Raise ConfigError where a side has no layer."""
    for name, layers in (("student_layers", student_layers), ("teacher_layers", teacher_layers)):
        if layers < 1:
            raise ConfigError(f"{name}={layers} must be 1 or more")


def check_pair(i: int, j: int, student_layers: int, teacher_layers: int, place: str = "the mapping") -> None:
    """Raise LayerCountError unless student layer i and teacher layer j are there; `place` is what names them."""
    for side, layer, layers in (("student", i, student_layers), ("teacher", j, teacher_layers)):
        if not 0 <= layer < layers:
            there = f"(0..{layers - 1})" if layers > 1 else "(0)"
            raise LayerCountError(f"{place} names {side} layer {layer}, but this {side} has {layers} {there}")
