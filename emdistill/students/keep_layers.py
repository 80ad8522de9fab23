"""A student that keeps chosen layers of an encoder, with its embeddings, pooler and head, at full width."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from emdistill.errors import ConfigError, LayerCountError
from emdistill.models.encoder import LAYERS, encoder_layers


def evenly_spaced(keep: int, layers: int) -> tuple[int, ...]:
    """Which of `layers` layers to keep, 0-based and always with the last: floor(i · layers / keep) − 1 for i = 1..keep.

    3 of 6 → 1, 3, 5;  4 of 12 → 2, 5, 8, 11;  4 of 6 → 0, 2, 3, 5.  Raises LayerCountError unless 1 ≤ keep ≤ layers.
    """
    if not 1 <= keep <= layers:
        raise LayerCountError(f"this teacher has {layers} layers; --student asks for {keep} of them")
    return tuple(i * layers // keep - 1 for i in range(1, keep + 1))


def keep_layers(encoder: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """A new model of the same class with copies of the named layers (0-based), embeddings, pooler and head.

    It shares nothing with `encoder`, is trainable and in float32; torch's random state is left as it was.
    Raises LayerCountError for a layer that is not there, ConfigError for repeated or unordered layers,
    ModelError for a family whose layers cannot be taken apart.
    """
    count = len(encoder_layers(encoder))
    for layer in layers:
        if not 0 <= layer < count:
            raise LayerCountError(f"this teacher has {count} layers (0..{count - 1}); --student names layer {layer}")
    if not layers or list(layers) != sorted(set(layers)):
        raise ConfigError(f"--student {','.join(map(str, layers))}: name each layer once, in increasing order")
    config = copy.deepcopy(encoder.config)
    config.num_hidden_layers = len(layers)
    student = blank_like(encoder, config)
    student.load_state_dict(_kept_tensors(encoder, layers))
    return student


def blank_like(encoder: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """A model of the encoder's class with the sizes of `config` and fresh weights; without a pooler if it has none.

    torch's random state is left as it was; whoever wants the weights seeds it meanwhile.
    """
    names = encoder.state_dict().keys()
    with torch.random.fork_rng(devices=[]):
        model: PreTrainedModel = type(encoder)(config)
        if "pooler.dense.weight" in model.state_dict().keys() - names:
            model = type(encoder)(config, add_pooling_layer=False)
    return model


def layers_prefix(encoder: PreTrainedModel) -> str:
    """What the names of the layers' tensors begin with, `bert.encoder.layer.`; a bare encoder's lack `bert.`."""
    below = f"{LAYERS[encoder.config.model_type]}."
    return below if encoder.base_model is encoder else f"{encoder.base_model_prefix}.{below}"


def _kept_tensors(encoder: PreTrainedModel, layers: Sequence[int]) -> dict[str, torch.Tensor]:
    """The encoder's state dict without the other layers; layer `layers[i]` is renamed to layer i."""
    prefix = layers_prefix(encoder)
    kept = {}
    for name, tensor in encoder.state_dict().items():
        if not name.startswith(prefix):
            kept[name] = tensor
            continue
        number, _, rest = name.removeprefix(prefix).partition(".")
        if int(number) in layers:
            kept[f"{prefix}{list(layers).index(int(number))}.{rest}"] = tensor
    return kept
