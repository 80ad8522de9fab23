"""BERT (Devlin et al., NAACL 2019)."""

from emdistill.models.families.family import EMBEDDING, RESIDUAL, Family, Layer

LAYER = Layer(
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    feed_forward_input="intermediate.dense",
    feed_forward_output="output.dense",
    output_norm="output.LayerNorm",
)
BERT = Family(
    name="BERT",
    gives_operators=True,
    layers="encoder.layer.*",
    layer=LAYER,
    outside={
        "embeddings.word_embeddings": (None, EMBEDDING),
        "embeddings.position_embeddings": (None, EMBEDDING),
        "embeddings.token_type_embeddings": (None, EMBEDDING),
        "embeddings.LayerNorm": (EMBEDDING,),
        "pooler.dense": (RESIDUAL, RESIDUAL),
        "classifier": (None, RESIDUAL),
        "qa_outputs": (None, RESIDUAL),
        "cls.predictions": (None,),
        "cls.predictions.transform.dense": (EMBEDDING, RESIDUAL),
        "cls.predictions.transform.LayerNorm": (EMBEDDING,),
        "cls.predictions.decoder": (None, EMBEDDING),
    },
    masked_lm=("cls",),
)
