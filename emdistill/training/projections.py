"""Where projections begin: fitted to a few texts, so that a student is not first turned into a random frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from emdistill.losses.projection import Projection
from emdistill.models.arithmetic import fast_float32
from emdistill.models.capture import capture
from emdistill.models.teacher import Teacher
from emdistill.states import EncoderStates
from emdistill.training.stage import Stage

NEEDS = ("embeddings", "hidden")


def fit_projections(
    stages: Sequence[Stage],
    student: PreTrainedModel,
    teacher: Teacher,
    sample: Callable[[], Sequence[Mapping[str, Tensor]]],
) -> None:
    """Fit every projection between unequal widths to the states of both encoders on a sample, in eval mode.

    At equal widths a projection begins as the identity, and stays so; no sample is drawn for it.
    """
    projections = [stage.objective.projection for stage in stages]
    chosen = {projection for projection in projections if projection is not None and _is_between_widths(projection)}
    if not chosen:
        return
    batches = sample()
    was_training = student.training
    student.train(False)

    def states() -> Iterator[tuple[EncoderStates, EncoderStates]]:
        for batch in batches:
            own = {name: value.to(student.device) for name, value in batch.items() if name != "labels"}
            yield capture(student, own, NEEDS), teacher(own, NEEDS)

    with torch.no_grad(), fast_float32():
        for projection in chosen:
            projection.fit(states())
    student.train(was_training)


def _is_between_widths(projection: Projection) -> bool:
    return any(weight.shape[0] != weight.shape[1] for weight in projection.parameters())
