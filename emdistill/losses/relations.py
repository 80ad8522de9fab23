"""Self-attention relations: how the queries (keys, values) of a text's tokens stand to each other."""

import math
from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from emdistill.errors import ConfigError
from emdistill.losses.distributions import divergence, log_distributions, targets
from emdistill.losses.layers import CostOptions
from emdistill.losses.pairs import Side, costs_of_pairs
from emdistill.states import EncoderStates, constants, precise

RELATIONS = ("queries", "keys", "values")


class RelationCosts:
    """D[i, j] = Σ_{A in Q, K, V} 1/(A_r |x|) Σ_heads Σ_tokens KL(R_j^teacher ‖ R_i^student), mean over texts, [M, N].

    R = softmax(a aᵀ / sqrt(d_r)) over the |x| tokens of a text, a [|x|, d_r]: one relation head of A, which is the
    layer's vectors of all attention heads side by side, split anew into A_r parts of width d_r. So neither widths nor
    head counts of student and teacher need agree, and nothing is projected.
    relation_heads  A_r, which must divide both widths
    relations       which of "queries", "keys", "values" are compared, each with weight 1
    Raises ConfigError for relation heads that do not divide a width.
    Source: MiniLMv2 (Wang et al., Findings of ACL 2021), section 3.1; there of one chosen layer on each side.
    """

    name = "relations"
    needs = frozenset(RELATIONS)

    def __init__(self, relation_heads: int = 12, relations: Sequence[str] = RELATIONS) -> None:
        if relation_heads < 1:
            raise ConfigError(f"the number of relation heads must be 1 or more, not {relation_heads}")
        if not relations or len(set(relations)) < len(relations) or not set(relations) <= set(RELATIONS):
            raise ConfigError(
                f"the relations are some of {', '.join(RELATIONS)}, each once, not {', '.join(relations) or 'none'}"
            )
        self.relation_heads = relation_heads
        self.relations = tuple(relations)
        self.needs = frozenset(relations)

    def __call__(self, student: EncoderStates, teacher: EncoderStates, **options: Unpack[CostOptions]) -> Tensor:
        """As every LayerCosts; there is no compiled kernel for relations, so that `compiled` changes nothing."""
        tokens = student.mask != 0

        def logs(layer: Tensor) -> Tensor:
            return log_relations(layer, tokens, self.relation_heads)

        def compare(own: Tensor, other: tuple[Tensor, Tensor]) -> Tensor:
            return divergence(own, other, tokens)

        costs = []
        for kind in self.relations:
            own, other = getattr(student, kind), constants(getattr(teacher, kind))
            check_relation_heads(self.relation_heads, _width(own), _width(other))
            sides = Side(own, logs), Side(other, lambda layer: targets(logs(layer)))
            costs.append(costs_of_pairs(kind, *sides, compare, options.get("pairs"), student.mask))
        return torch.stack(costs).sum(dim=0)


def log_relations(vectors: Tensor, tokens: Tensor, relation_heads: int) -> Tensor:
    """log softmax(a aᵀ / sqrt(d_r)) over unpadded keys, [B, A_r, L, L], of vectors [B, L, A_r · d_r].

    tokens  bool [B, L]; padded keys get 0, what padded queries get is finite; neither has a gradient
    """
    # Zero, because products with what padding holds would enter the gradient.
    vectors = precise(vectors).masked_fill(~tokens[..., None], 0)
    heads = vectors.reshape(*tokens.shape, relation_heads, -1).transpose(1, 2)
    return log_distributions(torch.matmul(heads / math.sqrt(heads.shape[-1]), heads.transpose(-1, -2)), tokens)


def check_relation_heads(relation_heads: int, student_width: int, teacher_width: int) -> None:
    """Raise ConfigError, naming those that do, where the relation heads do not divide both widths."""
    common = math.gcd(student_width, teacher_width)
    if common % relation_heads:
        divisors = [str(number) for number in range(1, common + 1) if common % number == 0]
        raise ConfigError(
            f"{relation_heads} relation heads do not divide the student's width of {student_width} and the teacher's "
            f"of {teacher_width}; choose --objective.relation_heads from {', '.join(divisors)}"
        )


def _width(layers: Sequence[Tensor | None]) -> int:
    """Of the layers that are recorded; 0 where none is."""
    return next((layer.shape[-1] for layer in layers if layer is not None), 0)
