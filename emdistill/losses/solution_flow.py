"""Flow of the solution procedure: how a text's states turn from the embeddings into those of a layer."""

from collections.abc import Callable
from typing import Unpack

from torch import Tensor

from emdistill.errors import CaptureError, ConfigError
from emdistill.losses.layers import CostOptions
from emdistill.losses.pairs import Side, costs_of_pairs, share_of_texts
from emdistill.states import EncoderStates, constants, precise


class SolutionFlowCosts:
    """D[i, j] = mean over texts and entries of (G_i^student − G_j^teacher)², G_i = Eᵀ H_i / |x|, [M, N].

    E and H_i [|x|, d] are a text's embeddings and its states after layer i: G_i [d, d] is the flow from one to the
    other. So a pair (i, j) of a mapping compares what the first i layers of the student do with what the teacher's
    first j do. The student's states arrive projected to the teacher's width (losses/projection.py).
    Raises ConfigError for unequal widths, CaptureError where the embeddings were not recorded.
    Source: Yim et al., CVPR 2017, "A Gift from Knowledge Distillation", equations 1 and 2, there between any two layers
    and summed; TextBrewer's fsp (gram) with embeddings and layer: [0, i + 1] and [0, j + 1].
    """

    name = "fsp"
    needs = frozenset({"hidden", "embeddings"})

    def __call__(self, student: EncoderStates, teacher: EncoderStates, **options: Unpack[CostOptions]) -> Tensor:
        """As every LayerCosts; there is no compiled kernel, so that `compiled` changes nothing."""
        if student.embeddings is None or teacher.embeddings is None:
            raise CaptureError("the fsp loss needs captured embeddings; switch it off: --objective.fsp 0")
        tokens = student.mask != 0
        weights = share_of_texts(tokens)
        own, other = (flow_from(start, tokens) for start in (student.embeddings, teacher.embeddings.detach()))

        def compare(one: Tensor, two: Tensor) -> Tensor:
            if one.shape != two.shape:
                raise ConfigError(
                    f"flows of {one.shape[-1]} and {two.shape[-1]} units cannot be compared; project the student's "
                    "states: --objective.projection shared"
                )
            return (weights.to(one.dtype) * (one - two).square().mean(dim=(1, 2))).sum()

        layers = Side(student.hidden, own), Side(constants(teacher.hidden), other)
        return costs_of_pairs("hidden states", *layers, compare, options.get("pairs"), student.mask)


def flow_from(start: Tensor, tokens: Tensor) -> Callable[[Tensor], Tensor]:
    """A function from a layer [B, L, d] to startᵀ · layer / |x| over a text's |x| unpadded tokens, [B, d, d]."""
    padding = ~tokens[..., None]
    lengths = tokens.sum(dim=1).clamp(min=1)[:, None, None]
    first = precise(start).masked_fill(padding, 0)

    def flow(layer: Tensor) -> Tensor:
        return first.transpose(1, 2) @ precise(layer).masked_fill(padding, 0) / lengths

    return flow
