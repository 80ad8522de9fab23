"""Whether losses and gradients are finite, without making an accelerator wait."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from emdistill.mapping import HostCopy


@dataclass(frozen=True)
class NotFinite:
    """The first value that was NaN or infinite, and its step."""

    step: int
    name: str


class FiniteChecks:
    """Notes the values of a step and says later which one was not finite.

    delayed   answer for the steps before the current one only, whose flags have arrived long ago; otherwise at once
    """

    def __init__(self, *, delayed: bool) -> None:
        self.delayed = delayed
        self._pending: list[tuple[int, tuple[str, ...], HostCopy]] = []

    def note(self, step: int, values: Mapping[str, Tensor]) -> NotFinite | None:
        """Note a step's values; the first of those due that was not finite, if any."""
        flags = torch.isfinite(torch.stack([value.detach().float() for value in values.values()]))
        self._pending.append((step, tuple(values), HostCopy([flags])))
        return self._first([check for check in self._pending if check[0] < step or not self.delayed])

    def settle(self) -> NotFinite | None:
        """The first of all values noted that was not finite, if any; waits for the device."""
        return self._first(list(self._pending))

    def _first(self, due: list[tuple[int, tuple[str, ...], HostCopy]]) -> NotFinite | None:
        self._pending = [check for check in self._pending if check not in due]
        for step, names, copy in due:
            (flags,) = copy.wait()
            for name, fine in zip(names, flags.tolist(), strict=True):
                if not fine:
                    return NotFinite(step, name)
        return None
