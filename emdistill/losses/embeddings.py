"""The embedding loss: MSE(E^student W, E^teacher) over unpadded tokens."""

from collections.abc import Mapping

from torch import Tensor

from emdistill.errors import CaptureError
from emdistill.losses.loss import Loss
from emdistill.mapping import layer_costs
from emdistill.mapping.costs import Scale
from emdistill.states import EncoderStates
from emdistill.values import with_choices


@with_choices
class EmbeddingLoss(Loss):
    """L = MSE(E^student W, E^teacher) over unpadded tokens.

    scale   "squared"; "relative": the share of the teacher's variance that is left (`layer_variances`)
    Source: TinyBERT (Jiao et al., 2020) equation 9; BERT-EMD takes it over.
    """

    needs = frozenset({"embeddings"})

    def __init__(self, scale: Scale = "squared") -> None:
        super().__init__()
        self.scale = scale

    def forward(self, student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if student.embeddings is None or teacher.embeddings is None:
            raise CaptureError("the embeddings loss needs captured embeddings; switch it off: --objective.embeddings 0")
        costs = layer_costs([student.embeddings], [teacher.embeddings.detach()], student.mask, scale=self.scale)
        return {"embeddings": costs[0, 0]}
