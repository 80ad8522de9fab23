"""First-token costs read the first token of each text, wherever it stands, and nothing else."""

import math
from dataclasses import replace

import torch
from encoder_states import leaves, random_states

from emdistill.losses import FirstTokenCosts
from emdistill.states import EncoderShape, EncoderStates

# Padding on the right, on the left, and nothing else.
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]])
FIRST = {0: 0, 1: 0, 2: 1}


def drawn(layers: int, width: int, seed: int, dtype: torch.dtype = torch.float64) -> EncoderStates:
    return random_states(EncoderShape(layers, width, 1), MASK, seed, dtype=dtype)


def test_all_other_tokens_may_hold_anything_and_get_no_gradient() -> None:
    student, teacher = drawn(2, 6, 5), drawn(3, 6, 6)
    first = torch.zeros(MASK.shape, dtype=torch.bool)
    first[[*FIRST.keys()], [*FIRST.values()]] = True
    bad, worse = (
        leaves(replace(states, hidden=tuple(layer.masked_fill(~first[..., None], math.nan) for layer in states.hidden)))
        for states in (student, teacher)
    )
    found = FirstTokenCosts()(bad, worse, compiled=True)
    assert torch.equal(found, FirstTokenCosts()(student, teacher))
    for gradient in torch.autograd.grad(found.sum(), bad.hidden):
        assert gradient.isfinite().all()
        assert {(text, place) for text, place in gradient.any(dim=-1).nonzero().tolist()} == {*FIRST.items()}
