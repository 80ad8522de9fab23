"""Whether losses and gradients are finite, without making an accelerator wait; and which rows are not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from emdistill.errors import shown
from emdistill.mapping import HostCopy
from emdistill.states import EncoderStates

SHOWN_TEXTS = 3


@dataclass(frozen=True)
class NotFinite:
    """The first value that was NaN or infinite, in words, and its step."""

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
                    return NotFinite(step, f"{name} is NaN or infinite")
        return None


def bad_rows(states: EncoderStates) -> list[int]:
    """The rows of a batch that have a state or a logit which is NaN or infinite; padding may hold anything."""
    token = states.mask.bool()
    by_token = [state for state in (states.embeddings, *states.hidden) if state is not None]
    bad = torch.zeros(len(token), dtype=torch.bool, device=token.device)
    for state in by_token:
        bad |= ((~state.isfinite()).any(dim=-1) & token).any(dim=-1)
    if len(states.logits) == len(bad):  # an answer per row
        bad |= (~states.logits.isfinite()).any(dim=-1)
    return torch.nonzero(bad)[:, 0].tolist()


def of_rows(whose: str, texts: Sequence[str]) -> str:
    """Whose states are not finite, and the first of the texts, as the end of a sentence."""
    more = f" and {len(texts) - SHOWN_TEXTS} more" if len(texts) > SHOWN_TEXTS else ""
    return f", and so are the {whose}'s states of {', '.join(map(shown, texts[:SHOWN_TEXTS]))}{more}"
