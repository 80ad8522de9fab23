"""Feature maps: hidden states without their mean and scale over the width, and these two apart (MobileBERT)."""

from collections.abc import Callable
from typing import Literal, Unpack

from torch import Tensor
from torch.nn import functional

from emdistill.errors import ConfigError
from emdistill.losses.layers import CostOptions
from emdistill.losses.pairs import Side, costs_of_pairs
from emdistill.processes import shared_count
from emdistill.states import EncoderStates, constants, precise
from emdistill.values import with_choices

EPSILON = 1e-12  # of the LayerNorm, as in the released code
Part = Literal["maps", "means", "variances"]
Tensors = Callable[[Tensor], Tensor]


def _normalised(states: Tensor) -> Tensor:
    return functional.layer_norm(states, states.shape[-1:], eps=EPSILON)


def _variance(states: Tensor) -> Tensor:
    return states.var(dim=-1, correction=0, keepdim=True)


# What is made of a layer [B, L, d], [B, L, 1 or d], and how two of them differ.
PARTS: dict[Part, tuple[Tensors, Tensors]] = {
    "maps": (_normalised, lambda difference: difference.square()),
    "means": (lambda states: states.mean(dim=-1, keepdim=True), lambda difference: difference.square()),
    "variances": (_variance, lambda difference: difference.abs()),
}


@with_choices
class FeatureMapCosts:
    """D[i, j] = mean over tokens, and for maps over the width, of how a part of two layers differs, [M, N].

    part   "maps":       (LN(s_i) − LN(t_j))²,      LN(h) = (h − mean h) / std h over the width, without weights
           "means":      (mean s_i − mean t_j)²
           "variances":  |var s_i − var t_j|
    The student's states arrive projected to the teacher's width (losses/projection.py).
    Raises ConfigError for maps of unequal widths.
    Source: MobileBERT (Sun et al., ACL 2020), section 3.3, with the LayerNorm of its released code on both sides. There
    means and variances of a student layer are compared with those of all teacher layers at once; here, layer by layer.
    """

    name = "feature_maps"
    needs = frozenset({"hidden"})

    def __init__(self, part: Part = "maps") -> None:
        self.name = f"feature_{part}"
        self.part = part

    def __call__(self, student: EncoderStates, teacher: EncoderStates, **options: Unpack[CostOptions]) -> Tensor:
        """As every LayerCosts; there is no compiled kernel, so that `compiled` changes nothing."""
        padding = (student.mask == 0)[..., None]
        count = shared_count((~padding).sum()).clamp(min=1)
        part, difference = PARTS[self.part]

        def prepare(states: Tensor) -> Tensor:
            # Zero, because what padding holds would enter the gradient.
            return part(precise(states).masked_fill(padding, 0))

        def compare(own: Tensor, other: Tensor) -> Tensor:
            if own.shape != other.shape:
                raise ConfigError(
                    f"feature maps of width {own.shape[-1]} cannot be compared with those of width {other.shape[-1]}; "
                    "project the student's to the teacher's: --objective.projection shared"
                )
            return difference(own - other).masked_fill(padding, 0).sum() / (count * own.shape[-1])

        return costs_of_pairs(
            "hidden states",
            Side(student.hidden, prepare),
            Side(constants(teacher.hidden), prepare),
            compare,
            options.get("pairs"),
            student.mask,
        )
