"""Several teachers of one task as one: the mean of their answers; the states of layers are the first one's."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from emdistill.models.teacher import Teacher, TeacherSource
from emdistill.states import EncoderShape, EncoderStates, Link, answers_per_feature, precise


@dataclass(frozen=True)
class Member:
    """One of several teachers. weight: of its answers; order: the place of each label among its own logits."""

    source: TeacherSource
    weight: float
    order: tuple[int, ...]

    def in_order(self, logits: Tensor) -> Tensor:
        """Its logits [A, C] with the labels as the first teacher counts them."""
        if self.order == tuple(range(len(self.order))):  # most often: without a copy of indices to the device
            return logits
        return logits[:, list(self.order)]


class TeacherEnsemble:
    """A source of states whose logits are the mean of all members' answers, all else the first member's."""

    def __init__(self, members: Sequence[Member], link: Link) -> None:
        self.members = tuple(members)
        self.link = link

    @property
    def shape(self) -> EncoderShape:
        """Layers, width and heads of the first."""
        return self.members[0].source.shape

    @property
    def reads_rows(self) -> bool:
        """Whether a batch has to number its rows."""
        return any(member.source.reads_rows for member in self.members)

    def to(self, device: torch.device | str) -> "TeacherEnsemble":
        """Move those that are models to the student's device."""
        for member in self.members:
            if isinstance(member.source, Teacher):
                member.source.to(device)
        return self

    def __call__(
        self, inputs: Mapping[str, Tensor], needs: Collection[str] = (), layers: Collection[int] | None = None
    ) -> EncoderStates:
        """The first member's states for one batch, with the logits of all."""
        first, *others = self.members
        states = first.source(inputs, needs, layers)
        logits = [states.logits, *(member.in_order(member.source(inputs).logits) for member in others)]
        weights = [member.weight for member in self.members]
        # Of positions each row is a choice of its own.
        counts = answers_per_feature(inputs) if self.link == "positions" else [len(states.logits)]
        rows = zip(*(each.split(counts) for each in logits), strict=True)  # type: ignore[no-untyped-call]
        return replace(states, logits=torch.cat([mean_answers(row, weights, self.link) for row in rows]))


def mean_answers(logits: Sequence[Tensor], weights: Sequence[float], link: Link) -> Tensor:
    """Logits [A, C] of the weighted mean of several answers, in float32 at least; weights are taken as shares.

    softmax   log Σ_k w_k softmax(z_k): their softmax is the mean of the probabilities
    sigmoid   log p − log(1 − p), p = Σ_k w_k sigmoid(z_k)
    identity  Σ_k w_k z_k
    positions as softmax, over the answers A of one row, for each column of the logits
    Source: Hinton et al., 2015, section 3, of an ensemble by the arithmetic mean of its members' predictions.
    """
    shares = [weight / sum(weights) for weight in weights]
    exact = [precise(each) for each in logits]
    if link == "identity":
        return torch.stack([share * each for share, each in zip(shares, exact, strict=True)]).sum(dim=0)

    def log_mean(logs: Sequence[Tensor]) -> Tensor:
        weighted = [each + math.log(share) for share, each in zip(shares, logs, strict=True)]
        return torch.stack(weighted).logsumexp(dim=0)

    if link in ("softmax", "positions"):
        return log_mean([each.log_softmax(dim=-1 if link == "softmax" else 0) for each in exact])
    sides = ([functional.logsigmoid(sign * each) for each in exact] for sign in (1, -1))
    yes, no = (log_mean(logs) for logs in sides)
    return yes - no
