"""A student that keeps some layers of an encoder, with its embeddings, pooler and head, at full width."""

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from emdistill.console import counted
from emdistill.errors import ConfigError, LayerCountError
from emdistill.models.encoder import encoder_shape
from emdistill.models.families import family_of, require


def evenly_spaced(keep: int, layers: int, *, first: bool = False) -> tuple[int, ...]:
    """Which of `layers` layers to keep, from 0 and with the last: floor(i · layers / keep) − 1 for i = 1..keep.

    3 of 6 → 1, 3, 5;  4 of 12 → 2, 5, 8, 11;  4 of 6 → 0, 2, 3, 5.  Raises LayerCountError unless 1 ≤ keep ≤ layers.
    first   keep layer 0, the others spaced over the rest: 3 of 6 → 0, 2, 5
    """
    if not 1 <= keep <= layers:
        raise LayerCountError(f"this teacher has {counted(layers, 'layer')}; --student asks for {keep} of them")
    if first:
        return (0, *(1 + layer for layer in evenly_spaced(keep - 1, layers - 1))) if keep > 1 else (0,)
    return tuple(i * layers // keep - 1 for i in range(1, keep + 1))


def keep_layers(encoder: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """A new model of the same class with copies of these layers (from 0), embeddings, pooler and head.

    It shares nothing with `encoder`, is trainable and in float32; torch's random state stays.
    Raises LayerCountError for a layer that is not there, ConfigError for repeated or unordered layers, ModelError for a
    family that cannot keep layers, or not these.
    """
    family, count = require(encoder, "keep"), encoder_shape(encoder).layers
    for layer in layers:
        if not 0 <= layer < count:
            has = f"this teacher has {counted(count, 'layer')} (0..{count - 1})"
            raise LayerCountError(f"{has}; --student names layer {layer}")
    if not layers or list(layers) != sorted(set(layers)):
        raise ConfigError(f"--student {','.join(map(str, layers))}: name each layer once, in increasing order")
    config = copy.deepcopy(encoder.config)
    stored = family.keep(config, layers)
    student = blank_like(encoder, config)
    student.load_state_dict({name: tensor for _, name, tensor in kept_tensors(encoder, stored)})
    return student


def blank_like(encoder: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """A model of the encoder's class with the sizes of `config` and fresh weights, without a pooler if it has none.

    torch's random state stays; seed it before, where the weights matter.
    """
    names = encoder.state_dict().keys()
    with torch.random.fork_rng(devices=[]):
        model: PreTrainedModel = type(encoder)(config)
        if any(name.startswith("pooler.") for name in model.state_dict().keys() - names):
            model = type(encoder)(config, add_pooling_layer=False)
    return model


def tensor_place(encoder: PreTrainedModel, name: str) -> tuple[int | None, str]:
    """The layer of a tensor or module and its name in it; None and its name below the base model."""
    return family_of(encoder).place(name.removeprefix(_prefix(encoder)))


def kept_tensors(encoder: PreTrainedModel, layers: Sequence[int]) -> Iterator[tuple[str, str, Tensor]]:
    """(name, new name, tensor) of these layers and of all outside the layers, where `layers[i]` becomes layer i."""
    for name, tensor in encoder.state_dict().items():
        layer, below = tensor_place(encoder, name)
        if layer is None:
            yield name, name, tensor
        elif layer in layers:
            yield name, _prefix(encoder) + family_of(encoder).name_of(layers.index(layer), below), tensor


def _prefix(encoder: PreTrainedModel) -> str:
    return "" if encoder.base_model is encoder else f"{encoder.base_model_prefix}."
