"""The objective: a weighted sum of loss terms that prints its own equation."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from emdistill.errors import ConfigError
from emdistill.losses.layers import LayerLoss
from emdistill.losses.loss import Loss
from emdistill.losses.projection import Projection
from emdistill.mapping import HostCopy
from emdistill.models.alignment import meet
from emdistill.states import EncoderStates


class Objective(nn.Module):
    """L = Σ_t weight_t · L_t over the terms of its losses.

    losses      each yields one or more named terms
    weights     term name -> weight; every term needs one
    projection  applied to the student's states before any loss sees them
    What is learned for training only (projections, layer weights) lives here, not in the student.
    Raises ConfigError for no loss, a term of two losses, and terms that are not those of the weights.
    """

    def __init__(
        self, losses: Sequence[Loss], weights: Mapping[str, float], projection: Projection | None = None
    ) -> None:
        super().__init__()
        if not losses:
            raise ConfigError("the objective has no loss: give at least one term a weight above 0")
        self.losses = nn.ModuleList(losses)
        self.weights = dict(weights)
        self.projection = projection

    @property
    def needs(self) -> frozenset[str]:
        """The states that capture must record."""
        return frozenset().union(*(loss.needs for loss in self._losses()))

    @property
    def student_layers(self) -> frozenset[int] | None:
        """The student's layers whose hidden states or scores must be recorded; None: all."""
        return _union(loss.student_layers for loss in self._losses() if loss.needs - {"embeddings"})

    @property
    def teacher_layers(self) -> frozenset[int] | None:
        """The teacher's layers whose hidden states or scores must be recorded; None: all."""
        return _union(loss.teacher_layers for loss in self._losses() if loss.needs - {"embeddings"})

    @property
    def taught(self) -> bool:
        """Whether any loss reads the teacher."""
        return any(loss.taught for loss in self._losses())

    @property
    def predicts(self) -> bool:
        """Whether any loss reads logits."""
        return any(loss.predicts for loss in self._losses())

    def forward(
        self,
        student: EncoderStates,
        teacher: EncoderStates,
        batch: Mapping[str, Tensor],
        meanwhile: Callable[[], object] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and each term with its weight applied (they sum to the total).

        meanwhile   called once all costs are on their way to the CPU, before they are waited for: what it gives an
                    accelerator to do covers the time in which flows are solved
        """
        if self.needs and self.taught:
            student, teacher = meet(student, teacher, batch)
        if self.projection is not None:
            student = self.projection(student)
        costs = {loss: loss.layer_costs(student, teacher) for loss in self.layer_losses()}
        inputs = {loss: loss.host_inputs(matrices) for loss, matrices in costs.items()}
        copy = HostCopy([tensor for tensors in inputs.values() for tensor in tensors])
        others = {loss: loss(student, teacher, batch) for loss in self._losses() if loss not in costs}
        if meanwhile is not None:
            meanwhile()
        arrived = iter(copy.wait())
        terms: dict[str, Tensor] = {}
        for loss in self._losses():
            if isinstance(loss, LayerLoss):
                own = loss.terms(costs[loss], [next(arrived) for _ in inputs[loss]])
            else:
                own = others[loss]
            if twice := terms.keys() & own.keys():
                raise ConfigError(f"two losses yield the term {', '.join(sorted(twice))}: each term must come from one")
            terms |= own
        if terms.keys() != self.weights.keys():
            raise ConfigError(
                f"the losses yield the terms {', '.join(terms)}, the weights name {', '.join(self.weights) or 'none'}: "
                f"give every term a weight, and no other"
            )
        weighted = {name: self.weights[name] * value for name, value in terms.items()}
        return torch.stack(list(weighted.values())).sum(), weighted

    def layer_losses(self) -> list[LayerLoss]:
        """The losses that map layers to layers, for whoever records their flows."""
        return [loss for loss in self._losses() if isinstance(loss, LayerLoss)]

    def _losses(self) -> list[Loss]:
        return [loss for loss in self.losses if isinstance(loss, Loss)]

    def __str__(self) -> str:
        return "L = " + " + ".join(f"{weight:g}·{name}" for name, weight in self.weights.items())


def _union(parts: Iterable[frozenset[int] | None]) -> frozenset[int] | None:
    """All numbers of the parts; None, which stands for all there are, where a part is None."""
    union: frozenset[int] = frozenset()
    for part in parts:
        if part is None:
            return None
        union |= part
    return union
