"""Genes: layer mappings as tuples of whole numbers, and what a genetic algorithm does to them.

A gene is g = (g_1, …, g_M), one g_i in 0..N for each of M student layers: 0 leaves the layer untaught, j teaches it by
the j-th of N teacher layers. Written 0-3-6. This is the one place where teacher layers are counted from 1; pairs,
mapping files and messages count layers from 0.

Source: "Improving Task-Agnostic BERT Distillation with Layer Mapping Search" (Jiao et al., 2021, arXiv 2012.06153);
its numbers (population, mutation rate) were not at hand.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from emdistill.errors import ConfigError
from emdistill.mapping import MAPPINGS, FixedMapping, Pair

Gene = tuple[int, ...]
# Not pkd-last, which is one change away from last.
HEURISTICS = ("uniform", "last", "first", "skip", "final")


def gene_name(gene: Gene) -> str:
    """(0, 3, 6) -> '0-3-6'."""
    return "-".join(map(str, gene))


def gene_pairs(gene: Gene) -> list[Pair]:
    """(student layer, teacher layer) of every taught layer, both from 0: (0, 3, 6) -> [(1, 2), (2, 5)]."""
    return [(layer, taught_by - 1) for layer, taught_by in enumerate(gene) if taught_by]


def gene_of(mapping: FixedMapping) -> Gene:
    """The gene of a mapping that teaches each student layer by one teacher layer at most; ConfigError for others."""
    gene = [0] * mapping.student_layers
    for student_layer, teacher_layer in mapping.pairs or ():
        if gene[student_layer]:
            raise ConfigError(f"student layer {student_layer} learns from several teacher layers, which no gene says")
        gene[student_layer] = teacher_layer + 1
    return tuple(gene)


def heuristic_genes(student_layers: int, teacher_layers: int) -> dict[str, Gene]:
    """The mappings that people choose without searching, by name; some may be the same gene."""
    mappings = {name: MAPPINGS[name](student_layers, teacher_layers) for name in HEURISTICS}
    return {name: gene_of(mapping) for name, mapping in mappings.items() if isinstance(mapping, FixedMapping)}


@dataclass(frozen=True)
class GeneSpace:
    """All genes for so many layers: (N + 1)^M, or with `monotone` those whose taught layers keep their order."""

    student_layers: int
    teacher_layers: int
    monotone: bool = False

    def __post_init__(self) -> None:
        if self.student_layers < 1 or self.teacher_layers < 1:
            raise ConfigError(
                f"a layer mapping needs a layer on both sides, not {self.student_layers} student and "
                f"{self.teacher_layers} teacher layers"
            )

    @property
    def size(self) -> int:
        """How many genes there are."""
        return sum(self._sizes) if self.monotone else (self.teacher_layers + 1) ** self.student_layers

    @property
    def _sizes(self) -> list[int]:
        """Monotone genes with k taught layers, k = 0..M: which layers, times a non-decreasing sequence of teachers'."""
        m, n = self.student_layers, self.teacher_layers
        return [comb(m, taught) * comb(n + taught - 1, taught) for taught in range(m + 1)]

    def __iter__(self) -> Iterator[Gene]:
        every = itertools.product(range(self.teacher_layers + 1), repeat=self.student_layers)
        return filter(_is_monotone, every) if self.monotone else every

    def random(self, rng: np.random.Generator) -> Gene:
        """One gene, each as likely as every other."""
        m, n = self.student_layers, self.teacher_layers
        if not self.monotone:
            return tuple(rng.integers(0, n + 1, m).tolist())
        taught = int(rng.choice(m + 1, p=np.array(self._sizes, dtype=float) / self.size))
        gene = np.zeros(m, dtype=int)
        # Non-decreasing sequences from n numbers are the subsets of n + taught - 1, pushed together.
        sequence = np.sort(rng.choice(n + taught - 1, taught, replace=False)) - np.arange(taught) + 1
        gene[np.sort(rng.choice(m, taught, replace=False))] = sequence
        return tuple(gene.tolist())

    def child(self, rng: np.random.Generator, mother: Gene, father: Gene, mutation: float) -> Gene:
        """One-point crossover, then each place becomes another number with probability `mutation`.

        Under `monotone` the taught layers' numbers are sorted afterwards.
        """
        cut = int(rng.integers(0, self.student_layers + 1))
        places = [*mother[:cut], *father[cut:]]
        for place in np.flatnonzero(rng.random(self.student_layers) < mutation):
            places[place] = (places[place] + int(rng.integers(1, self.teacher_layers + 1))) % (self.teacher_layers + 1)
        if self.monotone:
            taught = iter(sorted(filter(None, places)))
            places = [next(taught) if place else 0 for place in places]
        return tuple(places)


def _is_monotone(gene: Sequence[int]) -> bool:
    taught = [place for place in gene if place]
    return taught == sorted(taught)
