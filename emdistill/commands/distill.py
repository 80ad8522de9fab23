"""From a teacher and sentences to a student, in the order the README tells it."""

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from emdistill.commands._baselines import Setting, measure_baselines
from emdistill.commands._bench import torch_contender
from emdistill.commands._gradual import after_birth, be_born, birth_lesson, check_gradual
from emdistill.commands._mixture import distill_mixture
from emdistill.commands._open_teacher import input_hashes, open_teacher
from emdistill.commands._raw_text import distill_text
from emdistill.commands._several_teachers import teacher_names
from emdistill.commands._teachers import OpenTeacher
from emdistill.config import RunConfig, config_dict, student_recipe
from emdistill.console import say, say_scores
from emdistill.data.batches import note_cut
from emdistill.data.mixture_file import is_mixture
from emdistill.data.read import read_data
from emdistill.data.unlabelled import texts_kept
from emdistill.models.encoder import encoder_shape
from emdistill.models.inputs import longest_text
from emdistill.options import load_config
from emdistill.processes import is_first_process
from emdistill.runs.answers import PREDICTIONS, write_predictions
from emdistill.runs.baseline_record import baseline_names, write_baselines
from emdistill.runs.describe import (
    describe_arithmetic,
    describe_data,
    describe_model,
    objective_and_sizes,
    versions,
)
from emdistill.runs.distillation import as_distillation
from emdistill.runs.learn import count_steps, learn, prepare, rows_per_step, steps_per_epoch
from emdistill.runs.open_run import Run, open_run
from emdistill.runs.reading import remember_reading
from emdistill.runs.record import RunRecord
from emdistill.runs.student_artifact import StudentArtifact, write_card, write_student
from emdistill.ship.subject import Classifier
from emdistill.show.cards import student_card
from emdistill.show.run_report import write_run_report
from emdistill.show.verdict import verdict
from emdistill.states import EncoderShape
from emdistill.students import ExtractionPlan
from emdistill.tasks.task import RAW_TEXT, TaskData
from emdistill.training.evaluate import Reading, predict_sets, score_sets
from emdistill.training.lesson import Lesson, prove
from emdistill.training.projections import fit_projections
from emdistill.training.run_stages import seed_everything
from emdistill.training.splits import sample_batches

Logits = Mapping[str, np.ndarray]


def command(config: RunConfig) -> str:
    """Distil a fine-tuned teacher into a student."""
    return f"{distill(config).folder}: student/ is the model, run.json the record"


def distill(
    config: RunConfig | None = None,
    *,
    examples: TaskData | None = None,
    teacher_logits: Logits | None = None,
    quiet: bool = False,
    **options: Any,
) -> StudentArtifact:
    """Distil a teacher into a student and write the run folder.

    config   a RunConfig, or its fields as keywords: distill(teacher="teacher/", task="mrpc", data="glue/MRPC",
             student="3", output="run/", objective={"layer_ratio": 2}, training={"num_train_epochs": 3})
    examples   task and examples where they are read already; config.data then only names them
    teacher_logits   the teacher's logits [rows, C] on each evaluation set, where they are known already
    quiet      print nothing about the run but the bar of its training
    Raises an EmdistillError before any training where an input cannot be used; Interrupted after Ctrl-C.
    """
    config = config if config is not None else load_config(**options)
    baseline_names(config.baselines)  # a wrong name is refused now
    if config.task == RAW_TEXT:
        return distill_text(config, quiet=quiet)
    if is_mixture(config.data):
        return distill_mixture(config, quiet=quiet)
    folder = Path(config.output)
    reads = [config.data, config.dev, config.student, config.student_source, config.augmented]
    reads += [*teacher_names(config.teacher), *(config.unlabelled or "").split(",")]
    with open_run(folder, overwrite=config.overwrite, resume=config.resume, reads=reads) as run:
        labelled = examples or (read_data(config) if config.data else None)
        teacher, data = open_teacher(config, labelled)
        sample = partial(
            sample_batches, data,
            select=config.select, max_length=config.max_length, rows=config.rows,
        )  # fmt: skip
        lesson, record = _lesson(config, data, teacher, sample)
        if run.is_finished(record):
            say(f"{folder} is finished already; nothing to do", quiet=quiet)
            return StudentArtifact(folder)
        for line in (*(f"note: {note}" for note in data.notes), _outline(record, lesson)):
            say(line, quiet=quiet)

        def reading(description: str) -> Reading:
            return {"max_length": config.max_length, "description": "" if quiet else description}

        def note_scores(name: str, logits: Logits) -> None:
            record.scores[name] = score_sets(data.task, logits, data.evaluation)
            say(f"{name} on {next(iter(data.evaluation))}: {say_scores(record.scores[name])}", quiet=quiet)

        prove(lesson)
        started = time.perf_counter()
        if teacher_logits is None:
            teacher_logits = teacher.logits(data.evaluation, **reading("teacher on dev"))
            for name, logits in teacher.logits_of_each.items():
                note_scores(f"teacher {name}", logits)
        if teacher_logits is not None:
            note_scores("teacher", teacher_logits)
        record.timings["teacher_evaluation_seconds"] = time.perf_counter() - started
        if config.check_teacher:
            teacher.check_score(record.scores.get("teacher", {}), data.task, next(iter(data.evaluation.values())))

        run.begin(record, keep=("teacher_cache",) if config.unlabelled else ())  # the tokens of the text stand there
        if lesson.birth is not None:
            be_born(run, teacher, lesson)
        batches = partial(sample, lesson.tokenizer, lesson.teacher_tokenizer)
        fit_projections(lesson.stages, lesson.student, teacher.source, batches)
        with run.timed("teacher_cache_seconds"):
            sources = teacher.stage_sources(lesson)
        learn(run, lesson, sources)
        student_logits = predict_sets(lesson.student, lesson.tokenizer, data.evaluation, **reading("student on dev"))
        note_scores("student", student_logits)
        if is_first_process():
            again = partial(distill, examples=data, teacher_logits=teacher_logits, quiet=True)
            own = Classifier(str(folder), lesson.student, lesson.tokenizer)
            setting = Setting(config, data, teacher, own, again)
            _leave_behind(run, setting, lesson, teacher_logits, student_logits, quiet=quiet)
        run.finish()
    return StudentArtifact(folder)


def _lesson(config: RunConfig, data: TaskData, teacher: OpenTeacher, sample: Any) -> tuple[Lesson, RunRecord]:
    """The student as it is born, what it learns from this teacher, and the record of it."""
    task, gradual = data.task, config.student_birth == "gradual"
    if gradual:
        check_gradual(config)
    augmented = None if config.augmented is None else teacher.augmented(Path(config.augmented), data)
    plans: list[ExtractionPlan] = []
    student, tokenizer = teacher.student(
        task,
        seed=config.seed,
        birth="importance" if gradual else config.student_birth,
        sample=sample,
        record=plans.append,
        embedding_rank=config.embedding_rank,
    )
    seed_everything(config.seed)
    stages = teacher.stages(config, encoder_shape(student), task)
    stages = after_birth(stages) if gradual else stages
    own_tokenizer = teacher.own_tokenizer(stages, tokenizer)
    text = teacher.unlabelled(config, task)
    arguments, splits = prepare(config, data, tokenizer, stages, augmented, own_tokenizer, text, config.labelled_share)
    lesson = Lesson(
        student, tokenizer, stages, arguments, splits.train, teacher.source, splits.choose_on, splits.score,
        labelled=None if text is None else splits.labelled, teacher_tokenizer=own_tokenizer,
    )  # fmt: skip
    if gradual:
        lesson = replace(lesson, birth=birth_lesson(config, teacher, task, lesson, plans[0].layers))
    for each in (lesson.birth, lesson):
        if each is not None and text is not None:
            count_steps(each.stages, each.arguments, splits.batches)
    record = RunRecord(
        config=config_dict(config),
        seed=config.seed,
        versions=versions(),
        hashes=input_hashes(config, teacher, data),
        task=describe_data(data),
        selection=splits.selection,
        rows=splits.rows,
        unlabelled=splits.unlabelled,
        steps_per_epoch=steps_per_epoch(arguments[0], splits.batches),
        rows_per_step=rows_per_step(stages, arguments),
        texts_cut_at_max_length=splits.cut,
        share_of_padding=splits.padding,
        arithmetic=describe_arithmetic(arguments[0]),
        objective={stage.name: str(stage.objective) for stage in lesson.all_stages},
        teacher=teacher.describe(),
        teachers=teacher.describe_each(),
        student=describe_model(student, [{"layers": plan.layers, "heads": plan.heads} for plan in plans]),
    )
    return lesson, record


def _leave_behind(
    run: Run, setting: Setting, lesson: Lesson, teacher_logits: Logits | None, student_logits: Logits, *, quiet: bool
) -> None:
    """Write the run's files, the student first; then measure what a user could take instead; the page comes last."""
    config, folder = setting.config, run.folder
    remember_reading(lesson.student, lesson.tokenizer, setting.data.task, config.max_length)
    described = as_distillation(folder, run.record)
    write_student(folder, lesson.student, lesson.tokenizer, student_card(described))
    write_predictions(folder / PREDICTIONS, setting.data.evaluation, teacher_logits, student_logits)
    run.save()
    judgement = ""
    if baselines := baseline_names(config.baselines):
        assert setting.student is not None  # it has just been trained
        seconds = run.record.timings["training_seconds"]
        student = torch_contender(setting.student, [student_logits], max_length=config.max_length, seconds=seconds)
        beside = measure_baselines(baselines, setting, student, teacher_logits, quiet=quiet).record(student)
        write_baselines(folder, beside)
        judgement = verdict(beside)
        write_card(folder, student_card(described, judgement))
    write_run_report(folder)
    say(judgement, quiet=quiet or not judgement)


def student_shape(teacher: OpenTeacher, data: TaskData) -> EncoderShape:
    """The shape that the student will have: for it a method can be composed before any training."""
    return encoder_shape(teacher.student(data.task, birth="fresh")[0])


def _outline(record: RunRecord, lesson: Lesson) -> str:
    """What is learned, from how many rows in how many steps, as a run says it before it begins."""
    assert record.task is not None
    held_out = f"; {record.task.held_out}" if record.task.held_out else ""
    lines = [
        f"{record.task.name}: {record.learned_from} to learn from, {record.steps_per_epoch:,} steps an epoch"
        f"{held_out}; {record.selection}"
    ]
    if record.unlabelled:
        lines.append(texts_kept(record.unlabelled))
        lines += [
            f"stage {stage.name} has no teacher: it learns from the {len(lesson.rows_of(stage)):,} labelled rows "
            f"alone, {settings.max_steps:,} steps"
            for stage, settings in zip(lesson.stages, lesson.arguments, strict=True)
            if not stage.objective.taught
        ]
    if cut := record.texts_cut_at_max_length:
        lines.append(note_cut(cut, len(lesson.train), record.config["max_length"], longest_text(lesson.student)))
    lines.append(f"{record.share_of_padding:.1%} of the positions in its batches are padding")
    if own := student_recipe(record.config["student"]):
        numbers = ", ".join(f"{name.removeprefix('training.')} {value}" for name, value in own.items())
        lines.append(f"a {record.config['student']} is learned by, where nothing else is said: {numbers}")
    lines.append(objective_and_sizes(record))
    if lesson.teacher_tokenizer is not None:
        lines.append("teacher and student read the texts in tokens of their own; states meet at words")
    return "\n".join(lines)
