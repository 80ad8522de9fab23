"""A student that keeps chosen layers of an encoder, with its embeddings, pooler and head, at full width."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from emdistill.errors import ConfigError, LayerCountError
from emdistill.models.encoder import encoder_shape
from emdistill.models.families import family_of, require


def evenly_spaced(keep: int, layers: int, *, first: bool = False) -> tuple[int, ...]:
    """Which of `layers` layers to keep, 0-based and always with the last: floor(i · layers / keep) − 1 for i = 1..keep.

    3 of 6 → 1, 3, 5;  4 of 12 → 2, 5, 8, 11;  4 of 6 → 0, 2, 3, 5.  Raises LayerCountError unless 1 ≤ keep ≤ layers.
    first   layer 0 is one of them, the others are spaced over the rest: 3 of 6 → 0, 2, 5
    """
    if not 1 <= keep <= layers:
        raise LayerCountError(f"this teacher has {layers} layers; --student asks for {keep} of them")
    if first:
        return (0, *(1 + layer for layer in evenly_spaced(keep - 1, layers - 1))) if keep > 1 else (0,)
    return tuple(i * layers // keep - 1 for i in range(1, keep + 1))


def keep_layers(encoder: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """A new model of the same class with copies of the named layers (0-based), embeddings, pooler and head.

    It shares nothing with `encoder`, is trainable and in float32; torch's random state is left as it was.
    Raises LayerCountError for a layer that is not there, ConfigError for repeated or unordered layers,
    ModelError for a family whose layers cannot be taken apart, or not so.
    """
    family, count = require(encoder, "keep"), encoder_shape(encoder).layers
    for layer in layers:
        if not 0 <= layer < count:
            raise LayerCountError(f"this teacher has {count} layers (0..{count - 1}); --student names layer {layer}")
    if not layers or list(layers) != sorted(set(layers)):
        raise ConfigError(f"--student {','.join(map(str, layers))}: name each layer once, in increasing order")
    config = copy.deepcopy(encoder.config)
    stored = family.keep(config, layers)
    student = blank_like(encoder, config)
    kept = {}
    for name, tensor in encoder.state_dict().items():
        place, _ = tensor_place(encoder, name)
        if place is None or place in stored:
            kept[renumbered(encoder, name, stored)] = tensor
    student.load_state_dict(kept)
    return student


def blank_like(encoder: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """A model of the encoder's class with the sizes of `config` and fresh weights; without a pooler if it has none.

    torch's random state is left as it was; whoever wants the weights seeds it meanwhile.
    """
    names = encoder.state_dict().keys()
    with torch.random.fork_rng(devices=[]):
        model: PreTrainedModel = type(encoder)(config)
        if any(name.startswith("pooler.") for name in model.state_dict().keys() - names):
            model = type(encoder)(config, add_pooling_layer=False)
    return model


def tensor_place(encoder: PreTrainedModel, name: str) -> tuple[int | None, str]:
    """The layer that a tensor or module belongs to and its name in it; None and its name below the base model."""
    return family_of(encoder).place(name.removeprefix(_prefix(encoder)))


def renumbered(encoder: PreTrainedModel, name: str, layers: Sequence[int]) -> str:
    """What a tensor is called where layer `layers[i]` is layer i."""
    layer, below = tensor_place(encoder, name)
    return name if layer is None else _prefix(encoder) + family_of(encoder).name_of(layers.index(layer), below)


def _prefix(encoder: PreTrainedModel) -> str:
    return "" if encoder.base_model is encoder else f"{encoder.base_model_prefix}."
