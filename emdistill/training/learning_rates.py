"""Layers that learn slowly: what was learned before is kept up, and not frozen, while layers above it learn."""

from collections.abc import Collection

from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from emdistill.models.families import family_of

SLOWED = 0.1  # of the learning rate, as in MobileBERT's progressive transfer


def parameters_below(student: PreTrainedModel, layer: int) -> list[nn.Parameter]:
    """Those of the layers below this one, and of the embeddings; none below layer 0."""
    family = family_of(student)
    below = []
    for name, parameter in student.base_model.named_parameters() if layer else ():
        place, inner = family.place(name)
        if (place is None and "embedding" in inner) or (place is not None and place < layer):
            below.append(parameter)
    return below


def slow_down(optimizer: Optimizer, parameters: Collection[nn.Parameter]) -> None:
    """Give these parameters groups of their own, alike but for the SLOWED learning rate, in place."""
    slowed = {id(parameter) for parameter in parameters}
    for group in list(optimizer.param_groups):
        slow = [parameter for parameter in group["params"] if id(parameter) in slowed]
        if slow:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in slowed]
            optimizer.add_param_group({**group, "params": slow, "lr": SLOWED * group["lr"]})
