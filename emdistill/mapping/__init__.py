"""Which layer learns from which: costs between layers, and the flows that mappings draw from them."""

from emdistill.mapping.costs import layer_costs
from emdistill.mapping.emd import EmdMapping
from emdistill.mapping.transport import TransportPlan, solve_transport

MAPPINGS = {"emd": EmdMapping}

__all__ = ["MAPPINGS", "EmdMapping", "TransportPlan", "layer_costs", "solve_transport"]
