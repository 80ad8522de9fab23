"""Neuron selectivity transfer: which tokens of a text the units of a layer are active at."""

from typing import Unpack

from torch import Tensor
from torch.nn import functional

from emdistill.losses.layers import CostOptions
from emdistill.losses.pairs import Side, costs_of_pairs, share_of_texts
from emdistill.states import EncoderStates, constants, precise


class NeuronSelectivityCosts:
    """D[i, j] = MMD² between the units of student layer i and of teacher layer j, mean over texts, [M, N].

    MMD² = mean over pairs of units of k(f, f') in the student + in the teacher − 2 · across them, k(f, f') = (fᵀ f')²

    f is a unit's activations over the |x| tokens of a text, at length 1. With this kernel MMD² is ‖G^student −
    G^teacher‖² of G = Σ_units f fᵀ / units, [|x|, |x|], so that neither widths nor projections matter.
    Source: Huang and Wang, "Like What You Like", arXiv 1707.01219, equations 5 to 8, where units are channels and
    tokens places of an image; TextBrewer's nst is the mean of (H^student H^student ᵀ / d − H^teacher H^teacher ᵀ / d)²
    over pairs of tokens, without the unit length.
    """

    name = "nst"
    needs = frozenset({"hidden"})

    def __call__(self, student: EncoderStates, teacher: EncoderStates, **options: Unpack[CostOptions]) -> Tensor:
        """As every LayerCosts; there is no compiled kernel, so that `compiled` changes nothing."""
        tokens = student.mask != 0
        weights = share_of_texts(tokens)

        def together(layer: Tensor) -> Tensor:
            return selectivity(layer, tokens)

        def compare(own: Tensor, other: Tensor) -> Tensor:
            return (weights.to(own.dtype) * (own - other).square().sum(dim=(1, 2))).sum()

        return costs_of_pairs(
            "hidden states",
            Side(student.hidden, together),
            Side(constants(teacher.hidden), together),
            compare,
            options.get("pairs"),
            student.mask,
        )


def selectivity(layer: Tensor, tokens: Tensor) -> Tensor:
    """G = Σ_units f fᵀ / units, [B, L, L], of hidden states [B, L, d]; 0 at padding, tokens bool [B, L]."""
    units = functional.normalize(precise(layer).masked_fill(~tokens[..., None], 0), dim=1)
    return units @ units.transpose(1, 2) / layer.shape[-1]
