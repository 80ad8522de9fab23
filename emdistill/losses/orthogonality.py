"""Orthogonality: what a task's private features say is not what the shared ones say already."""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from emdistill.errors import CaptureError
from emdistill.losses.loss import Loss
from emdistill.states import EncoderStates


class Orthogonality(Loss):
    """‖SᵀP‖²_F / n², over the n answers of a batch.

    S, P  [n, d] shared and private features of one task (models/task_head.py), rows of unit length; where tokens are
          answered, of each token
    0 where each shared feature is orthogonal to each private one over the batch.
    Raises CaptureError for a head without private features.
    Source: Bousmalis et al., Domain Separation Networks, NeurIPS 2016 (arXiv 1608.06019), equation 5; in multi-task
    learning Liu et al., ACL 2017 (arXiv 1704.05742), equation 13.
    """

    own_needs = frozenset({"features"})
    student_layers = frozenset[int]()
    teacher_layers = frozenset[int]()
    taught = False

    def forward(self, student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        parts = [part for part in student.features if part is not None]
        parts = [part[student.mask != 0] if part.ndim == 3 else part for part in parts]
        there = [functional.normalize(part, dim=-1) for part in parts]
        if len(there) < 2:
            raise CaptureError("orthogonality compares shared with private features, and this head has no private ones")
        shared, private = there
        return {"orthogonality": (shared.T @ private).square().sum() / len(shared) ** 2}
