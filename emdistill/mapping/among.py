"""A layer mapping among some of the layers: the others, which lack what is compared, teach and learn nothing."""

from collections.abc import Sequence

import torch
from torch import Tensor

from emdistill.mapping.kernels import Pair
from emdistill.mapping.mapping import LayerMapping, check_pair


class MappingAmong(LayerMapping):
    """F[rows[i], columns[j]] = the flow G[i, j] of a mapping built for so many layers, else 0.

    mapping         costs [..., m, n] -> G; its layer weights, where it has any, are those of these layers alone
    rows, columns   the student's layers, m of them, and the teacher's, n, in increasing order
    Costs of other pairs are not asked for. Raises LayerCountError for a layer that is not there.
    """

    def __init__(
        self,
        mapping: LayerMapping,
        rows: Sequence[int],
        columns: Sequence[int],
        student_layers: int,
        teacher_layers: int,
    ) -> None:
        super().__init__(student_layers, teacher_layers)
        self.mapping = mapping
        self.mass = mapping.mass
        self.differentiable = mapping.differentiable
        inner = mapping.pairs
        every: list[Pair] = [(i, j) for i in range(len(rows)) for j in range(len(columns))]
        self.pairs = tuple((rows[i], columns[j]) for i, j in (every if inner is None else inner))
        for i, j in self.pairs:
            check_pair(i, j, student_layers, teacher_layers)
        self.rows, self.columns = list(rows), list(columns)

    def host_inputs(self, costs: Tensor) -> list[Tensor]:
        self.check_shape(costs)
        return self.mapping.host_inputs(self._among(costs))

    def flow(self, costs: Tensor, host: Sequence[Tensor]) -> Tensor:
        self.check_shape(costs)
        inner = self.mapping.flow(self._among(costs), host)
        rows = costs.new_zeros(*costs.shape[:-1], len(self.columns)).index_copy(-2, self._at(self.rows, costs), inner)
        return costs.new_zeros(costs.shape).index_copy(-1, self._at(self.columns, costs), rows)

    @property
    def student_weights(self) -> Tensor | None:
        """Layer weights of all student layers, 0 where the mapping is not among them; None of a mapping without."""
        return self._spread("student_weights", self.rows, self.student_layers)

    @property
    def teacher_weights(self) -> Tensor | None:
        """The same of the teacher's."""
        return self._spread("teacher_weights", self.columns, self.teacher_layers)

    def _among(self, costs: Tensor) -> Tensor:
        return costs.index_select(-2, self._at(self.rows, costs)).index_select(-1, self._at(self.columns, costs))

    def _spread(self, name: str, places: Sequence[int], layers: int) -> Tensor | None:
        weights: Tensor | None = getattr(self.mapping, name, None)
        if weights is None:
            return None
        return weights.new_zeros(layers).index_copy(0, self._at(places, weights), weights)

    @staticmethod
    def _at(places: Sequence[int], like: Tensor) -> Tensor:
        return torch.tensor(places, device=like.device)

    def extra_repr(self) -> str:
        return f"student_layers={self.rows}, teacher_layers={self.columns}"
