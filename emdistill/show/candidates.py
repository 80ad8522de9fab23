"""Several runs side by side: what each could ship, read from run folders (run.json, and onnx/gate.json where it is)."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from emdistill.errors import ConfigError, OutputError
from emdistill.runs.run_folder import PLACES, read_gate, read_run
from emdistill.ship.gate import judged_time
from emdistill.tasks.task import RAW_TEXT

VARIANT_NAMES = {"teacher": "teacher", "student": "PyTorch", "onnx": "ONNX", "int8": "int8"}
TEACHER, STUDENT = "teacher", "student"


@dataclass(frozen=True)
class Candidate:
    """A model that could be shipped: one configuration in one form, over the seeds that were given.

    variant   as in gate.json: teacher, student (PyTorch), onnx, int8
    size      bytes
    scores    on dev, one a seed
    latency   milliseconds a call at batch 1 and the longest length timed, the median; over seeds, the median of these
    speed_up  against the teacher that was timed beside it
    place     length, machine and threads of the latency; None where there is none
    """

    name: str
    variant: str
    method: str
    shape: str
    parameters: int
    size: int
    scores: tuple[float, ...]
    latency: float | None = None
    speed_up: float | None = None
    place: str | None = None

    @property
    def is_teacher(self) -> bool:
        """Whether it is what the others learned from."""
        return self.variant == TEACHER

    @property
    def score(self) -> float:
        """The mean over the seeds."""
        return fmean(self.scores)

    @property
    def deviation(self) -> float | None:
        """The standard deviation over the seeds (n - 1); None for one seed."""
        return stdev(self.scores) if len(self.scores) > 1 else None


@dataclass(frozen=True)
class RunSet:
    """Runs of one task, scored on the same rows; `metric` is the task's first one.

    candidates   the teachers first, then the runs' models in the order of the runs
    unmeasured   names of those that have no latency
    notes        what must be known to compare them, a sentence each
    """

    task: str
    metric: str
    dev: str
    dev_rows: int
    candidates: tuple[Candidate, ...]
    unmeasured: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def places(self) -> tuple[str, ...]:
        """The machines and threads that latencies were measured with."""
        return tuple(dict.fromkeys(candidate.place for candidate in self.candidates if candidate.place is not None))


@dataclass(frozen=True)
class _Run:
    folder: Path
    record: dict[str, Any]
    gate: dict[str, Any] | None


def read_runs(folders: Sequence[Path]) -> RunSet:
    """What the runs could ship: the teacher, and each run's student in every form that its gate has measured.

    Runs that differ in nothing but their seed are one configuration: their scores are taken together.
    Raises OutputError for a folder without a finished distillation, or with a broken gate; ConfigError where the runs
    are of different tasks or development sets, whose scores say nothing of each other.
    """
    runs = [_read(folder) for folder in folders]
    _check_comparable(runs)
    groups = _by_configuration(runs)
    names = _names(groups)
    candidates = _teachers(runs)
    unmeasured, notes = [], []
    for name, group in zip(names, groups, strict=True):
        found, left_out = _candidates(name, group)
        candidates += found
        unmeasured += [] if any(candidate.latency is not None for candidate in found) else [name]
        notes += [f"{name}: {left_out}"] if left_out else []
    task = runs[0].record["task"]
    dev, rows = next(iter(task["evaluation_rows"].items()))
    found_set = RunSet(task["name"], task["metrics"][0], dev, rows, tuple(candidates), tuple(unmeasured))
    notes += _differences(runs, found_set.places)
    return replace(found_set, notes=tuple(notes))


def _read(folder: Path) -> _Run:
    record = read_run(folder)
    if not isinstance(record, dict) or not {"config", "task", "student", "scores"} <= record.keys():
        general = isinstance(record, dict) and record.get("config", {}).get("task") == RAW_TEXT
        what = "a general distillation, which has no score of a task" if general else "no distillation"
        raise OutputError(f"{folder} holds {what}; name folders that `emdistill distill` wrote for a task")
    if record["status"] != "finished":
        raise OutputError(
            f"{folder} holds a run that is not finished; the command that began it, with --resume, ends it"
        )
    return _Run(folder, record, read_gate(folder))


def _check_comparable(runs: Sequence[_Run]) -> None:
    task_of = {run.folder: _task(run.record) for run in runs}
    if len(set(task_of.values())) > 1:
        raise ConfigError(
            f"scores of different tasks are not comparable; report each task by itself: "
            f"{_listed({folder: task[0] for folder, task in task_of.items()})}"
        )
    dev_of = {run.folder: _dev_set(run.record) for run in runs}
    if len(set(dev_of.values())) > 1:
        sizes = {folder: f"{dev[0][0]}, {dev[0][1]} rows" for folder, (dev, *_) in dev_of.items()}
        numbers = {dev: number for number, dev in enumerate(dict.fromkeys(dev_of.values()), start=1)}
        said = {folder: f"set {numbers[dev]} ({sizes[folder]})" for folder, dev in dev_of.items()}
        raise ConfigError(
            f"the runs are scored on different development sets, so that their scores are not comparable; report "
            f"each by itself: {_listed(said)}"
        )


def _task(run: Mapping[str, Any]) -> tuple[str, str, tuple[str, ...], str]:
    task = run["task"]
    return task["name"], task["kind"], tuple(task["labels"]), task["metrics"][0]


def _dev_set(run: Mapping[str, Any]) -> tuple[tuple[tuple[str, int], ...], str | None, tuple[str, ...]]:
    """What development rows are known by: their number, how they were cut out of train, the hashes of their files."""
    task = run["task"]
    train, *others = [file["sha256"] for file in task["files"]] or [task.get("description", "")]
    held_out = task["held_out"]
    return tuple(task["evaluation_rows"].items()), held_out, tuple(others) if others and not held_out else (train,)


def _listed(said: Mapping[Path, str], at_most: int = 6) -> str:
    """'mrpc: a, b; sst2: c'."""
    folders: dict[str, list[str]] = {}
    for folder, text in said.items():
        folders.setdefault(text, []).append(str(folder))
    return "; ".join(
        f"{text}: {', '.join(names[:at_most])}{f' and {len(names) - at_most} more' * (len(names) > at_most)}"
        for text, names in folders.items()
    )


def _by_configuration(runs: Sequence[_Run]) -> list[list[_Run]]:
    """Runs that differ in nothing but their seed, together; a seed that comes twice opens a group of its own."""
    groups: dict[tuple[str, int], list[_Run]] = {}
    met: Counter[tuple[str, int]] = Counter()
    for run in runs:
        # An option that an earlier version did not have is one that was not given.
        given = {name: value for name, value in run.record["config"].items() if value is not None}
        config = {name: value for name, value in given.items() if name not in ("seed", *PLACES)}
        key = json.dumps([config, run.record["hashes"]], sort_keys=True, default=str)
        seed = run.record["seed"]
        groups.setdefault((key, met[key, seed]), []).append(run)
        met[key, seed] += 1
    return list(groups.values())


def _names(groups: Sequence[Sequence[_Run]]) -> list[str]:
    """A name a group: its folder's, without the seed where there are several; the path where two would be one."""
    names = [
        group[0].folder.name if len(group) == 1 else group[0].folder.name.removesuffix(f"-{group[0].record['seed']}")
        for group in groups
    ]
    places = [group[0].folder.absolute() for group in groups]
    top = os.path.commonpath([place.parent for place in places])
    relative = [place.relative_to(top).as_posix() for place in places]
    return [name if names.count(name) == 1 else path for name, path in zip(names, relative, strict=True)]


def _candidates(name: str, group: Sequence[_Run]) -> tuple[list[Candidate], str]:
    """A configuration's models, the one in PyTorch first; and what was left out of their latencies."""
    record = group[0].record
    metric = record["task"]["metrics"][0]
    gates = [run.gate for run in group if run.gate is not None]
    here = [gate for gate in gates if _place(gate) == _place(gates[0])]
    shape = record["student"]["shape"]
    found = []
    for variant in VARIANT_NAMES:
        with_it = [gate for gate in here if variant in gate["variants"]]
        if variant == TEACHER or (variant != STUDENT and not with_it):
            continue
        scores = [gate["variants"][variant]["scores"][metric] for gate in gates if variant in gate["variants"]]
        if variant == STUDENT:
            scores = [run.record["scores"]["student"][metric] for run in group]
        found.append(
            Candidate(
                name,
                variant,
                record["config"]["method"],
                f"{shape['layers']} × {shape['width']}",
                record["student"]["parameters"],
                # A file has a header too; sizes of what was measured and what was not are to be comparable.
                record["student"]["bytes"] if variant == STUDENT else with_it[0]["variants"][variant]["bytes"],
                tuple(scores),
                **_timing(with_it, variant),
            )
        )
    left_out = "latencies of some of its seeds were measured elsewhere and are left out" if here != gates else ""
    return found, left_out


def _teachers(runs: Sequence[_Run]) -> list[Candidate]:
    """The runs' teachers, each once."""
    groups: dict[str, list[_Run]] = {}
    for run in runs:
        groups.setdefault(run.record["hashes"]["teacher"], []).append(run)
    found = []
    for group in groups.values():
        record = group[0].record
        gates = [run.gate for run in group if run.gate is not None and TEACHER in run.gate["variants"]]
        here = [gate for gate in gates if _place(gate) == _place(gates[0])]
        name = TEACHER if len(groups) == 1 else f"{TEACHER} {Path(record['config']['teacher']).name}"
        shape, score = record["teacher"]["shape"], record["scores"]["teacher"][record["task"]["metrics"][0]]
        size = record["teacher"]["bytes"]
        shape = f"{shape['layers']} × {shape['width']}"
        parameters = record["teacher"]["parameters"]
        found.append(Candidate(name, TEACHER, "", shape, parameters, size, (score,), **_timing(here, TEACHER)))
    return found


def _timing(gates: Sequence[Mapping[str, Any]], variant: str) -> dict[str, Any]:
    """Latency, speed-up and place of a variant, over gates of one place; nothing where none has timed it."""
    timed = [(gate, p50) for gate in gates if (p50 := _p50(gate, variant)) is not None]
    if not timed:
        return {}
    ratios = [teacher / p50 for gate, p50 in timed if (teacher := _p50(gate, TEACHER)) is not None and p50]
    return {
        "latency": median(p50 for _, p50 in timed),
        "speed_up": median(ratios) if ratios else None,
        "place": _place(timed[0][0]),
    }


def _p50(gate: Mapping[str, Any], variant: str) -> float | None:
    time = judged_time(gate["variants"].get(variant, {}))
    return None if time is None else float(time["p50"])


def _place(gate: Mapping[str, Any]) -> str:
    """'128 tokens, 2 threads of 4 cores, Intel Xeon': what latencies must have in common to be compared."""
    machine = gate["machine"]
    times = [time for variant in gate["variants"].values() if (time := judged_time(variant))]
    length = f"{times[0]['length']} tokens, " if times else ""
    threads, cores = machine["threads"], machine["cores"]
    return f"{length}{threads} thread{'s' * (threads != 1)} of {cores} core{'s' * (cores != 1)}, {machine['cpu']}"


def _differences(runs: Sequence[_Run], places: Sequence[str]) -> list[str]:
    """What the runs differ in that their numbers do not show."""
    notes = []
    if len(places) > 1:
        notes.append(
            f"latencies were measured in {len(places)} places, and are comparable within one place only: "
            f"{'; '.join(places)}"
        )
    if len({run.record["hashes"]["teacher"] for run in runs}) > 1:
        notes.append("the runs have different teachers")
    if len({json.dumps(run.record["task"]["files"][:1]) + str(run.record["rows"]["train"]) for run in runs}) > 1:
        notes.append("the runs learned from different training rows; all are scored on the same development set")
    for name in ("emdistill", "torch", "transformers"):
        versions = list(dict.fromkeys(str(run.record["versions"][name]) for run in runs))
        if len(versions) > 1:
            notes.append(f"the runs were made with different versions of {name}: {', '.join(versions)}")
    return notes
