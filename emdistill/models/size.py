"""How large a model is: parameters and bytes."""

from __future__ import annotations

from torch import nn


def parameter_count(model: nn.Module) -> int:
    """How many parameters a model has; those that it uses in several places count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def model_size(model: nn.Module) -> int:
    """Bytes of a model's parameters, at the precision they are held in; shared ones count once."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
