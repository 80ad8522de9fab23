"""First-token costs: D[i, j] = ‖h_i/‖h_i‖ - t_j/‖t_j‖‖² of the states of [CLS], averaged over the batch."""

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from emdistill.losses.cosine import direction_costs
from emdistill.losses.layers import CostOptions
from emdistill.states import EncoderStates, constants


class FirstTokenCosts:
    """D[i, j] = mean over the batch of ‖h_i/‖h_i‖ - t_j/‖t_j‖‖², [M, N].

    h, t [B, d] are the hidden states of each text's first token, from which classifiers read; with padding on the
    left that is the first one that is not padded. The student's arrive projected to the teacher's width
    (losses/projection.py). The paper sums over the training examples and mapped layers: here, mean over the batch.
    Source: Patient KD (Sun et al., EMNLP 2019), equation 7.
    """

    name = "first_token"
    needs = frozenset({"hidden"})

    def __call__(self, student: EncoderStates, teacher: EncoderStates, **options: Unpack[CostOptions]) -> Tensor:
        tokens = student.mask != 0
        return direction_costs(
            _first(student.hidden, tokens),
            _first(constants(teacher.hidden), tokens),
            tokens.any(dim=1, keepdim=True),
            pairs=options.get("pairs"),
            compiled=False,  # one token per text: compiling would take longer than all that it could save
        )


def _first(layers: Sequence[Tensor | None], tokens: Tensor) -> list[Tensor | None]:
    """[B, L, d] -> [B, 1, d], the first unpadded token of each text; `tokens` bool [B, L]."""
    texts = torch.arange(len(tokens), device=tokens.device)
    places = tokens.int().argmax(dim=1)
    return [None if layer is None else layer[texts, places][:, None] for layer in layers]
