"""Which layer learns from which: costs between layers, and the flows that mappings draw from them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from emdistill.errors import ConfigError, nearest
from emdistill.mapping.among import MappingAmong as MappingAmong
from emdistill.mapping.costs import layer_costs as layer_costs
from emdistill.mapping.emd import EmdMapping as EmdMapping
from emdistill.mapping.files import MAPPING_SUFFIXES
from emdistill.mapping.files import read_mapping as read_mapping
from emdistill.mapping.files import write_mapping as write_mapping
from emdistill.mapping.fixed import FixedMapping as FixedMapping
from emdistill.mapping.fixed import final_mapping as final_mapping
from emdistill.mapping.fixed import first_mapping as first_mapping
from emdistill.mapping.fixed import last_mapping as last_mapping
from emdistill.mapping.fixed import pkd_last_mapping as pkd_last_mapping
from emdistill.mapping.fixed import skip_mapping as skip_mapping
from emdistill.mapping.fixed import uniform_mapping as uniform_mapping
from emdistill.mapping.host_copy import HostCopy as HostCopy
from emdistill.mapping.kernels import Pair as Pair
from emdistill.mapping.learned import LearnedMapping as LearnedMapping
from emdistill.mapping.mapping import LayerMapping as LayerMapping
from emdistill.mapping.sinkhorn import SinkhornMapping as SinkhornMapping
from emdistill.mapping.sinkhorn import sinkhorn_plan as sinkhorn_plan
from emdistill.mapping.transport import TransportPlan as TransportPlan
from emdistill.mapping.transport import solve_transport as solve_transport
from emdistill.mapping.two_level import TwoLevelMapping as TwoLevelMapping
from emdistill.mapping.two_level import solve_two_level as solve_two_level
from emdistill.mapping.unbalanced import UnbalancedMapping as UnbalancedMapping
from emdistill.mapping.unbalanced import solve_unbalanced as solve_unbalanced

# Name -> what builds it from the numbers of student and teacher layers, and perhaps settings of its own.
MAPPINGS: dict[str, Callable[..., LayerMapping]] = {
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


def make_mapping(name_or_file: str, student_layers: int, teacher_layers: int, **settings: Any) -> LayerMapping:
    """The mapping of this name, with its own settings, or the one in this file (see mapping/files.py).

    Raises ConfigError for what is neither; for a file, ConfigError and LayerCountError as `read_mapping`.
    """
    if name_or_file in MAPPINGS:
        return MAPPINGS[name_or_file](student_layers, teacher_layers, **settings)
    path = Path(name_or_file)
    if path.suffix.lower() in MAPPING_SUFFIXES or path.is_file():
        return read_mapping(path, student_layers, teacher_layers)
    raise ConfigError(
        f"mapping {name_or_file!r} is neither a mapping nor a file; the mappings are: {', '.join(MAPPINGS)}."
        f"{nearest(name_or_file, MAPPINGS)}"
    )
