"""Which layer learns from which: costs between layers, and the flows that mappings draw from them."""

from collections.abc import Callable

from emdistill.mapping.costs import layer_costs
from emdistill.mapping.emd import EmdMapping
from emdistill.mapping.fixed import FixedMapping, uniform_mapping
from emdistill.mapping.host_copy import HostCopy
from emdistill.mapping.kernels import Pair
from emdistill.mapping.mapping import LayerMapping
from emdistill.mapping.transport import TransportPlan, solve_transport

# Name -> what builds it from the numbers of student and teacher layers.
MAPPINGS: dict[str, Callable[[int, int], LayerMapping]] = {"emd": EmdMapping, "uniform": uniform_mapping}

__all__ = [
    "MAPPINGS",
    "EmdMapping",
    "FixedMapping",
    "HostCopy",
    "LayerMapping",
    "Pair",
    "TransportPlan",
    "layer_costs",
    "solve_transport",
    "uniform_mapping",
]
