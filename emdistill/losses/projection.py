"""Carries a narrower student's states to the teacher's width; learned with the student, never exported with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from torch import Tensor, nn

from emdistill.errors import ConfigError
from emdistill.states import EncoderShape, EncoderStates

ProjectionKind = Literal["shared", "per_layer", "none"]


class Projection(nn.Module):
    """H -> H W, W [student width, teacher width], for hidden states and embeddings.

    shared     one W for all layers and for the embeddings (the released code's choice)
    per_layer  one W a layer and one for the embeddings
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
