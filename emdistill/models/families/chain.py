"""Chain of operators (models/chain.py): attention, feed-forward and convolutions in any order, each a layer."""

from collections.abc import Sequence
from typing import Any

from emdistill.models.families.bert import BERT
from emdistill.models.families.family import Family


def _keep(config: Any, layers: Sequence[int]) -> tuple[int, ...]:
    config.name_operators([config.operators[layer] for layer in layers])
    return tuple(layers)


CHAIN = Family(
    name="Chain",
    brought=True,
    layers="operators.*",
    outside=BERT.outside,
    masked_lm=BERT.masked_lm,
    attending=lambda config: tuple(place for place, name in enumerate(config.operators) if name == "a"),
    keep=_keep,
    without={
        "cut": "its operators are no whole layers",
        "fresh": "its operators are said in another way, --student chain:afafaf",
    },
)
