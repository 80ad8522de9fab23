"""RoBERTa (Liu et al. 2019), and with other tokenizers XLM-R and CamemBERT: BERT that counts from padding's id."""

from dataclasses import replace

from emdistill.models.families.bert import BERT
from emdistill.models.families.family import RESIDUAL

ROBERTA = replace(
    BERT,
    name="RoBERTa",
    outside={
        **BERT.outside,
        "classifier.dense": (RESIDUAL, RESIDUAL),
        "classifier.out_proj": (None, RESIDUAL),
        "lm_head": (None,),
        "lm_head.dense": (RESIDUAL, RESIDUAL),
        "lm_head.layer_norm": (RESIDUAL,),
        "lm_head.decoder": (None, RESIDUAL),
    },
    masked_lm=("lm_head",),
    counts_padding=True,
)
