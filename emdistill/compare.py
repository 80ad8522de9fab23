"""Methods against each other: equal budget, equal births, paired seeds; runs that are finished are not done again."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from rich.console import Console

from emdistill.artifact.comparison import RUNS, Comparison, read_comparison, run_place
from emdistill.artifact.comparison_report import comparison_notes, differences_table, write_comparison
from emdistill.artifact.report import print_table
from emdistill.artifact.run_folder import RUN_FILE, check_same_run, read_run
from emdistill.config import RunConfig, compose_stages, config_dict, flatten, load_config, read_data, read_yaml
from emdistill.data.task import RAW_TEXT, TaskData
from emdistill.distill import distill, input_hashes
from emdistill.errors import ConfigError, EmdistillError, ModelError, OutputError, nearest
from emdistill.models.encoder import encoder_shape, load_classifier, load_tokenizer
from emdistill.models.teacher import Teacher
from emdistill.students import make_student
from emdistill.training import DistillationArguments
from emdistill.training.run_stages import Interrupted

# What decides how long a student learns, and from how much; one for all entries. A learning rate is the recipe's own.
BUDGET = (
    "max_steps",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "tokens_per_batch",
    "early_stopping_patience",
)
OF_AN_ENTRY = ("method", "mapping", "objective")
LARGEST_SEED = 2**32 - 1
WAIT = 2.0  # seconds between looks at what another process is running

State = Literal["new", "begun", "finished", "other"]


@dataclass(frozen=True)
class Entry:
    """One of --methods: as it is written there, its name in the table, and the options that are its own."""

    written: str
    name: str
    options: dict[str, Any]


@dataclass(frozen=True)
class PlannedRun:
    """One entry with one seed."""

    entry: str
    seed: int
    config: RunConfig
    hashes: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.entry} seed {self.seed}"


def compare(methods: str, *, seeds: str | int = "5", baseline: str | None = None, **options: Any) -> Comparison:
    """Distil with every method over the same seeds, and say what the paired differences to a baseline show.

    All runs have the same teacher, data, student and budget; with one seed, all entries have the same student at birth
    and read the data in the same order. Runs stand in OUTPUT/runs/ENTRY-SEED; those that are finished are not done
    again, interrupted ones are gone on with. Several processes may work on one comparison.
    Raises ConfigError and OutputError before any training; after Ctrl-C writes what there is and raises Interrupted.

    Args:
        methods: entries, separated by commas: a method's name, METHOD@MAPPING, or a YAML file with method, mapping and
            objective.
        seeds: so many seeds (5: from 0 to 4), or these: 3,7,11.
        baseline: the entry that the others are compared with; the first one if not given.
        options: those of distill that are the same for all: teacher, data, task, student, output, training, ...
    """
    entries = read_entries(methods)
    names = [entry.name for entry in entries]
    chosen = read_seeds(seeds)
    against = _baseline(baseline, entries)
    overwrite = bool(options.get("overwrite"))
    configs = entry_configs(entries, options)
    folder = Path(_common(options)["output"])
    _check_folder(folder)
    if configs[0].task == RAW_TEXT:
        raise ConfigError(
            f"--task {RAW_TEXT} has no score to compare by; distil with each method, then compare on a task"
        )
    data = read_data(configs[0])
    teacher = Teacher(load_classifier(configs[0].teacher))
    _check_methods(names, configs, teacher, data)
    plan = [
        PlannedRun(
            name,
            seed,
            replace(config, seed=seed, output=str(run_place(folder, name, seed))),
            input_hashes(config, teacher, data),
        )
        for seed in chosen  # seed by seed, so that a comparison that is stopped has whole pairs
        for name, config in zip(names, configs, strict=True)
    ]
    for run in plan:
        state_of(run, overwrite=overwrite)

    (folder / RUNS).mkdir(parents=True, exist_ok=True)
    console = Console(soft_wrap=True, markup=False, highlight=False)
    try:
        _run_all(plan, data, overwrite, console)
    except KeyboardInterrupt:
        raise Interrupted("stopped between two steps") from None
    finally:
        comparison = read_comparison(folder, names, chosen, against)
        _report(folder, comparison, _command(methods, seeds, baseline, options), console)
    assert comparison is not None  # every run is finished here
    return comparison


def read_entries(methods: str) -> list[Entry]:
    """The entries of --methods; raises ConfigError for fewer than two, or two of one name."""
    entries = [_read_entry(text.strip()) for text in methods.split(",") if text.strip()]
    if len(entries) < 2:
        raise ConfigError(f"--methods {methods}: a comparison needs two entries, as in bert-emd,soft-targets")
    names = [entry.name for entry in entries]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"--methods: two entries are called '{twice[0]}'; rename a file, for runs are kept by name")
    return entries


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


def read_seeds(seeds: str | int) -> list[int]:
    """'5' -> 0 to 4; '3,7,11' -> these; '7,' -> this one. Raises ConfigError for what is no seed, or one twice."""
    text = str(seeds)
    try:
        given = [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise ConfigError(f"--seeds {text}: give a number of seeds, as in 5, or the seeds, as in 3,7,11") from None
    found = given if "," in text else list(range(given[0])) if given else []
    if not found:
        raise ConfigError(f"--seeds {text}: at least one seed is needed, better five: --seeds 5")
    if wrong := [seed for seed in found if not 0 <= seed <= LARGEST_SEED or found.count(seed) > 1]:
        raise ConfigError(f"--seeds {text}: {wrong[0]} stands there twice, or is not between 0 and {LARGEST_SEED}")
    return found


def _baseline(baseline: str | None, entries: Sequence[Entry]) -> str:
    """The baseline's name; it may be given as it is written in --methods."""
    if baseline is None:
        return entries[0].name
    names = {entry.name: entry.name for entry in entries} | {entry.written: entry.name for entry in entries}
    if baseline not in names:
        listed = ", ".join(entry.name for entry in entries)
        raise ConfigError(f"--baseline {baseline} is none of --methods: {listed}.{nearest(baseline, names)}")
    return names[baseline]


def _common(options: Mapping[str, Any]) -> dict[str, Any]:
    """What all runs share, flat: the options over the file --config names; raises ConfigError for an entry's own."""
    file = options.get("config")
    given = {**({} if file is None else flatten(read_yaml(Path(file)))), **flatten(options)}
    common = {name: value for name, value in given.items() if name not in ("config", "resume", "overwrite")}
    own = [name for name in common if name.partition(".")[0] in OF_AN_ENTRY and common[name] is not None]
    if own:
        raise ConfigError(
            f"{', '.join(own)}: an entry has its own; name it in --methods as METHOD, METHOD@MAPPING, or a YAML file"
        )
    if "seed" in common:
        raise ConfigError("seed: a comparison has several; give --seeds 5, or --seeds 3,7,11")
    common = {name: value for name, value in common.items() if name.partition(".")[0] not in OF_AN_ENTRY}
    if missing := [name for name in ("teacher", "data", "output") if common.get(name) is None]:
        raise ConfigError(f"a comparison needs {', '.join(f'--{name}' for name in missing)}")
    if common.get("teacher_cache_folder") is None:
        common["teacher_cache_folder"] = str(Path(common["output"]) / "teacher_cache")
    return common


def entry_configs(entries: Sequence[Entry], options: Mapping[str, Any]) -> list[RunConfig]:
    """A configuration an entry: its recipe, over it what all share, over it the entry's own; seed and output to come.

    Raises ConfigError naming the entry where an option cannot be used, and where the budgets differ.
    """
    common = _common(options)
    configs = []
    for entry in entries:
        try:
            configs.append(load_config(**{**common, **entry.options}))
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


def _check_methods(names: Iterable[str], configs: Sequence[RunConfig], teacher: Teacher, data: TaskData) -> None:
    """Compose every entry's method once: what cannot be used is to be said before hours of training."""
    config = configs[0]
    predictions = data.task.predictions
    student, _ = make_student(
        config.student,
        teacher.model,
        load_tokenizer(config.teacher),
        labels=data.task.labels,
        predictions=predictions,
        source=config.student_source,
        birth="fresh",  # its shape alone is asked for
    )
    for name, config in zip(names, configs, strict=True):
        try:
            compose_stages(config, encoder_shape(student), teacher.shape, predictions)
        except (ConfigError, ModelError) as error:
            raise type(error)(f"{name}: {error}") from None


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        raise OutputError(f"{folder} is a file; --output names a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RUNS).is_dir():
        raise OutputError(f"{folder} is not empty and holds no comparison; choose another --output")


def state_of(run: PlannedRun, *, overwrite: bool) -> State:
    """What stands in a run's folder: nothing, this run begun or finished, or another one.

    Raises OutputError for another one, listing what differs, unless it is to be overwritten.
    """
    folder = Path(run.config.output)
    if not (folder / RUN_FILE).exists():
        return "new"
    try:
        check_same_run(folder, {"config": config_dict(run.config), "hashes": run.hashes})
        return "finished" if read_run(folder)["status"] == "finished" else "begun"
    except OutputError:
        if overwrite:
            return "other"
        raise


def _run_all(plan: Sequence[PlannedRun], data: TaskData, overwrite: bool, console: Console) -> None:
    """Finish every run; those that another process is at are come back to."""
    left, done, waits = list(plan), 0, False
    teacher_scores: dict[str, float] | None = None  # of the first run; all have one teacher and one dev
    while left:
        elsewhere: list[PlannedRun] = []
        for run in left:
            try:
                with FileLock(f"{run.config.output}.lock", timeout=0):
                    reused = _finish(run, data, teacher_scores, overwrite=overwrite)
                teacher_scores = read_run(Path(run.config.output))["scores"]["teacher"]
            except Timeout:
                elsewhere.append(run)
                continue
            except EmdistillError:
                console.print(f"{run} could not be finished")
                raise
            done += 1
            console.print(f"{run}: {_outcome(run)}{' (there already)' if reused else ''} ({done} of {len(plan)})")
        if len(elsewhere) == len(left):  # nothing is left but to wait
            if not waits:
                console.print(f"another process is at {', '.join(map(str, elsewhere))}; waiting for it")
            waits = True
            time.sleep(WAIT)
        left = elsewhere


def _finish(run: PlannedRun, data: TaskData, teacher_scores: dict[str, float] | None, *, overwrite: bool) -> bool:
    """Run it to its end, from wherever it is; whether it was there already."""
    state = state_of(run, overwrite=overwrite)
    if state != "finished":
        config = replace(run.config, resume=state == "begun", overwrite=state == "other")
        try:
            distill(config, examples=data, teacher_scores=teacher_scores, quiet=True)
        except Interrupted as stop:
            raise Interrupted(f"{run}: {stop}") from None
    return state == "finished"


def _outcome(run: PlannedRun) -> str:
    """'accuracy 0.7475, 31 s'."""
    record = read_run(Path(run.config.output))
    metric = record["task"]["metrics"][0]
    return f"{metric} {record['scores']['student'][metric]:.4f}, {record['timings']['training_seconds']:.0f} s"


def _report(folder: Path, comparison: Comparison | None, command: str, console: Console) -> None:
    if comparison is None:
        console.print("no run is finished yet, so there is nothing to compare")
        return
    write_comparison(folder, comparison, command=command)
    print_table(differences_table(comparison))
    for note in comparison_notes(comparison):
        console.print(f"- {note}")
    console.print(f"the page: {folder / 'report.html'}")


def _command(methods: str, seeds: str | int, baseline: str | None, options: Mapping[str, Any]) -> str:
    """The command of this comparison, without what is as it is by default."""
    defaults = {setting.name: setting.default for setting in fields(RunConfig)} | {"overwrite": None, "resume": None}
    given = {"methods": methods, "seeds": seeds, "baseline": baseline, **flatten(options)}
    words = [
        [f"--{name}", str(value)]
        for name, value in given.items()
        if value is not None and name not in ("overwrite", "resume") and value != defaults.get(name)
    ]
    return shlex.join(["emdistill", "compare", *(word for pair in words for word in pair)])
