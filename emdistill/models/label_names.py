"""The names that a model's configuration has for its logits: written, and checked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from emdistill.errors import ModelError, shown

NAMED_LOGITS = 'write there a name of its own for each logit, from 0 on: {"0": "negative", "1": "positive"}'


def name_outputs(config: PreTrainedConfig, *, labels: Sequence[str], problem_type: str) -> None:
    """Write the label names (or one output without labels) and the kind of problem into `config`."""
    config.num_labels = len(labels) or 1
    if labels:
        config.id2label = dict(enumerate(labels))
        config.label2id = {name: index for index, name in enumerate(labels)}
    config.problem_type = problem_type  # type: ignore[assignment]


def check_label_names(source: str | Path, config: PreTrainedConfig) -> None:
    """Raise ModelError unless every logit has a name of its own, the same in id2label and in label2id."""
    names: dict[Any, str | None] = dict(config.id2label or {})
    numbered: object = config.label2id
    places = {str(name): str(place) for name, place in numbered.items()} if isinstance(numbered, dict) else {}
    otherwise = [name for place, name in names.items() if places.get(str(name), str(place)) != str(place)]
    if otherwise and {*places} == {*map(str, names.values())}:
        raise ModelError(
            f"{source}: config.json says id2label {shown(names)} and label2id {shown(config.label2id)}, which number "
            f"{otherwise[0]!r} differently; correct the one that is wrong"
        )
    different = {str(name) for name in names.values() if name not in (None, "")}
    if sorted(names) != [*range(len(names))] or len(different) < len(names):
        raise ModelError(f"{source}: config.json says id2label {shown(names)}; {NAMED_LOGITS}")
