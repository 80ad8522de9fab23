"""The names that a model's configuration has for its logits, and the kind of problem: written, read, and checked."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from emdistill.errors import ModelError, listing, shown, tell
from emdistill.tasks import KINDS
from emdistill.tasks.kind import is_unnamed, whole_name

NAMED_LOGITS = 'write there a name of its own for each logit, from 0 on: {"0": "negative", "1": "positive"}'


def name_outputs(config: PreTrainedConfig, *, labels: Sequence[str], problem_type: str) -> None:
    """Write the label names (or one output without labels) and the kind of problem into `config`."""
    config.num_labels = len(labels) or 1
    if labels:
        config.id2label = dict(enumerate(labels))
        config.label2id = {name: index for index, name in enumerate(labels)}
    config.problem_type = problem_type  # type: ignore[assignment]
    for name in sigmoids(config):
        delattr(config, name)


def names_by_label2id(labels: Mapping[str, Any]) -> dict[int, str]:
    """The names in the order of the logits where a config.json has them in label2id alone, else {}.

    transformers passes over label2id, and calls such logits LABEL_0, LABEL_1, …, as id2label then often does too.
    """
    written, numbered = labels.get("id2label") or {}, labels.get("label2id")
    in_order = [str(written[place]) for place in sorted(written, key=int)]
    if not isinstance(numbered, dict) or not is_unnamed(in_order):
        return {}
    named = {place: name for name, number in numbered.items() if (place := _place(number)) is not None}
    whole = sorted(named) == [*range(len(numbered))] and len(written) in (0, len(named))
    return dict(sorted(named.items())) if whole else {}


def _place(number: object) -> int | None:
    """The number of a logit, which some write as text or with a point; None for anything else."""
    digits = whole_name(str(number))
    return int(digits) if digits.isdecimal() else None


def check_label_names(source: str | Path, config: PreTrainedConfig) -> None:
    """Raise ModelError unless every logit has a name of its own, the same in id2label and in label2id.

    And for a problem type that no kind of task has: classes, several labels and scores are told apart by it alone.
    """
    names: dict[Any, Any] = dict(config.id2label or {})
    numbered: object = config.label2id
    if isinstance(numbered, dict) and (otherwise := _numbered_otherwise(names, numbered)) is not None:
        raise ModelError(
            f"{source}: config.json says id2label {shown(names)} and label2id {shown(numbered)}, which number "
            f"{otherwise!r} differently; correct the one that is wrong"
        )
    different = {str(name) for name in names.values() if name not in (None, "")}
    if sorted(names) != [*range(len(names))] or len(different) < len(names):
        raise ModelError(f"{source}: config.json says id2label {shown(names)}; {NAMED_LOGITS}")
    problem_type: object = config.problem_type
    if problem_type not in (None, *(known := {kind.problem_type: None for kind in KINDS.values()})):
        raise ModelError(
            f"{source}: config.json says problem_type {problem_type!r}; write there what the logits are, "
            f"{listing(known)}, or leave it out"
        )


@cache
def tell_sigmoid(source: str | Path, names: tuple[str, ...]) -> None:
    """Say once that a CrossEncoder's score is its logit here, far beyond the labels from 0 to 1 it learned from."""
    tell(
        f"{source}: config.json says ({names[0]}) that a sigmoid is taken of its logit; here the logit itself is the "
        "score, and labels from 0 to 1 lie on another scale: let no method learn from them"
    )


def sigmoids(config: PreTrainedConfig) -> tuple[str, ...]:
    """The entries by which sentence-transformers knows that a sigmoid is taken of the logits."""
    written: dict[str, Any] = config.to_dict()
    newer = written.get("sentence_transformers")
    values = {
        "sentence_transformers": newer.get("activation_fn") if isinstance(newer, dict) else None,
        "sbert_ce_default_activation_function": written.get("sbert_ce_default_activation_function"),
    }
    return tuple(name for name, value in values.items() if str(value).endswith("Sigmoid"))


def _numbered_otherwise(names: Mapping[int, Any], numbered: Mapping[str, Any]) -> Any | None:
    """The first name that label2id gives another logit, where it has the same names, perhaps in other case."""
    for reading in (str, str.casefold):
        places = {reading(str(name)): _place(number) for name, number in numbered.items()}
        if len(places) == len(numbered) and {*places} == {reading(str(name)) for name in names.values()}:
            return next((name for place, name in names.items() if places[reading(str(name))] != place), None)
    return None
