"""ELECTRA (Clark et al., ICLR 2020): BERT with embeddings of a width of their own and one matrix behind them."""

from dataclasses import replace

from emdistill.models.families.bert import BERT
from emdistill.models.families.family import EMBEDDING, RESIDUAL

ELECTRA = replace(
    BERT,
    name="ELECTRA",
    gives_operators=False,
    outside={
        **BERT.outside,
        "embeddings_project": (RESIDUAL, EMBEDDING),
        "classifier.dense": (RESIDUAL, RESIDUAL),
        "classifier.out_proj": (None, RESIDUAL),
        "generator_predictions.dense": (EMBEDDING, RESIDUAL),
        "generator_predictions.LayerNorm": (EMBEDDING,),
        "generator_lm_head": (None, EMBEDDING),
    },
    masked_lm=("generator_predictions", "generator_lm_head"),
    as_wide=("embedding_size",),
)
