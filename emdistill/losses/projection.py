"""Carries a narrower student's states to the teacher's width; learned with the student, never exported with it."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from emdistill.errors import ConfigError
from emdistill.states import EncoderShape, EncoderStates
from emdistill.values import with_choices

ProjectionKind = Literal["shared", "per_layer", "none"]
RIDGE = 1e-4


@with_choices
class Projection(nn.Module):
    """H -> H W, W [student width, teacher width], for hidden states and embeddings.

    shared     one W for all layers and for the embeddings (the released code's choice)
    per_layer  one W per layer and one for the embeddings
    none       the states as they are; needs equal widths
    Raises ConfigError where `none` meets unequal widths.
    Source: BERT-EMD (Li et al., EMNLP 2020); TinyBERT (Jiao et al., 2020) equation 8.
    """

    def __init__(self, student: EncoderShape, teacher: EncoderShape, kind: ProjectionKind) -> None:
        super().__init__()
        if kind == "none" and student.width != teacher.width:
            raise ConfigError(
                f"projection 'none' needs equal widths, but the student is {student.width} wide and the teacher "
                f"{teacher.width}; choose --objective.projection shared or per_layer"
            )
        self.kind = kind
        count = {"shared": 1, "per_layer": student.layers + 1, "none": 0}[kind]
        self.weights = nn.ModuleList(nn.Linear(student.width, teacher.width, bias=False) for _ in range(count))
        for weight in self.parameters():
            if student.width == teacher.width:
                # At equal widths the states are comparable from the start: begin there, not in a random frame.
                nn.init.eye_(weight)
            else:
                nn.init.normal_(weight, std=student.width**-0.5)

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[EncoderStates, EncoderStates]]) -> None:
        """Begin where the student's states say most about the teacher's: W = argmin ‖S W - T‖², least squares.

        batches   (student's, teacher's) states with embeddings and all hidden layers. S are the unpadded tokens of the
                  student's embeddings and layers, T those of the teacher's embeddings and evenly spaced layers; of
                  per_layer projections each has its own rows.
        """
        products: dict[int, list[Tensor]] = {}
        for student, teacher in batches:
            for layer, (ours, theirs) in enumerate(_pairs(student, teacher)):
                place = 0 if self.kind == "shared" else layer
                sums = products.setdefault(place, [ours.new_zeros(()).double(), ours.new_zeros(()).double()])
                sums[0] = sums[0] + ours.T @ ours
                sums[1] = sums[1] + ours.T @ theirs
        for place, (own, cross) in products.items():
            weight = [*self.parameters()][place]
            # A little of the mean variance on the diagonal, for units that never differ.
            ridge = RIDGE * own.diagonal().mean() * torch.eye(len(own), dtype=own.dtype, device=own.device)
            weight.copy_(torch.linalg.solve(own + ridge, cross).T)

    def forward(self, student: EncoderStates) -> EncoderStates:
        """The student's states, embeddings and hidden layers projected; the rest is passed through."""
        padding = (student.mask == 0)[..., None]
        embeddings = None if student.embeddings is None else self._project(0, student.embeddings, padding)
        hidden = tuple(
            None if states is None else self._project(layer, states, padding)
            for layer, states in enumerate(student.hidden, start=1)
        )
        return replace(student, embeddings=embeddings, hidden=hidden)

    def _project(self, layer: int, states: Tensor, padding: Tensor) -> Tensor:
        if self.kind == "none":
            return states
        # Zero, because W's gradient multiplies padded states, whatever they hold, by their zero gradients.
        tokens = states.masked_fill(padding, 0)
        projected: Tensor = self.weights[0 if self.kind == "shared" else layer](tokens)
        return projected

    def extra_repr(self) -> str:
        return self.kind


def _pairs(student: EncoderStates, teacher: EncoderStates) -> Iterator[tuple[Tensor, Tensor]]:
    """Unpadded tokens, [tokens, width] in float64, of the embeddings and of each student layer with its counterpart."""
    tokens = student.mask != 0
    count, every = len(student.hidden), len(teacher.hidden)
    counterparts = [teacher.hidden[max(0, (layer + 1) * every // count - 1)] for layer in range(count)]
    for ours, theirs in zip((student.embeddings, *student.hidden), (teacher.embeddings, *counterparts), strict=True):
        if ours is not None and theirs is not None:
            yield ours[tokens].double(), theirs[tokens].double()
