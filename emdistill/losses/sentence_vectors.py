"""Sentence vectors: what the student makes of a whole text, mapped linearly, is what the teacher makes of it."""

from collections.abc import Collection, Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from emdistill.losses.loss import Loss
from emdistill.models.bilstm import first_and_last, greatest
from emdistill.states import EncoderShape, EncoderStates
from emdistill.values import with_choices

Vector = Literal["mean", "first"]
TERMS = ("vectors", "directions")


@with_choices
class SentenceVectors(Loss):
    """vectors = mean over texts of ‖W s + b − z‖² / d,    directions = of 1 − cos(W s + b, z),    z = (t − t̄) / σ.

    s, t       vectors of a text after the last layer, t [d]: the mean of its tokens' states, or its first token's. Of a
               BiLSTM s is what its head reads: the greatest values of its first and last layer over the tokens
    t̄, σ²      of the teacher's vectors: their mean, and the mean square of a unit's distance from it (`fit`)
    Without t̄ all texts would seem alike: BERT's vectors share most of their length. Whoever answers t̄ to every text has
    1 in both terms.
    W, b       learned with the student, never exported with it
    terms      those that are computed
    Source: Wu et al., AACL 2020 (arXiv 2004.03097); there not centred.
    """

    needs = frozenset({"hidden"})
    mean: Tensor
    scale: Tensor

    def __init__(
        self, student: EncoderShape, teacher: EncoderShape, *, vector: Vector = "mean", terms: Collection[str] = TERMS
    ) -> None:
        super().__init__()
        self.vector = vector
        self.terms = [term for term in TERMS if term in terms]
        self.recurrent = student.heads == 0
        last = student.layers - 1
        self.student_layers = frozenset({0, last} if self.recurrent else {last})
        self.teacher_layers = frozenset({teacher.layers - 1})
        self.map = nn.Linear(student.width * (2 if self.recurrent else 1), teacher.width)
        self.register_buffer("mean", torch.zeros(teacher.width))
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def fit(self, batches: Iterable[EncoderStates]) -> None:
        """Take t̄ and σ from the teacher's states of a sample."""
        vectors = torch.cat([self._of_teacher(states) for states in batches]).double()
        self.mean.copy_(vectors.mean(dim=0))
        self.scale.copy_(vectors.std(dim=0, correction=0).square().mean().sqrt().clamp(min=1e-6))

    def forward(self, student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        own = self.map(self._of_student(student).to(self.map.weight.dtype))
        targets = (self._of_teacher(teacher).to(own.dtype) - self.mean) / self.scale
        terms = {
            "vectors": (own - targets).square().mean(),
            "directions": 1 - cosine_similarity(own, targets).mean(),
        }
        return {term: terms[term] for term in self.terms}

    def _of_student(self, states: EncoderStates) -> Tensor:
        if self.recurrent:
            return greatest(first_and_last(states.hidden), states.mask)
        return text_vectors(states, self.vector)

    def _of_teacher(self, states: EncoderStates) -> Tensor:
        return text_vectors(states, self.vector).detach()

    def extra_repr(self) -> str:
        return self.vector


@with_choices
def text_vectors(states: EncoderStates, vector: Vector) -> Tensor:
    """[B, d], after the last layer: the mean over a text's tokens, or its first token's state."""
    last = states.hidden[-1]
    assert last is not None
    tokens = states.mask != 0
    if vector == "first":
        return last[torch.arange(len(last), device=last.device), tokens.int().argmax(dim=1)]
    return last.masked_fill(~tokens[..., None], 0).sum(dim=1) / tokens.sum(dim=1, keepdim=True)
