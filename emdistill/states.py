"""What passes between encoders and losses: the states of one forward pass, and an encoder's shape."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

NOT_MASKED = -100  # the label of a position whose word is not asked for, as torch and transformers have it
Link = Literal["softmax", "sigmoid", "identity"]


@dataclass(frozen=True)
class Predictions:
    """What a student predicts: all that losses and methods need to know of a task.

    link          what turns logits into answers: softmax (one of C), sigmoid (any of C), identity (a score);
                  None: nothing is predicted, the encoder has no head
    problem_type  transformers' name for the task; None where there is none, as for the words of raw text
    """

    link: Link | None
    problem_type: str | None = None

    @property
    def of_task(self) -> bool:
        """Whether a task is learned, and not a language."""
        return self.problem_type is not None


CLASSES = Predictions("softmax", "single_label_classification")
WORDS = Predictions("softmax")
NOTHING = Predictions(None)


@dataclass(frozen=True)
class EncoderShape:
    """The three numbers by which layers of two encoders are compared."""

    layers: int
    width: int
    heads: int


@dataclass(frozen=True)
class EncoderStates:
    """The states of one forward pass; whatever the objective does not need is absent, a layer of it None.

    logits            [B, C]; [P, V] at the P masked positions of a masked-LM; [B, 0] of an encoder without a head
    mask              [B, L], 1 = token, 0 = padding
    embeddings        [B, L, d], the input of the first Transformer layer
    hidden            one [B, L, d] a layer, after each Transformer layer
    attention_scores  one [B, h, L, L] a layer: q·k / sqrt(head size), with the family's bias by position, before mask
                      and softmax
    queries, keys, values  one [B, L, d] a layer, all heads side by side
    """

    logits: Tensor
    mask: Tensor
    embeddings: Tensor | None = None
    hidden: tuple[Tensor | None, ...] = ()
    attention_scores: tuple[Tensor | None, ...] = ()
    queries: tuple[Tensor | None, ...] = ()
    keys: tuple[Tensor | None, ...] = ()
    values: tuple[Tensor | None, ...] = ()


def constants(layers: Iterable[Tensor | None]) -> list[Tensor | None]:
    """The same layers, constant for the gradient."""
    return [None if layer is None else layer.detach() for layer in layers]
