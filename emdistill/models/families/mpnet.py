"""MPNet (Song et al., NeurIPS 2020): RoBERTa's positions, and a bias by relative position that all layers share.

scores = q·kᵀ / sqrt(head size) + bias[bucket of (key's place - query's place), head]
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from emdistill.models.families.bert import LAYER
from emdistill.models.families.family import HEAD, OwnAttention
from emdistill.models.families.roberta import ROBERTA


def _attend(
    module: Any,
    attend: Callable[..., tuple[Tensor, Tensor | None]],
    states: Tensor,
    mask: Tensor | None = None,
    position_bias: Any = None,
    **_: Any,
) -> tuple[Tensor, Tensor | None]:
    heads, size = module.num_attention_heads, module.attention_head_size
    query, key, value = (
        project(states).unflatten(-1, (heads, size)).transpose(1, 2) for project in (module.q, module.k, module.v)
    )
    bias = position_bias[:1]  # the same one for every text
    options = {"dropout": module.dropout.p, "scaling": size**-0.5, "position_bias": bias}
    context, probabilities = attend(module, query, key, value, mask, **options)
    return module.o(context.flatten(2)), probabilities


MPNET = replace(
    ROBERTA,
    name="MPNet",
    layer=replace(
        LAYER,
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        attention_output="attention.attn.o",
        attention_norm="attention.LayerNorm",
    ),
    outside={**ROBERTA.outside, "encoder.relative_attention_bias": (None, HEAD)},
    own_attention=OwnAttention("attention.attn", _attend),
    counts_padding=False,  # 1 is the row of padding, whatever the config says
)
