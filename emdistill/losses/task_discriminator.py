"""An adversary that tells tasks apart by the features they share; the encoder learns to give it nothing to go by."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from emdistill.errors import CaptureError
from emdistill.losses.loss import Loss
from emdistill.states import TASK, EncoderStates, precise


class TaskDiscriminator(Loss):
    """CE(D(r(s)), task), r(s) = s with the gradient −∂/∂s: D learns to name the task, the encoder to keep it from that.

    s  [n, d] the features that all tasks share, as the head's last matrix reads them
    D  softmax(W₂ gelu(W₁ s + b₁) + b₂); it belongs to the objective, and is not saved with the student
    With several tasks in turn, D at ln(tasks) tells no more than chance.
    Raises CaptureError where no features were captured.
    Source: Ganin and Lempitsky, ICML 2015 (arXiv 1409.7495); of tasks, Liu et al., ACL 2017 (arXiv 1704.05742).
    """

    own_needs = frozenset({"features"})
    student_layers = frozenset[int]()
    teacher_layers = frozenset[int]()
    taught = False

    def __init__(self, width: int, tasks: int) -> None:
        super().__init__()
        self.discriminate = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, tasks))

    def forward(self, student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        shared = next(iter(student.features), None)
        if shared is None:
            raise CaptureError("the task discriminator reads the features of a head, and none were captured")
        features = precise(shared)
        if features.ndim == 3:  # of each token: the mean of a text's
            weights = student.mask[..., None].to(features.dtype)
            features = (features * weights).sum(dim=1) / weights.sum(dim=1)
        return {"task_discriminator": functional.cross_entropy(self.discriminate(reverse(features)), batch[TASK])}


def reverse(features: Tensor) -> Tensor:
    """The same features; their gradient comes back with the opposite sign."""
    return _Reversed.apply(features)  # type: ignore[no-any-return, no-untyped-call]


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, features: Tensor) -> Tensor:
        return features.view_as(features)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]
