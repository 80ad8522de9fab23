"""The students that are worth trying under a teacher, as `--student` names them."""

from dataclasses import dataclass, replace
from itertools import accumulate

from emdistill.states import EncoderShape

KEPT = (1, 2, 3, 4, 6, 8)  # layers
CUT_LAYERS = (2, 3, 4, 6)
PUBLISHED = "4x312"  # TinyBERT-4, BERT-EMD-4
NARROW = (0.75, 0.5, 1 / 3)  # of the teacher's width
NARROWEST = 64
RANK = 128  # of factorised embeddings: ALBERT's


@dataclass(frozen=True)
class Proposal:
    """A student, the method that teaches it, and how its table of tokens is made smaller.

    searched         whether it begins with the weights that search-chain found it with
    pruned           only tokens that the texts use
    embedding_rank   factorised embeddings
    """

    student: str
    method: str
    searched: bool = False
    pruned: bool = False
    embedding_rank: int | None = None

    @property
    def name(self) -> str:
        """'3 balanced', 'chain:aafa balanced, searched', '4x312 soft-targets, own vocabulary, rank 128'."""
        searched = ["searched"] if self.searched else []
        return ", ".join([f"{self.student} {self.method}".strip(), *searched, *self._tables])

    @property
    def shape(self) -> str:
        """'4x312, own vocabulary, rank 128': what decides its costs."""
        return ", ".join([self.student, *self._tables])

    @property
    def _tables(self) -> list[str]:
        rank = [f"rank {self.embedding_rank}"] if self.embedding_rank else []
        return ["own vocabulary", *rank] if self.pruned else rank


def propose(encoder: EncoderShape, *, cuts: bool) -> list[str]:
    """Layers kept of an encoder and, where students can be cut out of it, narrower ones; the largest first.

    cuts   whether the encoder is the teacher, and its family can be cut
    """
    kept = [str(layers) for layers in sorted({*KEPT, encoder.layers // 2}) if 0 < layers < encoder.layers]
    widths = [w for share in NARROW if (w := _width(encoder, share)) is not None] if cuts else []
    narrower = [f"{layers}x{width}" for width in widths for layers in CUT_LAYERS if layers <= encoder.layers]
    if cuts and encoder.width > 312 and encoder.layers >= 4:
        narrower.append(PUBLISHED)
    return list(dict.fromkeys([*reversed(kept), *sorted(narrower, key=_units, reverse=True)]))


def orders(layers: int) -> list[str]:
    """Chains of operators about as large as so many layers, in other orders than theirs, afaf….

    Two attentions for each feed-forward, as many as weigh no more; a convolution in place of every other attention;
    all attentions first.
    """
    kept, begun = "af" * layers, accumulate("aaf" * layers)
    light = [word for word in begun if _weight(word) <= _weight(kept)][-1]
    words = (light, ("afcf" * layers)[: len(kept)], "".join(sorted(kept)))
    return [word for word in dict.fromkeys(words) if word != kept]


def _weight(word: str) -> int:
    return sum({"a": 4, "f": 8}[operator] for operator in word)  # in d²


def ladder(candidate: Proposal, *, factorises: bool) -> list[Proposal]:
    """The candidate, then the same with ever smaller tables of tokens."""
    pruned = replace(candidate, searched=False, pruned=True)  # what was searched reads all tokens
    return [candidate, pruned, *([replace(pruned, embedding_rank=RANK)] if factorises else [])]


def _width(encoder: EncoderShape, share: float) -> int | None:
    """The share of the width, all heads alike in steps of 8 neurons; None where that is too narrow to be of use."""
    step = 8 * encoder.heads
    width = int(encoder.width * share) // step * step
    return width if width >= NARROWEST else None


def _units(student: str) -> tuple[int, str]:
    layers, width = map(int, student.split("x"))
    return layers * width * width, student
