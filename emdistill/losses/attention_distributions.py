"""Attention distributions: what each token attends to, compared by KL divergence or cross-entropy."""

from typing import Literal, Unpack

from torch import Tensor

from emdistill.errors import ConfigError
from emdistill.losses.distributions import Divergence, divergence, log_distributions, targets
from emdistill.losses.layers import CostOptions
from emdistill.losses.pairs import Side, costs_of_pairs
from emdistill.states import EncoderStates, constants, precise
from emdistill.values import with_choices

NAMES: dict[Divergence, str] = {"kl": "attention_kl", "cross-entropy": "attention_ce"}


@with_choices
class AttentionDistributionCosts:
    """D[i, j] = 1/(h |x|) Σ_heads Σ_queries KL(P_j^teacher ‖ P_i^student), mean over texts, [M, N].

    P = softmax(scores) over the |x| unpadded tokens of a text, before dropout; of layers that attend within a window
    only (ModernBERT's local ones) over all tokens too. Every text weighs the same, and in it every head and token.
    divergence  "kl"; "cross-entropy": -Σ_keys P^teacher · log P^student, which has the same gradient and is the
                teacher's entropy larger, so that a mapping that looks at costs prefers teacher layers that attend
                sharply. Its term is called attention_ce.
    heads       "equal": the head counts must agree; "mean": the scores of both sides are averaged over heads first
    Raises ConfigError for unequal head counts.
    Source: MiniLM (Wang et al., NeurIPS 2020), section 3.1, there of the last layers; TextBrewer's attention_ce, and
    with "mean" its attention_ce_mean, which average over all tokens of a batch and have padding among the keys.
    """

    name = "attention_kl"
    needs = frozenset({"attention"})

    def __init__(self, divergence: Divergence = "kl", heads: Literal["equal", "mean"] = "equal") -> None:
        self.name = NAMES[divergence]
        self.divergence = divergence
        self.heads = heads

    def __call__(self, student: EncoderStates, teacher: EncoderStates, **options: Unpack[CostOptions]) -> Tensor:
        """As every LayerCosts; there is no compiled kernel, so that `compiled` changes nothing."""
        tokens = student.mask != 0

        def logs(scores: Tensor) -> Tensor:
            scores = precise(scores)
            return log_distributions(scores if self.heads == "equal" else scores.mean(dim=1, keepdim=True), tokens)

        def compare(own: Tensor, other: tuple[Tensor, Tensor]) -> Tensor:
            check_heads(own.shape[1], other[0].shape[1])
            return divergence(own, other, tokens, self.divergence)

        return costs_of_pairs(
            "attention scores",
            Side(student.attention_scores, logs),
            Side(constants(teacher.attention_scores), lambda scores: targets(logs(scores))),
            compare,
            options.get("pairs"),
            student.mask,
        )


def check_heads(student: int, teacher: int, mend: str = "take --method minilm, which needs no equal heads") -> None:
    """Raise ConfigError where attention of these many heads is to be compared head by head; `mend` says how else."""
    if student != teacher:
        raise ConfigError(
            f"the student has {student} attention heads and the teacher {teacher}, and attention is compared head by "
            f"head; {mend}"
        )
