"""Where what is learned beside the student begins: fitted to a few texts, projections and the measure of vectors."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from emdistill.losses import SentenceVectors
from emdistill.models.alignment import meet
from emdistill.models.arithmetic import fast_float32
from emdistill.models.capture import capture
from emdistill.models.teacher import TeacherSource
from emdistill.states import EncoderStates
from emdistill.training.evaluate import evaluating
from emdistill.training.stage import Stage

NEEDS = ("embeddings", "hidden")


def fit_projections(
    stages: Sequence[Stage],
    student: PreTrainedModel,
    teacher: TeacherSource | None,
    sample: Callable[[], Sequence[Mapping[str, Tensor]]],
) -> None:
    """Fit every projection between unequal widths, and SentenceVectors, to the states on a sample, in eval mode.

    At equal widths a projection begins as the identity, and stays so; no sample is drawn for it.
    """
    projections = {stage.objective.projection for stage in stages} - {None}
    between_widths = [
        projection
        for projection in projections
        if projection and any(weight.shape[0] != weight.shape[1] for weight in projection.parameters())
    ]
    of_vectors = [loss for stage in stages for loss in stage.objective.losses if isinstance(loss, SentenceVectors)]
    if not (between_widths or of_vectors) or teacher is None:
        return
    batches = sample()

    def states() -> Iterator[tuple[EncoderStates, EncoderStates]]:
        for batch in batches:
            own = {name: value.to(student.device) for name, value in batch.items() if name != "labels"}
            yield meet(capture(student, own, NEEDS), teacher(own, NEEDS), own)

    with evaluating(student), torch.no_grad(), fast_float32():
        for projection in between_widths:
            projection.fit(states())
        for loss in of_vectors:
            loss.fit(taught for _, taught in states())
