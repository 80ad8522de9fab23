"""DeBERTa-v2 and -v3 (He et al., ICLR 2021 and 2023): content and relative positions attend to each other.

scores = (q·kᵀ + q·k_positionᵀ + q_position·kᵀ) / sqrt(terms · head size)
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from emdistill.models.families.bert import BERT, LAYER
from emdistill.models.families.family import EMBEDDING, QUERY_KEY, RESIDUAL, OwnAttention


def _attend(
    module: Any,
    attend: Callable[..., tuple[Tensor, Tensor | None]],
    states: Tensor,
    mask: Tensor,
    output_attentions: bool = False,
    query_states: Tensor | None = None,
    relative_pos: Tensor | None = None,
    rel_embeddings: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    heads = module.num_attention_heads
    asking = states if query_states is None else query_states
    query, key, value = (
        project(each).unflatten(-1, (heads, -1)).transpose(1, 2)
        for project, each in ((module.query_proj, asking), (module.key_proj, states), (module.value_proj, states))
    )
    terms = 1 + len({"c2p", "p2c"} & {*module.pos_att_type})
    bias = states.new_zeros(1, 1, states.shape[1], states.shape[1])
    if module.relative_attention and terms > 1:
        positions = module.pos_dropout(rel_embeddings)
        content = query.flatten(0, 1), key.flatten(0, 1)
        bias = module.disentangled_attention_bias(*content, relative_pos, positions, terms).unflatten(0, (-1, heads))
    options = {"dropout": module.dropout.p, "scaling": (query.shape[-1] * terms) ** -0.5, "position_bias": bias}
    context, probabilities = attend(module, query, key, value, mask.bool(), **options)
    return context.flatten(2), probabilities


DEBERTA_V2 = replace(
    BERT,
    name="DeBERTa-v2, -v3",
    gives_operators=False,
    layer=replace(
        LAYER,
        query="attention.self.query_proj",
        key="attention.self.key_proj",
        value="attention.self.value_proj",
        further={
            "attention.self.pos_key_proj": (QUERY_KEY, RESIDUAL),
            "attention.self.pos_query_proj": (QUERY_KEY, RESIDUAL),
        },
    ),
    outside={
        **BERT.outside,
        "embeddings.embed_proj": (RESIDUAL, EMBEDDING),
        "embeddings.LayerNorm": (RESIDUAL,),
        "encoder.rel_embeddings": (None, RESIDUAL),
        "encoder.LayerNorm": (RESIDUAL,),
        "encoder.conv.conv": (RESIDUAL, RESIDUAL, None),
        "encoder.conv.LayerNorm": (RESIDUAL,),
    },
    own_attention=OwnAttention("attention.self", _attend),
    as_wide=("embedding_size", "pooler_hidden_size"),
)
