"""The size of a model: parameters and bytes."""

from torch import nn


def parameter_count(model: nn.Module) -> int:
    """The number of parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def model_size(model: nn.Module) -> int:
    """Bytes of the parameters, at their precision; shared ones count once."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
