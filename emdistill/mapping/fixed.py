"""Layer mappings that do not change: a flow given once, as a matrix."""

from collections.abc import Iterable, Sequence
from typing import Self

import torch
from torch import Tensor

from emdistill.errors import ConfigError
from emdistill.mapping.kernels import Pair
from emdistill.mapping.mapping import LayerMapping, check_layer_counts, check_pair


class FixedMapping(LayerMapping):
    """F[i, j] as given, whatever the costs; only pairs with flow need costs.

    flow [M, N], finite and not negative; it is a buffer, moved and saved with the mapping. A student layer whose row
    is 0 is not taught; where all are, nothing is: mass 0, pairs ().
    Raises ConfigError for a flow that is none.
    """

    fixed_flow: Tensor

    def __init__(self, flow: Tensor) -> None:
        flow = flow.detach().float()
        if flow.ndim != 2 or 0 in flow.shape or not flow.isfinite().all() or not (flow >= 0).all():
            raise ConfigError(
                f"a fixed flow is a matrix [student layers, teacher layers] of shares, finite and not negative; this "
                f"one has shape {tuple(flow.shape)}"
            )
        super().__init__(flow.shape[0], flow.shape[1])
        self.register_buffer("fixed_flow", flow.clone())
        self.mass = float(flow.sum())
        self.pairs = tuple((int(i), int(j)) for i, j in flow.nonzero())

    @classmethod
    def of_pairs(cls, pairs: Iterable[Pair], student_layers: int, teacher_layers: int) -> Self:
        """F[i, j] = 1 for each of these (i, j), else 0; raises LayerCountError for a layer that is not there."""
        check_layer_counts(student_layers, teacher_layers)
        flow = torch.zeros(student_layers, teacher_layers)
        for i, j in pairs:
            check_pair(i, j, student_layers, teacher_layers)
            flow[i, j] = 1.0
        return cls(flow)

    def flow(self, costs: Tensor, host: Sequence[Tensor]) -> Tensor:
        self.check_shape(costs)
        return self.fixed_flow.to(costs).expand(costs.shape)

    def extra_repr(self) -> str:
        return f"pairs={list(self.pairs or ())}"


def uniform_mapping(student_layers: int, teacher_layers: int) -> FixedMapping:
    """Every k-th teacher layer, the last one included: F[i, ⌊(i + 1) N / M⌋ − 1] = 1, of mass M.

    Source: TinyBERT (Jiao et al., 2020), section 3; there M divides N.
    """
    return FixedMapping.of_pairs(_every_kth(student_layers, teacher_layers), student_layers, teacher_layers)


def last_mapping(student_layers: int, teacher_layers: int) -> FixedMapping:
    """The last teacher layers, one to one: F[i, N − M + i] = 1, of mass M.

    Where the student is the deeper, its first M − N layers learn from the teacher's first as well.
    Source: the "top" strategy in the ablations of TinyBERT (Jiao et al., 2020).
    """
    return FixedMapping.of_pairs(_last(student_layers, teacher_layers), student_layers, teacher_layers)


def first_mapping(student_layers: int, teacher_layers: int) -> FixedMapping:
    """The first teacher layers, one to one: F[i, i] = 1, of mass M.

    Where the student is the deeper, its last M − N layers learn from the teacher's last as well.
    Source: the "bottom" strategy in the ablations of TinyBERT (Jiao et al., 2020).
    """
    pairs = [(i, min(i, teacher_layers - 1)) for i in range(student_layers)]
    return FixedMapping.of_pairs(pairs, student_layers, teacher_layers)


def skip_mapping(student_layers: int, teacher_layers: int) -> FixedMapping:
    """Every k-th teacher layer without the last, which the head teaches: F[i, ⌊(i + 1) N / M⌋ − 1] = 1, i < M − 1.

    Of mass M − 1: the student's last layer is untaught. A student of one layer learns from the teacher's last.
    Source: PKD-Skip (Sun et al., Patient Knowledge Distillation, EMNLP 2019); there M divides N.
    """
    pairs = _every_kth(student_layers, teacher_layers)
    return FixedMapping.of_pairs(pairs[:-1] or pairs, student_layers, teacher_layers)


def pkd_last_mapping(student_layers: int, teacher_layers: int) -> FixedMapping:
    """The teacher layers before the last, which the head teaches: F[i, N − M + i] = 1, i < M − 1.

    Of mass M − 1: `last` without its last pair. For 6 of 12 layers, counted from 1: 1 to 5 learn from 7 to 11. A
    student of one layer learns from the teacher's last.
    Source: PKD-Last (Sun et al., Patient Knowledge Distillation, EMNLP 2019).
    """
    pairs = _last(student_layers, teacher_layers)
    return FixedMapping.of_pairs(pairs[:-1] or pairs, student_layers, teacher_layers)


def final_mapping(student_layers: int, teacher_layers: int) -> FixedMapping:
    """Only the last student layer, from the last teacher layer: F[M − 1, N − 1] = 1, of mass 1.

    Source: DistilBERT (Sanh et al., 2019) for hidden states, MiniLM (Wang et al., 2020) for attention.
    """
    return FixedMapping.of_pairs([(student_layers - 1, teacher_layers - 1)], student_layers, teacher_layers)


def _last(student_layers: int, teacher_layers: int) -> list[Pair]:
    return [(i, max(0, teacher_layers - student_layers + i)) for i in range(student_layers)]


def _every_kth(student_layers: int, teacher_layers: int) -> list[Pair]:
    """Rounded down, as a student that keeps so many layers is born, so that each is taught by the one it came from."""
    return [(i, max(0, (i + 1) * teacher_layers // student_layers - 1)) for i in range(student_layers)]
