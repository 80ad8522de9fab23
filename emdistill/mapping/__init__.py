"""Which layer learns from which: costs between layers, and the flows that mappings draw from them."""

from collections.abc import Callable
from pathlib import Path

from emdistill.errors import ConfigError, nearest
from emdistill.mapping.among import MappingAmong
from emdistill.mapping.costs import layer_costs
from emdistill.mapping.emd import EmdMapping
from emdistill.mapping.files import MAPPING_SUFFIXES, read_mapping, write_mapping
from emdistill.mapping.fixed import (
    FixedMapping,
    final_mapping,
    first_mapping,
    last_mapping,
    pkd_last_mapping,
    skip_mapping,
    uniform_mapping,
)
from emdistill.mapping.host_copy import HostCopy
from emdistill.mapping.kernels import Pair
from emdistill.mapping.learned import LearnedMapping
from emdistill.mapping.mapping import LayerMapping
from emdistill.mapping.sinkhorn import SinkhornMapping, sinkhorn_plan
from emdistill.mapping.transport import TransportPlan, solve_transport
from emdistill.mapping.two_level import TwoLevelMapping, solve_two_level
from emdistill.mapping.unbalanced import UnbalancedMapping, solve_unbalanced

# Name -> what builds it from the numbers of student and teacher layers.
MAPPINGS: dict[str, Callable[[int, int], LayerMapping]] = {
    "emd": EmdMapping,
    "sinkhorn": SinkhornMapping,
    "learned": LearnedMapping,
    "unbalanced": UnbalancedMapping,
    "two-level": TwoLevelMapping,
    "uniform": uniform_mapping,
    "last": last_mapping,
    "first": first_mapping,
    "skip": skip_mapping,
    "final": final_mapping,
    "pkd-last": pkd_last_mapping,
}


def make_mapping(name_or_file: str, student_layers: int, teacher_layers: int) -> LayerMapping:
    """The mapping of this name, with its defaults, or the one in this file (see mapping/files.py).

    Raises ConfigError for what is neither; for a file, ConfigError and LayerCountError as `read_mapping`.
    """
    if name_or_file in MAPPINGS:
        return MAPPINGS[name_or_file](student_layers, teacher_layers)
    path = Path(name_or_file)
    if path.suffix.lower() in MAPPING_SUFFIXES or path.is_file():
        return read_mapping(path, student_layers, teacher_layers)
    raise ConfigError(
        f"mapping {name_or_file!r} is neither a mapping nor a file; the mappings are: {', '.join(MAPPINGS)}."
        f"{nearest(name_or_file, MAPPINGS)}"
    )


__all__ = [
    "MAPPINGS",
    "EmdMapping",
    "FixedMapping",
    "HostCopy",
    "LayerMapping",
    "LearnedMapping",
    "MappingAmong",
    "Pair",
    "SinkhornMapping",
    "TransportPlan",
    "TwoLevelMapping",
    "UnbalancedMapping",
    "final_mapping",
    "first_mapping",
    "last_mapping",
    "layer_costs",
    "make_mapping",
    "pkd_last_mapping",
    "read_mapping",
    "sinkhorn_plan",
    "skip_mapping",
    "solve_transport",
    "solve_two_level",
    "solve_unbalanced",
    "uniform_mapping",
    "write_mapping",
]
