"""Layer mappings in files, JSON or YAML: the pairs of layers as somebody chose them, or as a search found them.

    {"student_layers": 3, "teacher_layers": 6, "pairs": [[0, 1], [1, 3, 0.5], [2, 5]]}

Layers are counted from 0. A pair is [student layer, teacher layer] or [student layer, teacher layer, weight], of weight
1 where none is given; no pair teaches nothing. `about`, optional, holds notes for the reader: any keys and values.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from emdistill.errors import ConfigError, LayerCountError, nearest
from emdistill.files import write_whole
from emdistill.mapping.fixed import FixedMapping
from emdistill.mapping.kernels import Pair
from emdistill.mapping.mapping import check_layer_counts, check_pair
from emdistill.values import parse_json, parse_yaml, read_values

WeightedPair = tuple[int, int, float]

COUNTS = ("student_layers", "teacher_layers")
KEYS = (*COUNTS, "pairs", "about")
FORM = "[student layer, teacher layer] or [student layer, teacher layer, weight]"
MAPPING_SUFFIXES = (".json", ".yaml", ".yml")


def read_mapping(path: str | Path, student_layers: int, teacher_layers: int) -> FixedMapping:
    """The mapping that a file holds, F[i, j] = the pair's weight, for encoders of these numbers of layers.

    Raises ConfigError, naming file, place and mend, for a file that is not there, not readable or of another form;
    LayerCountError for a file made for other numbers of layers, and for layers that these encoders do not have.
    """
    path = Path(path)
    content = _read(path)
    _check_keys(path, content)
    made_for = content["student_layers"], content["teacher_layers"]
    if made_for != (student_layers, teacher_layers):
        raise LayerCountError(
            f"{path}: the mapping is for {made_for[0]} student and {made_for[1]} teacher layers, but this student has "
            f"{student_layers} and this teacher {teacher_layers}: choose a mapping made for them, or rewrite it"
        )
    flow = torch.zeros(student_layers, teacher_layers)
    for i, j, weight in _checked_pairs(path, content["pairs"], student_layers, teacher_layers):
        flow[i, j] = weight
    return FixedMapping(flow)


def write_mapping(
    path: str | Path,
    pairs: Sequence[Pair | WeightedPair],
    student_layers: int,
    teacher_layers: int,
    *,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a file that `read_mapping` reads, JSON where its name ends in .json, else YAML; what is there is replaced.

    about   notes to keep with the mapping (who found it, and how well it did); of what JSON can hold
    Raises ConfigError and LayerCountError as `read_mapping`, before anything is written.
    """
    path = Path(path)
    check_layer_counts(student_layers, teacher_layers)
    checked = _checked_pairs(path, [list(pair) for pair in pairs], student_layers, teacher_layers)
    content: dict[str, Any] = {
        "student_layers": student_layers,
        "teacher_layers": teacher_layers,
        "pairs": [[i, j] if weight == 1 else [i, j, weight] for i, j, weight in checked],
    }
    if about:
        content["about"] = dict(about)
    try:
        lines = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items()]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: `about` holds what JSON cannot: {error}") from None
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if path.suffix.lower() != ".json":
        text = yaml.safe_dump(json.loads(text), sort_keys=False, allow_unicode=True, default_flow_style=None)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


def _read(path: Path) -> dict[str, Any]:
    """What the file holds, under its keys."""
    try:
        # YAML would read JSON as well, but takes its number 1e-3 for text.
        content = read_values(path, parse_json if path.suffix.lower() == ".json" else parse_yaml)
    except ValueError as error:
        raise ConfigError(f"{path} is not readable as a mapping file, JSON or YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold the keys {', '.join(KEYS[:3])}; it holds {_shown(content)}")
    return content


def _check_keys(path: Path, content: Mapping[str, Any]) -> None:
    for key in content:
        if key not in KEYS:
            raise ConfigError(
                f"{path}: {key!r} is no key of a mapping file, which are {', '.join(KEYS)}; notes go under 'about'."
                f"{nearest(str(key), KEYS)}"
            )
    for key in KEYS[:3]:
        if key not in content:
            raise ConfigError(f"{path} has no {key!r}: a mapping file needs {', '.join(KEYS[:3])}")
    for key in COUNTS:
        if not _is_whole(content[key]) or content[key] < 1:
            raise ConfigError(f"{path}: {key} is {_shown(content[key])}; it must be a whole number from 1")
    if not isinstance(content.get("about", {}), dict | None):
        raise ConfigError(f"{path}: about is {_shown(content['about'])}; it must hold keys and values")


def _checked_pairs(path: Path, pairs: Any, student_layers: int, teacher_layers: int) -> list[WeightedPair]:
    """The pairs with their weights, each as it must be."""
    if not isinstance(pairs, list):
        raise ConfigError(f"{path}: pairs is {_shown(pairs)}; it must be a list of {FORM}")
    checked: dict[Pair, WeightedPair] = {}
    for number, pair in enumerate(pairs):
        place = f"{path}: pairs[{number}], {_shown(pair)},"
        if not isinstance(pair, list) or len(pair) not in (2, 3) or not all(map(_is_whole, pair[:2])):
            raise ConfigError(f"{place} must be {FORM}, layers being whole numbers from 0")
        i, j = pair[:2]
        check_pair(i, j, student_layers, teacher_layers, place)
        weight = pair[2] if len(pair) == 3 else 1.0
        if not _is_weight(weight):
            mend = "; YAML takes 1e-3 for text: write 0.001" if isinstance(weight, str) else ""
            raise ConfigError(f"{place} has the weight {_shown(weight)}; it must be a number from 0, and finite{mend}")
        if (i, j) in checked:
            raise ConfigError(f"{place} names student layer {i} and teacher layer {j} again: leave one of the two out")
        checked[i, j] = (i, j, float(weight))
    return list(checked.values())


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_weight(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 <= value <= torch.finfo(torch.float32).max  # NaN is not


def _shown(value: object) -> str:
    """A value as it stands in a file, cut where it is long."""
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
