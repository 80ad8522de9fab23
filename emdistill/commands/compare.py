"""Methods against each other: equal budget, equal births, paired seeds; runs that are finished are not done again."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from filelock import FileLock, Timeout

from emdistill.commands._entries import entry_configs, find_baseline, read_entries, read_seeds, with_labels_alone
from emdistill.commands._mixture import mixture_lesson, prove_mixture
from emdistill.commands._mixture_tasks import check_options, open_mixture, under
from emdistill.commands._one_task import Asked
from emdistill.commands.distill import distill, lesson_of
from emdistill.config import LABELS_ALONE, CompareConfig, RunConfig, as_command, config_dict, read_by
from emdistill.console import conclude, say
from emdistill.data.mixture_file import is_mixture, read_mixture
from emdistill.data.read import read_data
from emdistill.errors import BusyError, ConfigError, EmdistillError, Interrupted, ModelError
from emdistill.models.encoder import Classifier
from emdistill.options import load_options
from emdistill.runs.answers import PREDICTIONS, teacher_logits
from emdistill.runs.baseline_record import BASELINES, OWN_INT8, baseline_names, read_baselines, write_baselines
from emdistill.runs.comparison import RUNS, Comparison, read_comparison, run_place
from emdistill.runs.distillation import Distillation, read_distillation
from emdistill.runs.open_run import OWN_FILES, check_same_run, clear, damaged_file
from emdistill.runs.places import check_folder, check_not_read
from emdistill.runs.record import RUN_FILE, RunRecord, read_run, write_run
from emdistill.runs.student_artifact import StudentArtifact
from emdistill.ship.baselines import Setting, measure_baselines
from emdistill.ship.bench import Contender, run_contender
from emdistill.show.comparison_report import comparison_notes, differences_table, tasks_table, write_comparison
from emdistill.show.page import share_script
from emdistill.show.run_report import write_run_report
from emdistill.show.verdict import baseline_notes, baselines_table, verdict
from emdistill.tasks.task import RAW_TEXT, TaskData
from emdistill.teachers.open_teacher import input_hashes, open_teacher
from emdistill.teachers.opened import Logits, OpenTeacher
from emdistill.training.lesson import prove

WAIT = 2.0  # seconds between looks at what another process is running

State = Literal["new", "begun", "finished"]


@dataclass(frozen=True)
class PlannedRun:
    """One entry with one seed."""

    entry: str
    seed: int
    config: RunConfig
    hashes: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.entry} seed {self.seed}"


def command(config: CompareConfig) -> str:
    """Distil by several methods at equal budget, over several seeds, and say what the difference is."""
    compare(config)
    return f"{config.output}: report.html is the page, comparison.json has its numbers"


def compare(config: CompareConfig | None = None, **options: Any) -> Comparison:
    """Distil with every method over the same seeds, and say what the paired differences to a baseline show.

    All runs have the same teacher, data, student and budget; with one seed, all entries have the same student at birth
    and read the data in the same order. Runs stand in OUTPUT/runs/ENTRY-SEED; those that are finished are not done
    again, interrupted ones are gone on with. Several processes may work on one comparison.
    Raises ConfigError and OutputError before any training; after Ctrl-C writes what there is and raises Interrupted.

    config   a CompareConfig, or its fields as keywords: compare(methods="bert-emd,soft-targets", teacher=..., ...)
    """
    config = config if config is not None else load_options(CompareConfig, options.pop("config", None), options)
    beside = baseline_names(config.baselines)
    entries = read_entries(config.methods)
    if "labels" in beside:
        entries = with_labels_alone(entries)
    names = [entry.name for entry in entries]
    seeds = read_seeds(config.seeds)
    baseline = find_baseline(config.baseline, entries)
    configs = entry_configs(entries, config)
    folder = Path(config.output)
    check_folder(folder, RUNS, "comparison")
    if configs[0].task == RAW_TEXT:
        raise ConfigError(
            f"--task {RAW_TEXT} has no score to compare by; distil with each method, then compare on a task"
        )
    subject = _open(configs[0])
    for note in subject.notes:
        say(note)
    plan = [
        PlannedRun(
            name,
            seed,
            replace(run_config, seed=seed, output=str(run_place(folder, name, seed))),
            subject.hashes(run_config),
        )
        for seed in seeds  # seed by seed, so that a comparison that is stopped has whole pairs
        for name, run_config in zip(names, configs, strict=True)
    ]
    for run in plan:
        check_not_read(Path(run.config.output), OWN_FILES, read_by(config))
    to_do = plan if config.overwrite else [run for run in plan if state_of(run) != "finished"]
    _prove(to_do, subject)
    logits = subject.score_teacher() if to_do else None

    (folder / RUNS).mkdir(parents=True, exist_ok=True)
    if config.overwrite:
        _begin_anew(plan)
    share_script(folder)  # before the runs' pages are written, which share it
    try:
        _run_all(plan, subject.data, logits)
        (folder / BASELINES).unlink(missing_ok=True)
        if beside and subject.data is not None and subject.teacher is not None:
            _measure(folder, beside, plan, subject.data, subject.teacher)
        for run in plan:  # a page shows the student of the labels alone beside it, which may have come later
            write_run_report(Path(run.config.output))
    except KeyboardInterrupt:
        raise Interrupted("stopped between two steps") from None
    finally:
        comparison = read_comparison(folder, names, seeds, baseline)
        _report(folder, comparison, as_command("compare", config_dict(config)))
    assert comparison is not None  # every run is finished here
    return comparison


@dataclass(frozen=True)
class Subject:
    """What all entries learn.

    hashes   of all that the run of a configuration reads
    prove    raises what a run of the configuration would raise before its first step
    score_teacher   gives the logits of the one teacher, which no run then asks for again; raises TeacherError for a
             teacher near chance
    teacher, data   of one task; of several each run opens its own
    """

    notes: Sequence[str]
    hashes: Callable[[RunConfig], Mapping[str, str]]
    prove: Callable[[RunConfig], None]
    score_teacher: Callable[[], Logits | None]
    teacher: OpenTeacher | None = None
    data: TaskData | None = None


def _open(config: RunConfig) -> Subject:
    if is_mixture(config.data):
        return _several_tasks(config)
    teacher, data = open_teacher(config, read_data(config) if config.data else None)

    def score_teacher() -> Logits | None:
        logits = Asked(config, data, teacher).score_teacher("teacher on dev")
        return None if teacher.logits_of_each else logits  # of several, the first run notes the scores of each

    return Subject(
        [f"note: {note}" for note in data.notes],
        lambda entry: input_hashes(entry, teacher, data),
        lambda entry: prove(lesson_of(Asked(_without_text(entry), data, teacher))[0].lesson),
        score_teacher,
        teacher,
        data,
    )


def _several_tasks(config: RunConfig) -> Subject:
    check_options(config)
    opened = open_mixture(config, read_mixture(Path(config.data)))

    def prove_entry(entry: RunConfig) -> None:
        tasks = [replace(asked, config=_without_text(under(entry, asked))) for asked in opened.tasks]
        parts, lesson, _ = mixture_lesson(entry, replace(opened, tasks=tasks))
        prove_mixture(parts, lesson)

    def score_teachers() -> None:
        for asked in opened.tasks if config.check_teacher else ():
            asked.score_teacher(f"teacher of {asked.name} on dev")

    measured = f"note: baselines of each task are measured by a run of its own: emdistill distill --data {config.data}"
    return Subject([*opened.notes, measured], opened.hashes, prove_entry, score_teachers)


def _without_text(config: RunConfig) -> RunConfig:
    """The same without text without labels: reading it takes long, and its tokens are written into the comparison."""
    return replace(config, unlabelled=None, unlabelled_rows=None, labelled_share=None)


def _prove(plan: Iterable[PlannedRun], subject: Subject) -> None:
    """Prove that every entry can be trained, before anything is removed and before hours of training."""
    for run in {run.entry: run for run in plan}.values():
        try:
            subject.prove(run.config)
        except (ConfigError, ModelError) as error:
            raise type(error)(f"{run.entry}: {error}") from None


def state_of(run: PlannedRun) -> State:
    """What stands in a run's folder: nothing, this run begun, or finished; raises OutputError for another one."""
    folder = Path(run.config.output)
    if not (folder / RUN_FILE).exists():
        return "new"
    before = read_run(folder)
    check_same_run(folder, before, _record(run))
    return "finished" if before.is_finished and not damaged_file(folder, before) else "begun"


def _record(run: PlannedRun) -> RunRecord:
    return RunRecord(config=config_dict(run.config), seed=run.seed, hashes=dict(run.hashes))


def _begin_anew(plan: Sequence[PlannedRun]) -> None:
    """Remove what stands of all planned runs: each is begun, and nothing is done, so that the command may be stopped.

    Raises BusyError where another process is at one of them.
    """
    with ExitStack() as held:
        for run in plan:
            try:
                held.enter_context(FileLock(f"{run.config.output}.lock", timeout=0))
            except Timeout:
                raise BusyError(
                    f"another process is at {run}; leave out --overwrite to go on with it together"
                ) from None
        for run in plan:
            folder = Path(run.config.output)
            if (folder / RUN_FILE).exists():
                clear(folder, OWN_FILES)
                write_run(folder, _record(run))


def _run_all(plan: Sequence[PlannedRun], data: TaskData | None, logits: Logits | None) -> None:
    """Finish every run; a run that another process is at has its turn later.

    logits   the teacher's, where they are known, else those of the first run; all have one teacher and one dev
    """
    left, done, waits = list(plan), 0, False
    while left:
        elsewhere: list[PlannedRun] = []
        for run in left:
            try:
                with FileLock(f"{run.config.output}.lock", timeout=0):
                    outcome = _finish(run, data, logits)
                logits = logits or teacher_logits(Path(run.config.output) / PREDICTIONS)
            except Timeout:
                elsewhere.append(run)
                continue
            except EmdistillError:
                say(f"{run} could not be finished")
                raise
            done += 1
            say(f"{run}: {outcome} ({done} of {len(plan)})")
        if len(elsewhere) == len(left):  # nothing is left but to wait
            if not waits:
                say(f"another process is at {', '.join(map(str, elsewhere))}; waiting for it")
            waits = True
            time.sleep(WAIT)
        left = elsewhere


def _measure(
    folder: Path, names: Sequence[str], plan: Sequence[PlannedRun], data: TaskData, teacher: OpenTeacher
) -> None:
    """Measure the baselines once; write baselines.json of every run, and of the comparison for its best entry."""
    config = plan[0].config
    task, length = data.task, config.max_length
    logits = teacher_logits(Path(config.output) / PREDICTIONS)
    if logits is None and teacher.classifier:
        say("no baselines: the runs were made by an earlier version, which kept no predictions")
        return
    entries: dict[str, list[Distillation]] = {}
    for run in plan:
        entries.setdefault(run.entry, []).append(read_distillation(Path(run.config.output)))

    def student(runs: Sequence[Distillation]) -> Contender:
        seconds = fmean(run.training_seconds or 0.0 for run in runs)
        return run_contender([run.folder for run in runs], max_length=length, seconds=seconds)

    labels = {entry for entry, runs in entries.items() if runs[0].options.method == LABELS_ALONE}
    best = max(
        entries.keys() - labels or labels,
        key=lambda entry: fmean(run.student_scores[task.metrics[0]] for run in entries[entry]),
    )
    first = student(entries[best])
    there = {"labels": student(entries[min(labels)])} if "labels" in names else {}
    place = entries[best][0].folder
    shown = Classifier(str(place), *StudentArtifact(place).load())  # the one of several seeds that is timed
    bench = measure_baselines(names, Setting(config, data, teacher, shown), first, logits, there=there)
    write_baselines(folder, bench.record(first, f"{best} student"))
    bench.baselines.pop(OWN_INT8, None)  # of that one run
    for runs in entries.values():
        for one in runs:
            write_baselines(one.folder, bench.record(student([one])))


def _finish(run: PlannedRun, data: TaskData | None, logits: Logits | None) -> str:
    """Run it to its end, from wherever it is: 'accuracy 0.7475, 31 s'."""
    state = state_of(run)
    if state != "finished":
        config = replace(run.config, resume=state == "begun", overwrite=False)
        try:
            distill(config, examples=data, teacher_logits=logits, quiet=True)
        except Interrupted as stop:
            raise Interrupted(f"{run}: {stop}") from None
    result = read_distillation(Path(run.config.output))
    assert result.task is not None  # raw text is not compared
    outcome = f"{result.task.metric} {result.student_scores[result.task.metric]:.4f}, {result.training_seconds:.0f} s"
    return f"{outcome} (there already)" if state == "finished" else outcome


def _report(folder: Path, comparison: Comparison | None, command: str) -> None:
    if comparison is None:
        say("no run is finished yet, so there is nothing to compare")
        return
    beside = read_baselines(folder)
    write_comparison(folder, comparison, beside, command=command)
    tables = [differences_table(comparison, beside), *([tasks_table(comparison)] if comparison.tasks else [])]
    conclude(tables, comparison_notes(comparison))
    if beside:
        conclude([baselines_table(beside).without_empty_columns()], baseline_notes(beside), verdict(beside))
