"""A model family as one value, read by all code that takes a model apart, cuts, records or exports it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

Axes = tuple[str | None, ...]
# What the axes of a weight count; a bias has the first of them. None: an axis that is never cut.
RESIDUAL, EMBEDDING, QUERY_KEY, VALUE = "residual", "embedding", "query_key", "value"
HEAD, FEED_FORWARD = "head", "feed_forward"


@dataclass(frozen=True)
class Layer:
    """The modules of one layer, by their names in it; `further`: other modules -> what their weights' axes count."""

    query: str
    key: str
    value: str
    attention_output: str  # its input: the heads' outputs
    attention_norm: str
    feed_forward_input: str  # its input: the residual stream after attention
    feed_forward_output: str  # its input: the feed-forward neurons after the activation
    output_norm: str  # its output: the residual stream after the layer
    further: Mapping[str, Axes] = field(default_factory=dict)

    @property
    def roles(self) -> dict[str, Axes]:
        """The modules that every family has, in one order, and their weights' axes."""
        return {
            self.query: (QUERY_KEY, RESIDUAL),
            self.key: (QUERY_KEY, RESIDUAL),
            self.value: (VALUE, RESIDUAL),
            self.attention_output: (RESIDUAL, VALUE),
            self.attention_norm: (RESIDUAL,),
            self.feed_forward_input: (FEED_FORWARD, RESIDUAL),
            self.feed_forward_output: (RESIDUAL, FEED_FORWARD),
            self.output_norm: (RESIDUAL,),
        }

    @property
    def axes(self) -> dict[str, Axes]:
        """Every module and its weights' axes."""
        return {**self.roles, **self.further}


@dataclass(frozen=True)
class OwnAttention:
    """Attention that a family computes itself, not by transformers' attention interface.

    module    the module of a layer that attends
    forward   replaces it: (module, attend, *the module's own arguments); it hands queries, keys and values,
              [B, h, L, s], and `position_bias`, which is added to the scores, to `attend`, a function of that interface
    """

    module: str
    forward: Callable[..., tuple[Tensor, Tensor | None]]


def keep_layers(config: Any, layers: Sequence[int]) -> tuple[int, ...]:
    """Write these layers into `config`; give the stored layers that make them up."""
    config.num_hidden_layers = len(layers)
    return tuple(layers)


def every_layer(config: Any) -> None:
    """All layers have attention."""


def as_it_is(model: PreTrainedModel) -> None:
    """Nothing is to be put right."""


@dataclass(frozen=True)
class Family:
    """All that is known of one family.

    name             as people write it
    layers           the place of the layers below the base model; the star is a layer's number
    layer            the modules of a layer
    outside          the modules beside the layers (embeddings, pooler, heads), and their weights' axes
    masked_lm        the modules from the last hidden states to the words' logits, in order
    word_columns     modules of the masked-LM head whose weight has a column, and not a row, per word
    attending        config -> the layers that have attention; None: all
    gives_operators  whether the halves of its layers are BERT's, so that they may be operators of a chain
    own_attention    its attention, whose scores have a bias by position, which transformers' interface does not see
    attention_block  the module of a layer that is its attention half
    feed_forward     the config's name for the feed-forward width
    as_wide          the config's names for widths that follow the layers' where they equal it
    keep             writes the layers to keep into a config (keep_layers); raises ModelError for those that cannot be
    keeps_first      whether the first layer is unlike the others and stays in its place
    put_right        changes a model that is loaded, in place, so that a text's states do not depend on its padding
    brought          whether it is emdistill that brings it to transformers (models/), and must be installed to load one
    counts_padding   whether a text's first position is the row after padding's, by the config's pad_token_id
    rotary           whether queries and keys are rotated in pairs, so that heads have an even number of neurons
    without          what the family does not carry: capability (CAPABILITIES) -> reason
    """

    name: str
    layers: str = ""
    layer: Layer | None = None
    outside: Mapping[str, Axes] = field(default_factory=dict)
    masked_lm: tuple[str, ...] = ()
    word_columns: tuple[str, ...] = ()
    attending: Callable[[Any], tuple[int, ...] | None] = every_layer
    gives_operators: bool = False
    own_attention: OwnAttention | None = None
    attention_block: str = "attention"
    feed_forward: str = "intermediate_size"
    as_wide: tuple[str, ...] = ()
    keep: Callable[[PreTrainedConfig, Sequence[int]], tuple[int, ...]] = keep_layers
    keeps_first: bool = False
    put_right: Callable[[PreTrainedModel], None] = as_it_is
    brought: bool = False
    counts_padding: bool = False
    rotary: bool = False
    without: Mapping[str, str] = field(default_factory=dict)

    @property
    def shares_heads(self) -> bool:
        """Whether a table outside the layers has a column per head, so that all layers keep the same heads."""
        return any(HEAD in axes for axes in self.outside.values())

    def place(self, name: str) -> tuple[int | None, str]:
        """The layer's number and the name in it of a module or parameter below the base model; outside (None, name)."""
        path, _, below = self.layers.partition(".*")
        match = re.fullmatch(rf"{re.escape(path)}\.(\d+){re.escape(below)}(?:\.(.+))?", name)
        return (int(match[1]), match[2] or "") if match else (None, name)

    def name_of(self, layer: int, name: str) -> str:
        """The inverse of `place`, of what belongs to a layer."""
        return f"{self.layers.replace('*', str(layer))}.{name}"
