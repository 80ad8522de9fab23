"""What passes between encoders and losses: the states of one forward pass, and an encoder's shape."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

# The label of a row without a class, and of a position that is not masked: of neither anything is learned, as in torch.
NO_CLASS = NOT_MASKED = -100
# A batch for two tokenizers: the teacher's columns are named so, and each side's `words` number the tokens' words.
TEACHERS = "teacher_"
WORDS_OF_TOKENS = "words"
NO_WORD = -1
# In a batch of a kind with several answers per row: the positions [B, A'] whose logits are answers, in their order, and
# what fills the rest of a row that has fewer.
ANSWERS = "answers"
NO_ANSWER = -1
# Where a kind's answers have two logits at two positions, the ones of the second; and the window that a row is.
ENDS = "answer_ends"
WINDOW = "window"
FAR_BELOW = -1e9  # a logit whose probability is 0
# In a batch: the logits of a teacher that is a file of answers, [B, C]; it has no tokens, so no name as of TEACHERS.
TEACHER_LOGITS = "answer_logits"
# In a batch of raw text: the tokens whose logits are read, [B, L], where these are more than the masked ones.
ASKED = "asked"
# In a batch of a mixture: the number of its task, the same for every row, [B].
TASK = "task"
Link = Literal["softmax", "sigmoid", "identity", "positions"]
SEQUENCE = "SequenceClassification"


@dataclass(frozen=True)
class Predictions:
    """What a student predicts: all that losses and methods need to know of a task.

    link          turns logits into answers: softmax (one of C), sigmoid (any of C), identity (a score); positions:
                  a softmax of each column over the answers of a row; None: the encoder has no head
    problem_type  transformers' name for the kind of task; None without a task, as for the words of raw text
    head          what stands on the encoder, by the names of transformers' classes: BertForSequenceClassification
    outputs       the width of the logits; 0 where it is not known
    """

    link: Link | None
    problem_type: str | None = None
    head: str = SEQUENCE
    outputs: int = 0

    @property
    def of_task(self) -> bool:
        """Whether there is a task, and not a language alone."""
        return self.problem_type is not None


CLASSES = Predictions("softmax", "single_label_classification")
WORDS = Predictions("softmax")
NOTHING = Predictions(None)


@dataclass(frozen=True)
class EncoderShape:
    """The numbers that compare the layers of two encoders."""

    layers: int
    width: int  # of hidden states, d
    heads: int  # per layer
    attending: tuple[int, ...] | None = None  # the layers that have attention; None: all
    biased: bool = False  # whether a bias by position is part of its attention scores
    attention_width: int | None = None  # of queries, keys and values within a bottleneck; None: as wide as the states

    @property
    def attending_layers(self) -> tuple[int, ...]:
        """The layers that have attention, in order."""
        return tuple(range(self.layers)) if self.attending is None else self.attending

    @property
    def attends_everywhere(self) -> bool:
        """Whether all layers have attention."""
        return len(self.attending_layers) == self.layers

    def __str__(self) -> str:
        if not self.layers:
            return f"a bag of vectors, {self.width} wide"
        return f"{self.layers} {'layer' if self.layers == 1 else 'layers'} × {self.width}"


NOBODY = EncoderShape(0, 0, 0)
"""Where there is no teacher."""


@dataclass(frozen=True)
class EncoderStates:
    """The states of one forward pass; those that the objective does not need are absent, single layers None.

    logits            [A, C], the answers of the batch in their order, A = B where a row has one; [P, V] at the P masked
                      (or ASKED) positions of a masked-LM; [B, 0] of an encoder without a head
    mask              [B, L], 1 = token, 0 = padding
    embeddings        [B, L, d], the input of the first Transformer layer
    hidden            [B, L, d] per layer, after each Transformer layer
    attention_scores  [B, h, L, L] per layer: q·k / sqrt(head size), with the family's bias by position, before mask
                      and softmax; None of a layer without attention
    queries, keys, values  [B, L, d] per layer, all heads side by side
    features          [.., d] each: what the head's last matrix reads; the private features of one of several tasks
    """

    logits: Tensor
    mask: Tensor
    embeddings: Tensor | None = None
    hidden: tuple[Tensor | None, ...] = ()
    attention_scores: tuple[Tensor | None, ...] = ()
    queries: tuple[Tensor | None, ...] = ()
    keys: tuple[Tensor | None, ...] = ()
    values: tuple[Tensor | None, ...] = ()
    features: tuple[Tensor | None, ...] = ()


def precise(state: Tensor) -> Tensor:
    """In float32, or float64 where it is."""
    return state if state.dtype == torch.float64 else state.float()


def labels_of_answers(batch: Mapping[str, Tensor]) -> Tensor:
    """The labels of a batch's answers, [A] in their order, padding left out; [B, ...] where each row has one.

    Of answers with ENDS the labels [B·2] of `over_answers`.
    """
    labels = batch["labels"]
    if ENDS in batch:
        return labels.flatten()
    return labels[batch[ANSWERS] != NO_ANSWER] if ANSWERS in batch else labels


def over_answers(logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """The logits [A, C] of a batch as [B·C, A']: each column over the answers of a row, FAR_BELOW behind the last."""
    there = batch[ANSWERS] != NO_ANSWER
    spread = logits.new_full((*there.shape, logits.shape[-1]), FAR_BELOW)
    spread[there] = logits
    return spread.transpose(1, 2).flatten(0, 1)


def answers_per_feature(batch: Mapping[str, Tensor]) -> list[int]:
    """How many of the logits [A, C] are of each row of a batch."""
    counts: list[int] = (
        (batch[ANSWERS] != NO_ANSWER).sum(dim=1).tolist() if ANSWERS in batch else [1] * len(batch["input_ids"])
    )
    return counts


def student_part(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch, or a row, without the teacher's columns."""
    return {name: values for name, values in batch.items() if not name.startswith(TEACHERS)}


def teacher_part(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The teacher's columns under their tokenizer's names, and the number of the row; all where both read the same."""
    part = {name.removeprefix(TEACHERS): values for name, values in batch.items() if name.startswith(TEACHERS)}
    if not part:
        return dict(batch)
    return part | ({"row": batch["row"]} if "row" in batch else {})


def constants(layers: Iterable[Tensor | None]) -> list[Tensor | None]:
    """The same layers, constant for the gradient."""
    return [None if layer is None else layer.detach() for layer in layers]
