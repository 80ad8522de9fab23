"""Small tensors on their way from the device to the CPU, without making the device wait."""

from collections.abc import Sequence

import torch
from torch import Tensor


class HostCopy:
    """One buffer, one asynchronous copy; `wait()` gives the tensors, on the CPU and detached.

    Between the two the device can be given further work. On a CPU nothing is asynchronous and nothing waits.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._shapes = [tensor.shape for tensor in tensors]
        self._copied: torch.Event | None = None
        if not tensors:
            self._buffer = torch.empty(0)
            return
        dtype = torch.promote_types(torch.float32, tensors[0].dtype)
        device = tensors[0].device
        buffer = torch.cat([tensor.detach().to(device, dtype).flatten() for tensor in tensors])
        if device.type == "cuda":
            self._buffer = torch.empty(buffer.shape, dtype=dtype, pin_memory=True)
            self._buffer.copy_(buffer, non_blocking=True)
            self._copied = torch.Event(device)
            self._copied.record()
        else:
            self._buffer = buffer.cpu()

    def wait(self) -> list[Tensor]:
        """The tensors, once they have arrived."""
        if self._copied is not None:
            self._copied.synchronize()
        parts = torch.split(self._buffer, [shape.numel() for shape in self._shapes])
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]
