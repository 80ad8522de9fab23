"""What a run of several tasks scores and leaves behind: of each task answers and baselines, as of one alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emdistill.commands._baselines import Setting, measure_baselines
from emdistill.commands._bench import torch_contender
from emdistill.commands._mixture_student import Part
from emdistill.console import print_table, say, say_scores
from emdistill.models.multi_task import MultiTaskModel
from emdistill.processes import is_first_process
from emdistill.runs.answers import PREDICTIONS, write_predictions
from emdistill.runs.baseline_record import TITLES, BaselineRecord, baseline_names, write_baselines
from emdistill.runs.distillation import as_distillation, task_folder
from emdistill.runs.open_run import Run
from emdistill.runs.record import RunRecord
from emdistill.runs.student_artifact import write_student
from emdistill.ship.subject import Classifier
from emdistill.show.cards import mixture_card
from emdistill.show.run_report import write_run_report
from emdistill.show.verdict import tasks_table, verdict
from emdistill.tasks.mixture import joint_scores
from emdistill.training.evaluate import predict_sets, score_sets

Logits = Mapping[str, np.ndarray]


def score_teachers(record: RunRecord, parts: Sequence[Part], *, quiet: bool) -> dict[str, Logits | None]:
    """The teachers' logits, and scores, each on its own task; raises TeacherError for one near chance."""
    every: dict[str, Logits | None] = {}
    scores: dict[str, dict[str, float]] = {}
    for part in parts:
        asked = part.asked
        description = "" if quiet else f"teacher of {asked.name} on dev"
        every[asked.name] = logits = asked.teacher.logits(
            asked.data.evaluation, max_length=asked.config.max_length, description=description
        )
        own = {} if logits is None else score_sets(asked.task, logits, asked.data.evaluation)
        if asked.config.check_teacher:
            asked.teacher.check_score(own, asked.task, next(iter(asked.data.evaluation.values())))
        if own:
            scores[asked.name] = own
    if len(scores) == len(parts):
        record.scores["teacher"] = joint_scores(scores, _metrics(parts))
        say(f"teachers on dev: {say_scores(record.scores['teacher'])}", quiet=quiet)
    return every


def _metrics(parts: Sequence[Part]) -> dict[str, str]:
    return {part.asked.name: part.asked.task.metrics[0] for part in parts}


def leave_behind(
    run: Run,
    student: MultiTaskModel,
    tokenizer: Any,
    parts: Sequence[Part],
    teachers: Mapping[str, Logits | None],
    *,
    quiet: bool,
) -> None:
    """Score every head on its task, and write the run's files; then measure what could be taken instead.

    teachers  the logits of each task's teacher, by task
    """
    every, scores = {}, {}
    for part in parts:
        asked = part.asked
        every[asked.name] = predict_sets(
            student.of(asked.name), tokenizer, asked.data.evaluation,
            max_length=asked.config.max_length, description="" if quiet else f"student on {asked.name}",
        )  # fmt: skip
        scores[asked.name] = score_sets(asked.task, every[asked.name], asked.data.evaluation)
    run.record.scores["student"] = joint_scores(scores, _metrics(parts))
    say(f"student on dev: {say_scores(run.record.scores['student'])}", quiet=quiet)
    if not is_first_process():
        return
    tokenizer.model_max_length = parts[0].asked.config.max_length
    write_student(run.folder, student, tokenizer, mixture_card(as_distillation(run.folder, run.record)))
    for part in parts:
        name = part.asked.name
        place = task_folder(run.folder, name)
        place.mkdir(parents=True, exist_ok=True)
        write_predictions(place / PREDICTIONS, part.asked.data.evaluation, teachers[name], every[name])
    run.save()
    if names := baseline_names(parts[0].asked.config.baselines):
        records = {}
        for part in parts:
            name = part.asked.name
            head = Classifier(str(run.folder), student.of(name), tokenizer)
            records[name] = _measured(run, names, part, head, teachers[name], every[name])
        _say_baselines(records, quiet=quiet)
    write_run_report(run.folder)


def _measured(
    run: Run, names: Sequence[str], part: Part, head: Classifier, teacher: Logits | None, student: Logits
) -> BaselineRecord:
    """baselines.json of one task."""
    asked = part.asked
    seconds = run.record.timings["training_seconds"]
    contender = torch_contender(head, [student], max_length=asked.config.max_length, seconds=seconds)
    setting = Setting(asked.config, asked.data, asked.teacher, head)
    record = measure_baselines(names, setting, contender, teacher, quiet=True).record(contender)
    write_baselines(task_folder(run.folder, asked.name), record)
    return record


def _say_baselines(records: Mapping[str, BaselineRecord], *, quiet: bool) -> None:
    """The table of all tasks, and for each one sentence."""
    if quiet:
        return
    print_table(tasks_table(records))
    for task, record in records.items():
        say(f"{task}: {verdict(record)}")
        for name, row in record.baselines.items():
            say(f"{task}: {TITLES[name]}: not computed: {row.problem}", quiet=not row.problem)
