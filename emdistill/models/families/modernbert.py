"""ModernBERT (Warner et al. 2024): rotary positions, layers that alternate between all tokens and a window of them."""

from collections.abc import Sequence
from typing import Any

from emdistill.errors import ModelError
from emdistill.models.families.family import Family


def _keep(config: Any, layers: Sequence[int]) -> tuple[int, ...]:
    if layers[0] != 0:
        raise ModelError(
            f"layer {layers[0]} of this 'modernbert' model cannot be its student's first: only layer 0 reads the "
            f"embeddings without a LayerNorm; keep layer 0 as well: --student {','.join(map(str, (0, *layers)))}"
        )
    config.layer_types = [config.layer_types[layer] for layer in layers]
    config.num_hidden_layers = len(layers)
    return tuple(layers)


MODERNBERT = Family(
    name="ModernBERT",
    layers="layers.*",
    masked_lm=("head", "decoder"),
    attention_block="attn",
    keep=_keep,
    keeps_first=True,
    rotary=True,
    without={"cut": "queries, keys and values are one matrix, and its neurons rotate and gate each other in pairs"},
)
