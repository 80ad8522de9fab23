"""A student with random weights: the teacher's class, vocabulary and dropout, fewer and narrower layers."""

import copy
from collections.abc import Sequence
from functools import partial

from transformers import PreTrainedModel

from emdistill.models.families import require
from emdistill.states import CLASSES, Predictions
from emdistill.students.keep_layers import blank_like
from emdistill.students.shape import complete_shape, drawn, resize


def fresh_student(
    teacher: PreTrainedModel,
    layers: int,
    width: int,
    heads: int | None = None,
    feed_forward: int | None = None,
    *,
    labels: Sequence[str] = (),
    predictions: Predictions = CLASSES,
    seed: int = 0,
) -> PreTrainedModel:
    """A model of the teacher's class with `layers` layers of `width`, initialised as its family is, from `seed`.

    The rest of the teacher's config stays: vocabulary, positions, activation, dropout, initialiser range.
    The same seed gives the same weights; torch's random state stays.
    Raises ConfigError for impossible sizes, ModelError for an unsupported family.
    """
    require(teacher, "fresh")
    config = copy.deepcopy(teacher.config)
    shape = complete_shape(config, layers, width, heads, feed_forward)
    # Layers may be of several kinds, in an order: the first ones; of a deeper student some more than once.
    deeper = max(1.0, layers / config.num_hidden_layers)
    resize(config, shape, [int(place / deeper) for place in range(layers)])
    return drawn(partial(blank_like, teacher), config, labels, predictions, seed)
