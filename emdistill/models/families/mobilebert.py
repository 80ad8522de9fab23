"""MobileBERT (Sun et al., ACL 2020): layers work within bottlenecks, narrower than their states or, in teachers, wider.

x (inter) -> W_in x (intra) -> attention, feed-forward networks one after another (intra) -> x + W_out (inter)
"""

import torch
from transformers import PreTrainedModel

from emdistill.models.families.family import Family


@torch.no_grad()
def _clear_padding(model: PreTrainedModel) -> None:
    """The row of padding is 0, as what lies beyond a text is: the trigram of a text's last token reads either."""
    table = model.get_input_embeddings()
    padding = getattr(table, "padding_idx", None)
    if padding is not None:
        table.get_parameter("weight")[padding] = 0


MOBILEBERT = Family(
    name="MobileBERT",
    layers="encoder.layer.*",
    masked_lm=("cls",),
    word_columns=("cls.predictions.dense",),
    put_right=_clear_padding,
    without={
        "cut": "its layers work within bottlenecks",
        "fresh": "its size is said in another way, --student mobilebert:6x384x96x2",
    },
)
