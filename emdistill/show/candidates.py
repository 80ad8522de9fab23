"""Several runs side by side: what each could ship, read from run folders (run.json, and onnx/gate.json where it is)."""

import json
import os
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from emdistill.console import counted
from emdistill.errors import ConfigError, OutputError
from emdistill.runs.distillation import Distillation, read_distillation, version_notes, versions_of
from emdistill.runs.gate_record import GATE, GateRecord
from emdistill.runs.open_run import PLACES
from emdistill.runs.record import RUN_FILE, ModelRecord

VARIANT_NAMES = {"teacher": "teacher", "student": "PyTorch", "onnx": "ONNX", "int8": "int8"}
TEACHER, STUDENT = "teacher", "student"
MOST_FOLDERS = 6  # that an error names of each group


@dataclass(frozen=True)
class Candidate:
    """A model that could be shipped: one configuration in one form, over its seeds.

    variant   as in gate.json: teacher, student (PyTorch), onnx, int8
    size      bytes
    scores    on dev, one per seed
    latency   milliseconds per call at batch 1 and the longest length timed, the median; over seeds, the median of these
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
    def costs(self) -> dict[str, float]:
        """Megabytes, and milliseconds where they were measured."""
        return {"size": self.size / 1e6} | ({} if self.latency is None else {"latency": self.latency})

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
    def has_seeds(self) -> bool:
        """Whether some scores are means over seeds."""
        return any(len(candidate.scores) > 1 for candidate in self.candidates)

    @property
    def places(self) -> tuple[str, ...]:
        """The machines and threads that latencies were measured with."""
        return tuple(dict.fromkeys(candidate.place for candidate in self.candidates if candidate.place is not None))


def read_runs(folders: Sequence[Path]) -> RunSet:
    """What the runs could ship: the teacher, and each run's student in every form that its gate has measured.

    Runs that differ in nothing but their seed are one configuration: their scores are taken together.
    Raises OutputError for a folder without a finished distillation, or with a broken record; ConfigError where the runs
    are of different tasks or development sets, whose scores are not comparable.
    """
    runs = [_read(folder) for folder in folders]
    _check_comparable(runs, "tasks", _task)
    _check_comparable(runs, "development sets", _dev_set)
    groups = _by_configuration(runs)
    candidates, unmeasured, notes = _teachers(runs), [], []
    for name, group in zip(_names(groups), groups, strict=True):
        forms, all_here = _students(name, group)
        candidates += forms
        unmeasured += [] if any(candidate.latency is not None for candidate in forms) else [name]
        if not all_here:
            notes.append(f"{name}: latencies of some of its seeds were measured elsewhere and are left out")
    task, (dev, rows) = runs[0].scored_task, runs[0].dev
    compared = RunSet(task.name, task.metric, dev, rows, tuple(candidates), tuple(unmeasured))
    return replace(compared, notes=(*notes, *_differences(runs, compared.places)))


def _read(folder: Path) -> Distillation:
    run = read_distillation(folder)
    metric = run.scored_task.metric
    if not run.record.is_finished:
        raise OutputError(f"{folder} holds a run that is not finished; finish it by its own command with --resume")
    if run.gate is not None and run.gate.metric != metric:
        raise OutputError(f"{folder / GATE} is of another metric ({run.gate.metric}) than {RUN_FILE} ({metric})")
    return run


def _check_comparable(runs: Sequence[Distillation], what: str, key: Callable[[Distillation], Hashable]) -> None:
    """Refuse runs of several tasks or development sets, with some folders of each."""
    lists = []
    for number, group in enumerate(_grouped(runs, key), start=1):
        folders = [str(run.folder) for run in group[:MOST_FOLDERS]]
        folders += [f"{len(group) - MOST_FOLDERS} more"] if len(group) > MOST_FOLDERS else []
        dev, rows = group[0].dev
        lists.append(f"{number} ({group[0].scored_task.name}, {dev}, {rows} rows): {', '.join(folders)}")
    if len(lists) > 1:
        raise ConfigError(f"scores of different {what} are not comparable; report each by itself: {'; '.join(lists)}")


def _grouped(runs: Sequence[Distillation], key: Callable[[Distillation], Hashable]) -> list[list[Distillation]]:
    """The runs of each key, in the order of their first ones."""
    groups: dict[Hashable, list[Distillation]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return list(groups.values())


def _task(run: Distillation) -> Hashable:
    task = run.scored_task
    return task.name, task.kind, task.labels, task.metric


def _dev_set(run: Distillation) -> Hashable:
    """What development rows are known by: their number, how they were cut out of train, the hashes of their files."""
    task = run.scored_task
    train, *others = [file.sha256 for file in task.files] or [task.description]
    files = tuple(others) if others and not task.held_out else (train,)
    return tuple(task.evaluation_rows.items()), task.held_out, files


def _teacher(run: Distillation) -> str:
    return run.record.hashes.get("teacher", "")


def _by_configuration(runs: Sequence[Distillation]) -> list[list[Distillation]]:
    """Runs that differ in nothing but their seed, together; a seed that comes twice opens a group of its own."""
    repeats: Counter[Hashable] = Counter()

    def key(run: Distillation) -> Hashable:
        # An option that an earlier version did not have is one that was not given.
        options = {name: value for name, value in run.record.config.items() if value is not None}
        config = {name: value for name, value in options.items() if name not in ("seed", *PLACES)}
        text = json.dumps([config, run.record.hashes], sort_keys=True, default=str)
        repeats[text, run.record.seed] += 1
        return text, repeats[text, run.record.seed]

    return _grouped(runs, key)


def _names(groups: Sequence[Sequence[Distillation]]) -> list[str]:
    """A name per group: its folder's, without the seed where there are several; the path where two would be one."""
    places = [group[0].folder.absolute() for group in groups]
    seeds = [f"-{group[0].record.seed}" if len(group) > 1 else "" for group in groups]
    names = [place.name.removesuffix(seed) for place, seed in zip(places, seeds, strict=True)]
    top = os.path.commonpath([place.parent for place in places])
    relative = [place.relative_to(top).as_posix() for place in places]
    return [name if names.count(name) == 1 else path for name, path in zip(names, relative, strict=True)]


def _students(name: str, group: Sequence[Distillation]) -> tuple[list[Candidate], bool]:
    """A configuration's models, the one in PyTorch first; and whether all were timed where the first one was."""
    first, metric = group[0], group[0].scored_task.metric
    gates = [run.gate for run in group if run.gate is not None]
    comparable = _of_one_place(gates)
    # A file has a header too; sizes of what was measured and what was not are to be comparable.
    forms = {STUDENT: (first.student.bytes, [run.student_scores[metric] for run in group])}
    for variant in ("onnx", "int8"):
        measured = [gate.variants[variant] for gate in gates if variant in gate.variants]
        if any(variant in gate.variants for gate in comparable):
            forms[variant] = (measured[0].bytes, [form.scores[metric] for form in measured])
    about = (first.options.method, _shape(first.student), first.student.parameters)
    candidates = [
        Candidate(name, variant, *about, size, tuple(scores), **_timing(comparable, variant))
        for variant, (size, scores) in forms.items()
    ]
    return candidates, comparable == gates


def _teachers(runs: Sequence[Distillation]) -> list[Candidate]:
    """The runs' teachers that are models, each once."""
    groups, teachers = _grouped(runs, _teacher), []
    for group in groups:
        first = group[0]
        if first.teacher is None:
            continue
        gates = [run.gate for run in group if run.gate is not None and TEACHER in run.gate.variants]
        names = ",".join(Path(name).name for name in first.options.teacher.split(","))
        name = TEACHER if len(groups) == 1 else f"{TEACHER} {names}"
        about = (name, TEACHER, "", _shape(first.teacher), first.teacher.parameters, first.teacher.bytes)
        scores = (first.teacher_scores[first.scored_task.metric],)
        teachers.append(Candidate(*about, scores, **_timing(_of_one_place(gates), TEACHER)))
    return teachers


def _shape(model: ModelRecord) -> str:
    return f"{model.shape.layers} × {model.shape.width}" if model.shape.layers else f"bag × {model.shape.width}"


def _of_one_place(gates: Sequence[GateRecord]) -> list[GateRecord]:
    """Those that were measured where the first one was."""
    return [gate for gate in gates if _place(gate) == _place(gates[0])]


def _timing(gates: Sequence[GateRecord], variant: str) -> dict[str, Any]:
    """Latency, speed-up and place of a variant, over gates of one place; nothing where none has timed it."""
    times = [cases for gate in gates if variant in (cases := gate.limit_cases)]
    if not times:
        return {}
    ratios = [cases[TEACHER].p50 / cases[variant].p50 for cases in times if TEACHER in cases]
    return {
        "latency": median(cases[variant].p50 for cases in times),
        "speed_up": median(ratios) if ratios else None,
        "place": _place(gates[0]),
    }


def _place(gate: GateRecord) -> str:
    """'128 tokens, 2 threads of 4 cores, Intel Xeon': what latencies must have in common to be compared."""
    machine, case = gate.machine, next(iter(gate.limit_cases.values()), None)
    length = f"{case.length} tokens, " if case else ""
    return f"{length}{counted(machine.threads, 'thread')} of {counted(machine.cores, 'core')}, {machine.cpu}"


def _differences(runs: Sequence[Distillation], places: Sequence[str]) -> list[str]:
    """What the runs differ in that their numbers do not show."""
    notes = []
    if len(places) > 1:
        where = f"latencies were measured in {len(places)} places, and are comparable within one place only"
        notes.append(f"{where}: {'; '.join(places)}")
    if len({*map(_teacher, runs)}) > 1:
        notes.append("the runs have different teachers")
    if len({(run.scored_task.files[:1], run.record.learned_from) for run in runs}) > 1:
        notes.append("the runs learned from different training rows; all are scored on the same development set")
    return notes + version_notes(versions_of(runs))
