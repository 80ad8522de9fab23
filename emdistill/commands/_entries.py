"""What is compared: the entries of --methods, their seeds, and one configuration each, of one budget."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from emdistill.config import LABELS_ALONE, LIMITS, CompareConfig, RunConfig, TeachingConfig, flatten, read_yaml
from emdistill.errors import ConfigError, nearest
from emdistill.options import load_config
from emdistill.training.arguments import BUDGET, DistillationArguments

OF_AN_ENTRY = ("method", "mapping", "objective")
LARGEST_SEED = int(LIMITS["seed"][1])
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Entry:
    """One of --methods: as it is written there, its name in the table, and the options that are its own."""

    written: str
    name: str
    options: dict[str, Any]


def read_entries(methods: str) -> list[Entry]:
    """The entries of --methods; raises ConfigError for fewer than two, or two of one name."""
    entries = [_read_entry(text.strip()) for text in methods.split(",") if text.strip()]
    if len(entries) < 2:
        raise ConfigError(f"--methods {methods}: a comparison needs two entries, as in bert-emd,soft-targets")
    names = [entry.name for entry in entries]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"--methods: two entries are called '{twice[0]}'; rename a file, for runs are kept by name")
    return entries


def with_labels_alone(entries: list[Entry]) -> list[Entry]:
    """The entries, and hard-labels where none of them is it."""
    there = any(entry.options.get("method") == LABELS_ALONE for entry in entries)
    return entries if there else [*entries, _read_entry(LABELS_ALONE)]


def _read_entry(text: str) -> Entry:
    file = Path(text)
    if file.suffix in (".yaml", ".yml") and (file.exists() or "@" not in text):
        return Entry(text, _name(file.stem), _read_own_options(file))
    method, at, mapping = text.rpartition("@")
    if not at:
        return Entry(text, _name(text), {"method": text})
    if not method or not mapping:
        raise ConfigError(f"--methods {text}: write METHOD@MAPPING, as in tinybert@last")
    return Entry(text, _name(f"{method}@{Path(mapping).stem}"), {"method": method, "mapping": mapping})


def _name(text: str) -> str:
    """The name of an entry, which is also that of its folders."""
    return re.sub(r"[^\w.@+-]+", "-", text).strip("-")


def _read_own_options(file: Path) -> dict[str, Any]:
    """The options of an entry's file; raises ConfigError that lists those which are for all entries."""
    options = flatten(read_yaml(file))
    budget = [name for name in options if name.removeprefix("training.") in BUDGET]
    common = [name for name in options if name.partition(".")[0] not in (*OF_AN_ENTRY, "training") or name in budget]
    if common:
        raise ConfigError(
            f"{file} sets {', '.join(common)}, but an entry has only its method, mapping, objective and learning rate; "
            f"the budget and all else is one for all: give it to the comparison itself, as in --training.max_steps"
        )
    return options


def read_seeds(seeds: str) -> list[int]:
    """'5' -> 0 to 4; '3,7,11' -> these; '7,' -> this one. Raises ConfigError for what is no seed, or one twice."""
    try:
        numbers = [int(word) for word in seeds.split(",") if word.strip()]
    except ValueError:
        raise ConfigError(f"--seeds {seeds}: give a number of seeds, as in 5, or the seeds, as in 3,7,11") from None
    listed = numbers if "," in seeds else range(numbers[0]) if numbers else []
    if not listed:
        raise ConfigError(f"--seeds {seeds}: at least one seed is needed, better five: --seeds 5")
    if len(listed) > MOST_SEEDS:
        one = "" if "," in seeds else f"; this one seed is written --seeds {seeds.strip()},"
        raise ConfigError(f"--seeds {seeds}: at most {MOST_SEEDS} seeds are compared{one}")
    if wrong := [seed for seed, times in Counter(listed).items() if not 0 <= seed <= LARGEST_SEED or times > 1]:
        raise ConfigError(f"--seeds {seeds}: {wrong[0]} stands there twice, or is not between 0 and {LARGEST_SEED}")
    return list(listed)


def find_baseline(baseline: str | None, entries: Sequence[Entry]) -> str:
    """The baseline's name; it may be given as it is written in --methods."""
    if baseline is None:
        return entries[0].name
    names = {entry.name: entry.name for entry in entries} | {entry.written: entry.name for entry in entries}
    if baseline not in names:
        listed = ", ".join(entry.name for entry in entries)
        raise ConfigError(f"--baseline {baseline} is none of --methods: {listed}.{nearest(baseline, names)}")
    return names[baseline]


def entry_configs(entries: Sequence[Entry], comparison: CompareConfig) -> list[RunConfig]:
    """A configuration per entry: its recipe, over it what all share, over it the entry's own; seed and output to come.

    Raises ConfigError naming the entry where an option cannot be used, and where the budgets differ.
    """
    common = {setting.name: getattr(comparison, setting.name) for setting in fields(TeachingConfig)}
    common["teacher_cache_folder"] = comparison.teacher_cache_folder or str(Path(comparison.output) / "teacher_cache")
    common["baselines"] = "none"  # they are measured once for all
    configs = []
    for entry in entries:
        try:
            configs.append(load_config(**{**flatten(common), **entry.options}))
        except ConfigError as error:
            raise ConfigError(f"{entry.name}: {error}") from None
    _check_budget([entry.name for entry in entries], configs)
    return configs


def _check_budget(names: Iterable[str], configs: Sequence[RunConfig]) -> None:
    defaults = {setting.name: setting.default for setting in fields(DistillationArguments)}
    differs = {}
    for setting in BUDGET:
        values: list[Any] = [config.training.get(setting, defaults[setting]) for config in configs]
        if len(set(values)) > 1:
            differs[setting] = ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))
        if setting == "max_steps" and setting not in differs and values[0] > 0:
            break  # steps are given, and they alone count
    if differs:
        raise ConfigError(
            "the budget must be one for all, but these recipes differ:\n"
            + "".join(f"  training.{setting}: {values}\n" for setting, values in differs.items())
            + f"give it to the comparison: {' '.join(f'--training.{setting} …' for setting in differs)}"
        )
