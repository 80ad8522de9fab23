"""The command that made a student, for its card: whole enough to run again, without the paths of the machine."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from emdistill.models.encoder import HUB_ID

RECIPES = Path(__file__).parents[1] / "recipes"
# What `distill` takes where nothing is said; seed, length and choice of checkpoint are told all the same.
DEFAULTS = {
    "text": "text",
    "label": "label",
    "student_birth": "importance",
    "check_teacher": True,
    "teacher_cache": "logits",
}
SOURCES = ("teacher", "data", "dev", "student", "student_source", "method", "mapping", "augmented")
LEFT_OUT = ("keep_checkpoints", "teacher_cache_folder")  # they decide nothing about the student
WIDTH = 100


def distill_command(config: Mapping[str, Any]) -> str:
    """The `emdistill distill` of a run.json's config, as lines of a shell: what differs from defaults and recipe.

    Paths are cut to their last part, so it runs again where these files lie in the working folder.
    """
    file = RECIPES / f"{config['method']}.yaml"
    recipe: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    usual = DEFAULTS | _flat(recipe)
    options = {}
    for name, value in _flat(config).items():
        if name in LEFT_OUT or (value == usual[name] if name in usual else value is None):
            continue
        options[name] = source_name(value) if name in SOURCES and value is not None else value
    options["output"] = folder_name(config["output"])
    first = [name for name in ("teacher", "task", "data", "student", "method", "output") if name in options]
    return command_line("distill", {name: options[name] for name in dict.fromkeys([*first, *options])})


def command_line(verb: str, options: Mapping[str, Any]) -> str:
    """`emdistill VERB --name value …`, values as a shell needs them, broken into lines that a shell takes as one."""
    lines = [f"emdistill {verb}"]
    for name, value in options.items():
        option = name if "." in name else name.replace("_", "-")  # those of the sections are Python's names
        cut = plain(value)
        text = shlex.quote(cut if isinstance(cut, str) else json.dumps(cut))
        word = f"--{option}={text}" if text.startswith("-") else f"--{option} {text}"
        if len(lines[-1]) + 1 + len(word) > WIDTH:
            lines.append("   ")
        lines[-1] += f" {word}"
    return " \\\n".join(lines)


def folder_name(place: str) -> str:
    """The last part of a path of either system."""
    return PureWindowsPath(place).name or place


def source_name(place: str) -> str:
    """A hub id as it is; of a path, which tells about the machine, only the last part."""
    return place if HUB_ID.fullmatch(place) else folder_name(place)


def plain(value: Any) -> Any:
    """A value of plain types, absolute paths cut to their last part."""
    if isinstance(value, PurePath):
        return value.name
    if isinstance(value, str):
        absolute = PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()
        return folder_name(value) if absolute else value
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """{'training': {'seed': 1}, 'text': 'a'} -> {'training.seed': 1, 'text': 'a'}."""
    sections = {name: config.get(name) or {} for name in ("objective", "training")}
    flat = {name: value for name, value in config.items() if name not in sections}
    return flat | {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
