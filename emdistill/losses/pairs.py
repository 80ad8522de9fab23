"""Costs of pairs of layers, each layer prepared once: for kinds of costs that are no plain difference."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from emdistill.mapping import Pair
from emdistill.mapping.costs import at_pairs, recorded

Prepared = TypeVar("Prepared")
Own = TypeVar("Own")
Other = TypeVar("Other")
Layers = Sequence[Tensor | None]


@dataclass(frozen=True)
class Side(Generic[Prepared]):
    """The layers of one encoder, those that are not recorded None, and what is made of each before it is compared."""

    layers: Layers
    prepare: Callable[[Tensor], Prepared]


def costs_of_pairs(
    kind: str,
    student: Side[Own],
    teacher: Side[Other],
    compare: Callable[[Own, Other], Tensor],
    pairs: Sequence[Pair] | None,
    mask: Tensor,
) -> Tensor:
    """D[i, j] = compare(prepared student layer i, prepared teacher layer j), [M, N], without autocast.

    kind    what the layers hold, for the errors
    pairs   the (i, j) to compute, the others stay 0; layers in none of them may be None; None: all
    mask    whose device the costs are on
    Raises ConfigError where there are no layers, or one of a pair was not recorded.
    """
    shape = len(student.layers), len(teacher.layers)
    every = [(i, j) for i in range(shape[0]) for j in range(shape[1])]
    pairs = every if pairs is None else pairs
    if not pairs and every:
        return torch.zeros(shape, device=mask.device)
    with torch.autocast(mask.device.type, enabled=False):
        students = recorded(kind, "student", student.layers, {i for i, _ in pairs})
        teachers = recorded(kind, "teacher", teacher.layers, {j for _, j in pairs})
        own = {i: student.prepare(layer) for i, layer in students.items()}
        other = {j: teacher.prepare(layer) for j, layer in teachers.items()}
        return at_pairs({(i, j): compare(own[i], other[j]) for i, j in pairs}, shape)


def share_of_texts(tokens: Tensor) -> Tensor:
    """1/texts for each text that has a token, else 0: [B], float64, of bool [B, L]."""
    there = tokens.any(dim=1).double()
    return there / there.sum().clamp(min=1)
