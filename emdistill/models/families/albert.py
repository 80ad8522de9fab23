"""ALBERT (Lan et al., ICLR 2020): narrow embeddings, and layers that share their weights in groups, mostly in one."""

from collections.abc import Sequence
from typing import Any

from emdistill.errors import ModelError
from emdistill.models.families.family import Family, Layer


def _keep(config: Any, layers: Sequence[int]) -> tuple[int, ...]:
    """Layer i of N is group ⌊i · groups / N⌋, in the student as in its teacher; no other assignment can be written."""
    count, groups = config.num_hidden_layers, config.num_hidden_groups
    groups_of_kept = [layer * groups // count for layer in layers]
    groups_kept = tuple(sorted(set(groups_of_kept)))
    spread = [groups_kept[place * len(groups_kept) // len(layers)] for place in range(len(layers))]
    if config.inner_group_num != 1 or spread != groups_of_kept:
        raise ModelError(
            f"layers {', '.join(map(str, layers))} of this 'albert' model make no ALBERT: its {count} layers are of "
            f"{groups} groups of {config.inner_group_num}, which share their weights; keep as many of each group"
        )
    config.num_hidden_layers, config.num_hidden_groups = len(layers), len(groups_kept)
    return groups_kept


ALBERT = Family(
    name="ALBERT",
    layers="encoder.albert_layer_groups.*.albert_layers.0",
    layer=Layer(
        query="attention.query",
        key="attention.key",
        value="attention.value",
        attention_output="attention.dense",
        attention_norm="attention.LayerNorm",
        feed_forward_input="ffn",
        feed_forward_output="ffn_output",
        output_norm="full_layer_layer_norm",
    ),
    masked_lm=("predictions",),
    keep=_keep,
    without={"cut": "its layers share their weights"},
)
