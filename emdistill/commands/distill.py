"""From a teacher and sentences to a student, in the order the README tells it."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from emdistill.commands._gradual import AFTER_BIRTH, be_born, birth_lesson, check_gradual
from emdistill.commands._mixture import distill_mixture
from emdistill.commands._one_task import Asked, Part
from emdistill.commands._raw_text import distill_text
from emdistill.config import RunConfig, read_by
from emdistill.console import say, say_scores, silent
from emdistill.data.mixture_file import is_mixture
from emdistill.data.read import read_data
from emdistill.options import load_config
from emdistill.processes import is_first_process
from emdistill.runs.baseline_record import baseline_names
from emdistill.runs.describe import describe_data, describe_model, outline
from emdistill.runs.distillation import as_distillation
from emdistill.runs.learn import count_steps, learn, new_record, steps_per_epoch
from emdistill.runs.open_run import Run, open_run
from emdistill.runs.reading import remember_reading
from emdistill.runs.record import RunRecord
from emdistill.runs.student_artifact import StudentArtifact, write_card, write_student
from emdistill.show.cards import student_card
from emdistill.show.run_report import write_run_report
from emdistill.show.verdict import verdict
from emdistill.students import ExtractionPlan
from emdistill.tasks.task import RAW_TEXT, TaskData
from emdistill.teachers.open_teacher import input_hashes, open_teacher
from emdistill.teachers.opened import Logits
from emdistill.training.lesson import prove
from emdistill.training.run_stages import seed_everything


def command(config: RunConfig) -> str:
    """Distil a fine-tuned teacher into a student."""
    return f"{distill(config).folder}: student/ is the model, report.html the page, run.json the record"


def distill(
    config: RunConfig | None = None,
    *,
    examples: TaskData | None = None,
    teacher_logits: Logits | None = None,
    quiet: bool = False,
    **options: Any,
) -> StudentArtifact:
    """Distil a teacher into a student and write the run folder.

    config   as load_config makes it, or its keywords: distill(teacher="teacher/", task="mrpc", data="glue/MRPC",
             student="3", output="run/", objective={"layer_ratio": 2}, training={"num_train_epochs": 3}). A RunConfig
             made by hand has none of the recipe's numbers, but transformers' defaults.
    examples   task and examples where they are read already; config.data then only names them
    teacher_logits   the teacher's logits [rows, C] on each evaluation set, where they are known already
    quiet      print nothing about the run but the bar of its training
    Raises an EmdistillError before any training where an input cannot be used; Interrupted after Ctrl-C.
    """
    config = config if config is not None else load_config(**options)
    baseline_names(config.baselines)  # a wrong name is refused now
    with silent(quiet):
        if config.task == RAW_TEXT:
            return distill_text(config)
        if is_mixture(config.data):
            return distill_mixture(config)
        return _distill(config, examples, teacher_logits)


def _distill(config: RunConfig, examples: TaskData | None, teacher_logits: Logits | None) -> StudentArtifact:
    folder = Path(config.output)
    with open_run(folder, overwrite=config.overwrite, resume=config.resume, reads=read_by(config)) as run:
        teacher, data = open_teacher(config, examples or (read_data(config) if config.data else None))
        asked = Asked(config, data, teacher)
        part, record = lesson_of(asked)
        lesson = part.lesson
        if run.is_finished(record):
            return StudentArtifact(folder)
        for line in (*(f"note: {note}" for note in data.notes), outline(record, lesson)):
            say(line)

        def note_scores(name: str, logits: Logits | None) -> None:
            if scores := asked.scores(logits):
                record.scores[name] = scores
                say(f"{name} on {next(iter(data.evaluation))}: {say_scores(scores)}")

        prove(lesson)
        started = time.perf_counter()
        if teacher_logits is None:
            length = config.max_length
            teacher_logits = teacher.logits(data.evaluation, max_length=length, description="teacher on dev")
            for name, logits in teacher.logits_of_each.items():
                note_scores(f"teacher {name}", logits)
        note_scores("teacher", teacher_logits)
        record.timings["teacher_evaluation_seconds"] = time.perf_counter() - started
        asked.check_teacher(record.scores.get("teacher", {}))

        run.begin(record, keep=("teacher_cache",) if config.unlabelled else ())  # the tokens of the text stand there
        if lesson.birth is not None:
            be_born(run, teacher, lesson)
        part.fit_projections()
        with run.timed("teacher_cache_seconds"):
            sources = teacher.stage_sources(lesson)
        learn(run, lesson, sources)
        student_logits = part.predict("student on dev")
        note_scores("student", student_logits)
        if is_first_process():
            _leave_behind(run, part, teacher_logits, student_logits)
        run.finish()
    return StudentArtifact(folder)


def lesson_of(asked: Asked) -> tuple[Part, RunRecord]:
    """The student as it is born, what it learns from this teacher, and the record of it."""
    config, data, teacher, task = asked.config, asked.data, asked.teacher, asked.task
    gradual = config.student_birth == "gradual"
    if gradual:
        check_gradual(config)
    plans: list[ExtractionPlan] = []
    student, tokenizer = teacher.student(
        task,
        seed=config.seed,
        birth="importance" if gradual else config.student_birth,
        sample=asked.sample,
        record=plans.append,
        embedding_rank=config.embedding_rank,
    )
    seed_everything(config.seed)
    part = asked.lesson(student, tokenizer, share=AFTER_BIRTH if gradual else 1.0)
    if gradual:
        birth = birth_lesson(config, teacher, task, part.lesson, plans[0].layers)
        part = replace(part, lesson=replace(part.lesson, birth=birth))
    lesson, splits = part.lesson, part.splits
    for each in (lesson.birth, lesson):
        if each is not None and splits.unlabelled is not None:
            count_steps(each.stages, each.arguments, splits.batches)
    record = new_record(
        config,
        lesson,
        hashes=input_hashes(config, teacher, data),
        task=describe_data(data),
        selection=splits.selection,
        rows=splits.rows,
        unlabelled=splits.unlabelled,
        steps_per_epoch=steps_per_epoch(lesson.arguments[0], splits.batches),
        texts_cut_at_max_length=splits.cut,
        share_of_padding=splits.padding,
        teacher=teacher.describe(),
        teachers=teacher.describe_each(),
        student=describe_model(student, [{"layers": plan.layers, "heads": plan.heads} for plan in plans]),
    )
    return part, record


def _leave_behind(run: Run, part: Part, teacher: Logits | None, student: Logits) -> None:
    """Write the run's files, the student first; then measure what a user could take instead; the page comes last."""
    folder, lesson, data = run.folder, part.lesson, part.asked.data
    remember_reading(lesson.student, lesson.tokenizer, data.task, part.asked.config.max_length)
    described = as_distillation(folder, run.record)
    write_student(folder, lesson.student, lesson.tokenizer, student_card(described))
    part.write_answers(folder, teacher, student)
    run.save()
    again = partial(distill, examples=data, teacher_logits=teacher, quiet=True)
    beside = part.measure_baselines(run, folder, teacher, student, again=again)
    if beside is not None:
        write_card(folder, student_card(described, verdict(beside)))
    write_run_report(folder)
    if beside is not None:
        say(verdict(beside))
