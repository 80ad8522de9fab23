"""What to build: the search over layer mappings."""

from emdistill.search.genes import Gene, GeneSpace, check_gene, gene_name, gene_of, gene_pairs, heuristic_genes
from emdistill.search.layer_mapping import SearchResult, search
from emdistill.search.shared_study import GeneTrial, SharedStudy

__all__ = [
    "Gene",
    "GeneSpace",
    "GeneTrial",
    "SearchResult",
    "SharedStudy",
    "check_gene",
    "gene_name",
    "gene_of",
    "gene_pairs",
    "heuristic_genes",
    "search",
]
