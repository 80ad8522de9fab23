"""DistilBERT (Sanh et al. 2019)."""

from emdistill.models.families.family import RESIDUAL, Family, Layer

DISTILBERT = Family(
    name="DistilBERT",
    layers="transformer.layer.*",
    layer=Layer(
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        attention_norm="sa_layer_norm",
        feed_forward_input="ffn.lin1",
        feed_forward_output="ffn.lin2",
        output_norm="output_layer_norm",
    ),
    outside={
        "embeddings.word_embeddings": (None, RESIDUAL),
        "embeddings.position_embeddings": (None, RESIDUAL),
        "embeddings.LayerNorm": (RESIDUAL,),
        "pre_classifier": (RESIDUAL, RESIDUAL),
        "classifier": (None, RESIDUAL),
        "qa_outputs": (None, RESIDUAL),
        "vocab_transform": (RESIDUAL, RESIDUAL),
        "vocab_layer_norm": (RESIDUAL,),
        "vocab_projector": (None, RESIDUAL),
    },
    masked_lm=("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
    feed_forward="hidden_dim",
)
