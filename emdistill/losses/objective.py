"""The objective: a weighted sum of loss terms that prints its own equation."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from emdistill.errors import ConfigError
from emdistill.losses.balance import GradientBalance, Norms
from emdistill.losses.layers import LayerLoss
from emdistill.losses.loss import Loss
from emdistill.losses.projection import Projection
from emdistill.mapping import HostCopy
from emdistill.models.alignment import meet
from emdistill.states import EncoderStates

# What a term weighs as training goes on, by the share of it that is done.
SCHEDULES: dict[str, Callable[[float], float]] = {"fade": lambda done: 1 - done, "grow": lambda done: done}


class Objective(nn.Module):
    """L = Σ_t s_t(p) · r_t · weight_t · L_t over the terms of its losses; s and r are 1 where nothing is said of them.

    losses      each yields one or more named terms
    weights     term name -> weight; every term needs one
    projection  applied to the student's states before any loss sees them
    balance     gives some terms a factor r by the norms of their gradients
    schedules   term name -> name of its s (SCHEDULES), a function of p, the share of the training that is done
    What is learned for training only (projections, layer weights) lives here, not in the student.
    Raises ConfigError for no loss, a term of two losses, and terms that are not those of the weights.
    """

    def __init__(
        self,
        losses: Sequence[Loss],
        weights: Mapping[str, float],
        projection: Projection | None = None,
        *,
        balance: GradientBalance | None = None,
        schedules: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        if not losses:
            raise ConfigError("the objective has no loss: give at least one term a weight above 0")
        self.losses = nn.ModuleList(losses)
        self.weights = dict(weights)
        self.projection = projection
        self.balance = balance
        self.schedules = dict(schedules or {})
        self.apart: frozenset[str] = frozenset()
        # No buffers: the trainer says both before every pass, after a resume too.
        self.step = 0
        self.progress = 0.0

    def of(self, batch: Mapping[str, Tensor]) -> "Objective":
        """What is to be learned from a batch: of several tasks the objective of the batch's task."""
        return self

    def begin_step(self, step: int, steps: int) -> None:
        """Say that optimizer step `step`, from 0, of so many begins."""
        self.step = step
        self.progress = step / steps

    def add(self, term: str, loss: Loss, weight: float) -> None:
        """One more loss, of one term, that `balance` does not count among the others."""
        self.losses.append(loss)
        self.weights[term] = weight
        self.apart |= {term}

    @property
    def needs(self) -> frozenset[str]:
        """The states that capture must record of both."""
        return frozenset().union(*(loss.needs for loss in self._losses()))

    @property
    def student_needs(self) -> frozenset[str]:
        """The states that capture must record of the student."""
        return self.needs.union(*(loss.own_needs for loss in self._losses()))

    @property
    def student_layers(self) -> frozenset[int] | None:
        """The student's layers whose hidden states or scores must be recorded; None: all."""
        return _union(loss.student_layers for loss in self._losses() if (loss.needs | loss.own_needs) - {"embeddings"})

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

    @property
    def unmasked_share(self) -> float:
        """On raw text, the share of the tokens that are not masked whose logits are read too."""
        return max(loss.unmasked_share for loss in self._losses())

    def forward(
        self,
        student: EncoderStates,
        teacher: EncoderStates,
        batch: Mapping[str, Tensor],
        meanwhile: Callable[[], object] | None = None,
        norms: Norms | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and each term with its weight applied (they sum to the total).

        meanwhile   called once all costs are on their way to the CPU, before they are waited for: what it gives an
                    accelerator to do covers the time in which flows are solved
        norms       terms -> their gradient norms over the student's weights, which `balance` asks for at some steps;
                    without, its factors stay as they are
        """
        as_it_is = student
        if self.needs and self.taught:
            student, teacher = meet(student, teacher, batch)
        if self.projection is not None:
            student = self.projection(student)
        costs = {loss: loss.layer_costs(student, teacher) for loss in self.layer_losses()}
        inputs = {loss: loss.host_inputs(matrices) for loss, matrices in costs.items()}
        copy = HostCopy([tensor for tensors in inputs.values() for tensor in tensors])
        others = {
            loss: loss(as_it_is if loss.own_needs else student, teacher, batch)
            for loss in self._losses()
            if loss not in costs
        }
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
        weights = self._weights_now(terms, norms)
        weighted = {name: weights[name] * value for name, value in terms.items()}
        return torch.stack(list(weighted.values())).sum(), weighted

    def _weights_now(self, terms: Mapping[str, Tensor], norms: Norms | None) -> dict[str, float | Tensor]:
        weights: dict[str, float | Tensor] = dict(self.weights)
        shares = {name: SCHEDULES[schedule](self.progress) for name, schedule in self.schedules.items()}
        if self.balance is not None:
            if norms is not None and self.training and self.balance.due(self.step):
                measured = {name: value for name, value in terms.items() if name not in self.apart}
                # A balanced term is measured at its full weight, the others as they weigh now.
                others = shares.keys() - self.balance.terms
                now = self.weights | {name: self.weights[name] * shares[name] for name in others}
                self.balance.note(self.step, norms(self.balance.parts(measured, now)))
            weights |= {name: weights[name] * factor for name, factor in self.balance.factors().items()}
        return weights | {name: weights[name] * share for name, share in shares.items()}

    def layer_losses(self) -> list[LayerLoss]:
        """The losses that map layers to layers, for whoever records their flows."""
        return [loss for loss in self._losses() if isinstance(loss, LayerLoss)]

    def flows(self) -> Iterator[tuple[str, LayerLoss, Tensor]]:
        """Each term's last flow, by its name, and the loss that it comes from."""
        for loss in self.layer_losses():
            yield from ((name, loss, flow) for name, flow in loss.last_flows.items())

    def _losses(self) -> list[Loss]:
        return [loss for loss in self.losses if isinstance(loss, Loss)]

    def __str__(self) -> str:
        balanced = () if self.balance is None else self.balance.terms
        scheduled = {name: f"{schedule}(p)·" for name, schedule in self.schedules.items()}
        equation = " + ".join(
            f"{scheduled.get(name, '')}{weight:g}·{'r·' if name in balanced else ''}{name}"
            for name, weight in self.weights.items()
        )
        measured = {name: weight for name, weight in self.weights.items() if name not in self.apart}
        notes = [self.balance.equation(measured)] if self.balance is not None else []
        notes += ["p = share of the training done"] if scheduled else []
        return ", ".join([f"L = {equation}", *notes])


def _union(parts: Iterable[frozenset[int] | None]) -> frozenset[int] | None:
    """All numbers of the parts; None, which stands for all there are, where a part is None."""
    union: frozenset[int] = frozenset()
    for part in parts:
        if part is None:
            return None
        union |= part
    return union
