"""A student with random weights: the teacher's family, vocabulary and dropout, fewer and narrower layers."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from emdistill.errors import ConfigError
from emdistill.models.encoder import encoder_layers, name_outputs

PUBLISHED_FEED_FORWARD = {312: 1200}  # TinyBERT-4 (Jiao et al. 2020); TinyBERT-6 follows the usual 4 × width


def default_heads(width: int) -> int:
    """12 heads where the width divides by 12, as 312 and 768 do, else the divisor of the width nearest width / 64."""
    if width % 12 == 0:
        return 12
    divisors = [number for number in range(1, width + 1) if width % number == 0]
    return min(divisors, key=lambda number: abs(number - width / 64))


def default_feed_forward(width: int) -> int:
    """Width of the feed-forward layer: 1200 for the published width of 312, else 4 × width."""
    return PUBLISHED_FEED_FORWARD.get(width, 4 * width)


def fresh_student(
    teacher: PreTrainedModel,
    layers: int,
    width: int,
    heads: int | None = None,
    feed_forward: int | None = None,
    *,
    labels: Sequence[str] = (),
    regression: bool = False,
    seed: int = 0,
) -> PreTrainedModel:
    """A model of the teacher's class with `layers` layers of `width`, initialised as its family is, from `seed`.

    Everything else of the teacher's config is kept: vocabulary, positions, activation, dropout, initialiser range.
    The same seed gives the same weights; torch's random state is left as it was.
    Raises ConfigError for impossible sizes, ModelError for an unsupported family.
    """
    encoder_layers(teacher)  # the family must be one whose layers can be compared
    shape = f"{layers}x{width}"
    if layers < 1 or width < 1:
        raise ConfigError(f"--student {shape}: layers and width must be at least 1")
    heads = default_heads(width) if heads is None else heads
    feed_forward = default_feed_forward(width) if feed_forward is None else feed_forward
    if heads < 1 or feed_forward < 1 or width % heads:
        raise ConfigError(
            f"--student {shape}x{heads}x{feed_forward}: the width must be a multiple of the number of heads, "
            f"and the feed-forward width at least 1; {shape} alone would take "
            f"{default_heads(width)} heads and {default_feed_forward(width)}"
        )
    config = copy.deepcopy(teacher.config)
    _resize(config, layers, width, heads, feed_forward)
    name_outputs(config, labels=labels, regression=regression)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        student: PreTrainedModel = type(teacher)(config)
    return student


def _resize(config: PreTrainedConfig, layers: int, width: int, heads: int, feed_forward: int) -> None:
    if config.model_type == "electra" and config.embedding_size == config.hidden_size:
        config.embedding_size = width  # where ELECTRA's embeddings are narrower than its layers, they keep their width
    config.num_hidden_layers = layers
    config.hidden_size = width
    config.num_attention_heads = heads
    if config.model_type == "distilbert":
        config.hidden_dim = feed_forward
    else:
        config.intermediate_size = feed_forward
