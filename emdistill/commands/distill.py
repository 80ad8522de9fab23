"""From a teacher and sentences to a student, in the order the README tells it."""

import hashlib
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from emdistill.commands._raw_text import distill_text
from emdistill.commands._text_alone import answered_text
from emdistill.config import RunConfig, config_dict
from emdistill.console import say, say_scores
from emdistill.data.augmentation import read_augmented
from emdistill.data.files import Columns
from emdistill.data.labels import as_the_model_counts
from emdistill.data.read import read_data
from emdistill.data.unlabelled import UnlabelledText, texts_kept, unlabelled_text
from emdistill.errors import ConfigError
from emdistill.methods import compose_stages
from emdistill.models.encoder import encoder_shape, load_classifier, load_tokenizer
from emdistill.models.teacher import Teacher, check_above_chance
from emdistill.options import load_config
from emdistill.processes import is_first_process
from emdistill.runs.answers import PREDICTIONS, write_predictions
from emdistill.runs.describe import (
    describe_arithmetic,
    describe_data,
    describe_model,
    file_hashes,
    objective_and_sizes,
    versions,
)
from emdistill.runs.distillation import as_distillation
from emdistill.runs.learn import learn, prepare, steps_per_epoch
from emdistill.runs.open_run import open_run
from emdistill.runs.reading import remember_reading
from emdistill.runs.record import RunRecord
from emdistill.runs.student_artifact import StudentArtifact, write_student
from emdistill.show.cards import student_card
from emdistill.show.run_report import write_run_report
from emdistill.states import EncoderShape
from emdistill.students import ExtractionPlan, make_student
from emdistill.tasks.task import RAW_TEXT, Task, TaskData
from emdistill.training.evaluate import Reading, predict_sets, score_sets
from emdistill.training.lesson import Lesson, prove
from emdistill.training.projections import fit_projections
from emdistill.training.run_stages import seed_everything
from emdistill.training.splits import check_max_length, sample_batches
from emdistill.training.stage_teachers import stage_teachers


def command(config: RunConfig) -> str:
    """Distil a fine-tuned teacher into a student."""
    return f"{distill(config).folder}: student/ is the model, run.json the record"


def distill(
    config: RunConfig | None = None,
    *,
    examples: TaskData | None = None,
    teacher_logits: Mapping[str, np.ndarray] | None = None,
    quiet: bool = False,
    **options: Any,
) -> StudentArtifact:
    """Distil a teacher into a student and write the run folder.

    config   a RunConfig, or its fields as keywords: distill(teacher="teacher/", task="mrpc", data="glue/MRPC",
             student="3", output="run/", objective={"beta": 10}, training={"num_train_epochs": 3})
    examples   task and examples where they are read already; config.data then only names them
    teacher_logits   the teacher's logits [rows, C] on each evaluation set, where they are known already
    quiet      print nothing about the run but the bar of its training
    Raises an EmdistillError before any training where an input cannot be used; Interrupted after Ctrl-C.
    """
    config = config if config is not None else load_config(**options)
    if config.task == RAW_TEXT:
        return distill_text(config, quiet=quiet)
    folder = Path(config.output)
    reads = [config.teacher, config.data, config.dev, config.student, config.student_source, config.augmented]
    reads += (config.unlabelled or "").split(",")
    with open_run(folder, overwrite=config.overwrite, resume=config.resume, reads=reads) as run:
        data = examples or (read_data(config) if config.data else None)
        teacher = Teacher(load_classifier(config.teacher))
        data = as_the_model_counts(data or answered_text(config, teacher), teacher.labels, teacher.kind)
        task, teacher_tokenizer = data.task, load_tokenizer(config.teacher)
        sample = partial(
            sample_batches, data, teacher_tokenizer,
            select=config.select, max_length=config.max_length, rows=config.rows,
        )  # fmt: skip
        lesson, record = _lesson(config, data, teacher, sample)
        if run.is_finished(record):
            say(f"{folder} is finished already; nothing to do", quiet=quiet)
            return StudentArtifact(folder)
        for note in data.notes:
            say(f"note: {note}", quiet=quiet)
        say(_outline(record, lesson), quiet=quiet)

        def logits_on_dev(model: Any, tokenizer: Any, description: str) -> dict[str, np.ndarray]:
            reading: Reading = {"max_length": config.max_length, "description": "" if quiet else description}
            return predict_sets(model, tokenizer, data.evaluation, **reading)

        def note_scores(name: str, logits: Mapping[str, np.ndarray]) -> None:
            record.scores[name] = score_sets(task, logits, data.evaluation)
            say(f"{name} on {next(iter(data.evaluation))}: {say_scores(record.scores[name])}", quiet=quiet)

        prove(lesson)
        started = time.perf_counter()
        if teacher_logits is None:
            teacher_logits = logits_on_dev(teacher.model, teacher_tokenizer, "teacher on dev")
        note_scores("teacher", teacher_logits)
        record.timings["teacher_evaluation_seconds"] = time.perf_counter() - started
        if config.check_teacher:
            dev = next(iter(data.evaluation.values()))
            metric = task.metrics[0]
            check_above_chance(record.scores["teacher"][metric], task.chance(np.asarray(dev["label"])), metric)

        run.begin(record, keep=("teacher_cache",) if config.unlabelled else ())  # the tokens of the text stand there
        fit_projections(lesson.stages, lesson.student, teacher, sample)
        teacher.dtype = lesson.arguments[0].teacher_dtype
        with run.timed("teacher_cache_seconds"):
            teachers = stage_teachers(
                lesson.stages,
                teacher,
                lesson.train,
                lesson.tokenizer,
                cache=config.teacher_cache,
                folder=_cache_folder(config),
            )
        learn(run, lesson, teachers)
        student_logits = logits_on_dev(lesson.student, lesson.tokenizer, "student on dev")
        note_scores("student", student_logits)
        if is_first_process():
            card = student_card(as_distillation(folder, record))
            remember_reading(lesson.student, lesson.tokenizer, task, config.max_length)
            write_student(folder, lesson.student, lesson.tokenizer, card)
            write_predictions(folder / PREDICTIONS, data.evaluation, teacher_logits, student_logits)
            run.save()
            write_run_report(folder)
        run.finish()
    return StudentArtifact(folder)


def _lesson(config: RunConfig, data: TaskData, teacher: Teacher, sample: Any) -> tuple[Lesson, RunRecord]:
    """The student as it is born, what it learns from this teacher, and the record of it."""
    task = data.task
    augmented = None
    if config.augmented is not None:
        augmented = read_augmented(Path(config.augmented), data, teacher=teacher.fingerprint)
    plans: list[ExtractionPlan] = []
    student, tokenizer = make_student(
        config.student,
        teacher.model,
        load_tokenizer(config.teacher),
        labels=task.labels,
        predictions=task.predictions,
        seed=config.seed,
        source=config.student_source,
        birth=config.student_birth,
        sample=sample,
        record=plans.append,
        embedding_rank=config.embedding_rank,
    )
    check_max_length(config.max_length, teacher.model, student)
    seed_everything(config.seed)
    stages = compose_stages(config, encoder_shape(student), teacher.shape, task.predictions)
    text = _unlabelled_text(config, data.task)
    arguments, splits = prepare(config, data, tokenizer, stages, augmented, text)
    record = RunRecord(
        config=config_dict(config),
        seed=config.seed,
        versions=versions(),
        hashes=input_hashes(config, teacher, data),
        task=describe_data(data),
        selection=splits.selection,
        rows=splits.rows,
        unlabelled=splits.unlabelled,
        steps_per_epoch=steps_per_epoch(arguments[0], splits),
        texts_cut_at_max_length=splits.cut,
        share_of_padding=splits.padding,
        arithmetic=describe_arithmetic(arguments[0]),
        objective={stage.name: str(stage.objective) for stage in stages},
        teacher=describe_model(teacher.model),
        student=describe_model(student, [{"layers": plan.layers, "heads": plan.heads} for plan in plans]),
    )
    labelled = None if text is None else splits.labelled
    lesson = Lesson(
        student, tokenizer, stages, arguments, splits.train, teacher, splits.choose_on, task.score, labelled=labelled
    )
    return lesson, record


def _unlabelled_text(config: RunConfig, task: Task) -> UnlabelledText | None:
    """The text without labels; raises ConfigError for a number of texts without any."""
    if config.unlabelled is None:
        if config.unlabelled_rows is not None:
            raise ConfigError("--unlabelled_rows counts texts without labels; name their files with --unlabelled")
        return None
    given = Columns(config.text, config.text_pair)
    return unlabelled_text(config.unlabelled, task, given, _cache_folder(config), config.unlabelled_rows)


def _cache_folder(config: RunConfig) -> Path:
    return Path(config.teacher_cache_folder or Path(config.output) / "teacher_cache")


def student_shape(config: RunConfig, teacher: Teacher, data: TaskData) -> EncoderShape:
    """The shape that the student will have: for it a method can be composed before any training."""
    student, _ = make_student(
        config.student,
        teacher.model,
        load_tokenizer(config.teacher),
        labels=data.task.labels,
        predictions=data.task.predictions,
        source=config.student_source,
        birth="fresh",
    )
    return encoder_shape(student)


def input_hashes(config: RunConfig, teacher: Teacher, data: TaskData) -> dict[str, str]:
    """SHA-256 of all that a run reads, by name: what two runs of one configuration may still differ in."""
    files = {name: Path(place) for name in ("mapping", "augmented") if (place := getattr(config, name))}
    text = _unlabelled_text(config, data.task)
    return {
        "teacher": teacher.fingerprint,
        **file_hashes(data),
        **({} if text is None else {f"unlabelled {Path(name).name}": hash for name, hash in text.digests().items()}),
        **{name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items() if file.is_file()},
    }


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
    lines.append(f"{record.share_of_padding:.1%} of the positions in its batches are padding")
    return "\n".join([*lines, objective_and_sizes(record)])
