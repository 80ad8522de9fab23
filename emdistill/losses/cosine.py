"""Cosine costs: D[i, j] = 1 - cos(H_i^student W, H_j^teacher), averaged over unpadded tokens."""

from collections.abc import Collection, Sequence
from typing import Unpack

from torch import Tensor
from torch.nn import functional

from emdistill.losses.layers import CostOptions
from emdistill.mapping import Pair, layer_costs
from emdistill.states import EncoderStates, constants, precise


class CosineCosts:
    """D[i, j] = mean over tokens of 1 - cos(student layer i, teacher layer j), [M, N]: directions, not lengths.

    The student's states arrive projected to the teacher's width (losses/projection.py).
    Source: DistilBERT (Sanh et al., 2019), section 2.
    """

    name = "cosine"
    needs = frozenset({"hidden"})

    def __call__(self, student: EncoderStates, teacher: EncoderStates, **options: Unpack[CostOptions]) -> Tensor:
        return 0.5 * direction_costs(student.hidden, constants(teacher.hidden), student.mask, **options)


def direction_costs(
    student_layers: Sequence[Tensor | None],
    teacher_layers: Sequence[Tensor | None],
    mask: Tensor,
    *,
    pairs: Sequence[Pair] | None = None,
    compiled: bool = False,
) -> Tensor:
    """D[i, j] = mean over tokens of ‖s_i/‖s_i‖ - t_j/‖t_j‖‖² = 2 (1 - cos(s_i, t_j)), [M, N].

    The left form, because 1 - cos loses all its digits where the directions are nearly the same.
    Layers [B, L, d]; mask [B, L], 1 = token; pairs, compiled, precision and errors as for `layer_costs`.
    """
    students = _directions(student_layers, mask, None if pairs is None else {i for i, _ in pairs})
    teachers = _directions(teacher_layers, mask, None if pairs is None else {j for _, j in pairs})
    costs = layer_costs(students, teachers, mask, pairs=pairs, compiled=compiled)
    width = next((layer.shape[-1] for layer in students if layer is not None), 1)
    return width * costs  # layer_costs averages over the width too


def _directions(layers: Sequence[Tensor | None], mask: Tensor, numbers: Collection[int] | None) -> list[Tensor | None]:
    """Each token's state, of length 1; None for layers that are none of these numbers."""
    padding = (mask == 0)[..., None]

    def direction(state: Tensor) -> Tensor:
        # Zero, because what padding holds would enter the gradient of the division.
        return functional.normalize(precise(state).masked_fill(padding, 0), dim=-1)

    return [
        None if layer is None or (numbers is not None and number not in numbers) else direction(layer)
        for number, layer in enumerate(layers)
    ]
