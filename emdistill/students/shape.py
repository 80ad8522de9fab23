"""A student's config: its size, `4x312x12x1200`, the defaults of what `4x312` leaves out, and its outputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from emdistill.errors import ConfigError
from emdistill.models.encoder import encoder_shape
from emdistill.models.families import family_of
from emdistill.models.label_names import name_outputs
from emdistill.states import Predictions

PUBLISHED_FEED_FORWARD = {312: 1200}  # TinyBERT-4 (Jiao et al. 2020); TinyBERT-6 follows the usual 4 × width


@dataclass(frozen=True)
class StudentShape:
    """Layers, width, attention heads and feed-forward width."""

    layers: int
    width: int
    heads: int
    feed_forward: int

    def __str__(self) -> str:
        return f"{self.layers}x{self.width}x{self.heads}x{self.feed_forward}"

    @property
    def head_size(self) -> int:
        """The neurons of one head."""
        return self.width // self.heads


def shape_of(config: PreTrainedConfig) -> StudentShape:
    """The four sizes of an encoder, whatever its family calls them; raises ModelError where they are absent."""
    shape = encoder_shape(config)
    return StudentShape(shape.layers, shape.width, shape.heads, getattr(config, family_of(config).feed_forward))


def complete_shape(
    teacher: PreTrainedConfig, layers: int, width: int, heads: int | None = None, feed_forward: int | None = None
) -> StudentShape:
    """The student's four sizes: those given, and defaults that depend on width and teacher alone.

    For a student no wider than its teacher they can, where possible, be cut from it, so that cut and fresh students
    have one shape.
    Raises ConfigError for impossible sizes.
    """
    if layers < 1 or width < 1:
        raise ConfigError(f"--student {layers}x{width}: layers and width must be at least 1")
    own = shape_of(teacher)
    usual = (default_heads(width, own), default_feed_forward(width, own))
    shape = StudentShape(layers, width, usual[0] if heads is None else heads, feed_forward or usual[1])
    if shape.heads < 1 or feed_forward == 0 or width % shape.heads:
        raise ConfigError(
            f"--student {layers}x{width}x{heads}x{feed_forward}: the width must be a multiple of the number of heads, "
            f"and the feed-forward width at least 1; {layers}x{width} alone would take {usual[0]} heads and {usual[1]}"
        )
    if family_of(teacher).rotary and shape.head_size % 2:
        raise ConfigError(
            f"--student {shape}: heads of {shape.head_size} neurons cannot be rotated in pairs, as a "
            f"{teacher.model_type!r} does; take a width that gives {shape.heads} heads an even number"
        )
    return shape


def default_heads(width: int, teacher: StudentShape) -> int:
    """The teacher's number of heads where it divides the width, else 12, else heads of about 64.

    A number that cannot be cut from the teacher (more or larger heads) gives way to the nearest that can, if any.
    """
    divisors = [number for number in range(1, width + 1) if width % number == 0]
    usual = 12 if width % 12 == 0 else min(divisors, key=lambda number: abs(number - width / 64))
    if width > teacher.width:
        return usual
    possible = [number for number in divisors if number <= teacher.heads and width // number <= teacher.head_size]
    if teacher.heads in possible:
        return teacher.heads
    return min(possible, key=lambda number: abs(number - usual), default=usual)


def default_feed_forward(width: int, teacher: StudentShape) -> int:
    """1200 for the published width of 312, else 4 × width; at most the teacher's, where that is as wide."""
    usual = PUBLISHED_FEED_FORWARD.get(width, 4 * width)
    return usual if width > teacher.width else min(usual, teacher.feed_forward)


def resize(config: Any, shape: StudentShape, layers: Sequence[int]) -> None:
    """Write the sizes, and which `layers` are kept, into `config`, under its family's names."""
    family = family_of(config)
    for name in family.as_wide:
        if getattr(config, name, None) == config.hidden_size:
            setattr(config, name, shape.width)
    family.keep(config, layers)
    config.hidden_size = shape.width
    config.num_attention_heads = shape.heads
    setattr(config, family.feed_forward, shape.feed_forward)


def drawn(
    kind: Callable[[Any], PreTrainedModel],
    config: PreTrainedConfig,
    labels: Sequence[str],
    predictions: Predictions,
    seed: int,
) -> PreTrainedModel:
    """A model of this kind with fresh weights, its logits named; the same seed gives the same, torch's state stays."""
    name_predictions(config, labels, predictions)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return kind(config)


def name_predictions(config: PreTrainedConfig, labels: Sequence[str], predictions: Predictions) -> None:
    """Write the meaning of the logits into `config`, where there is a task."""
    if predictions.problem_type is not None:
        name_outputs(config, labels=labels, problem_type=predictions.problem_type)
