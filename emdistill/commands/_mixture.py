"""Several tasks, one student: `distill --data tasks.yaml`. Each task is read, taught and scored as if it were alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from datasets import Dataset, concatenate_datasets

from emdistill.commands._mixture_tasks import OpenMixture, born, check_options, open_mixture
from emdistill.commands._one_task import Part
from emdistill.config import RunConfig, Selection, read_by
from emdistill.console import counted, print_table, say, say_scores, silent
from emdistill.data.mixed_batches import MixtureSampler
from emdistill.data.mixture_file import Mixture, read_mixture
from emdistill.data.unlabelled import texts_kept
from emdistill.losses import MixtureObjective, Orthogonality, TaskDiscriminator
from emdistill.models.encoder import encoder_shape
from emdistill.models.multi_task import MultiTaskModel
from emdistill.runs.baseline_record import TITLES
from emdistill.runs.describe import describe_data, describe_model, describe_together, objective_and_sizes
from emdistill.runs.distillation import as_distillation, task_folder
from emdistill.runs.learn import count_steps, learn, new_record, steps_per_epoch
from emdistill.runs.open_run import Run, open_run
from emdistill.runs.record import RunRecord
from emdistill.runs.student_artifact import StudentArtifact, write_student
from emdistill.show.cards import mixture_card
from emdistill.show.run_report import write_run_report
from emdistill.show.verdict import tasks_table, verdict
from emdistill.tasks.mixture import MEAN, joint_scores, shares
from emdistill.teachers.opened import Logits
from emdistill.training import Stage
from emdistill.training.lesson import Lesson, prove
from emdistill.training.mixture import MixtureCollator, MixtureScore, MixtureTeacher, of_task, to_choose_on
from emdistill.training.run_stages import seed_everything
from emdistill.training.splits import LAST_IS_KEPT

SELECTIONS: dict[Selection, str] = {
    "held-out": "the best checkpoint by the mean over tasks on {:,} rows held out of train (not trained on)",
    "dev": "the best checkpoint by the mean over tasks on dev: its score is the one it was chosen by, and flatters",
    "last": LAST_IS_KEPT,
}


def distill_mixture(config: RunConfig) -> StudentArtifact:
    """Distil the teachers of several tasks into one student with a head per task, and write the run folder.

    Raises an EmdistillError before any training where an input cannot be used; Interrupted after Ctrl-C.
    """
    check_options(config)
    mixture = read_mixture(Path(config.data))
    reads = [*read_by(config), *(place for entry in mixture.tasks for place in entry.places)]
    folder = Path(config.output)
    with open_run(folder, overwrite=config.overwrite, resume=config.resume, reads=reads) as run:
        opened = open_mixture(config, mixture)
        parts, lesson, record = mixture_lesson(config, opened)
        if run.is_finished(record):
            return StudentArtifact(folder)
        for line in (*opened.notes, _outline(mixture, record, lesson, parts)):
            say(line)
        prove_mixture(parts, lesson)
        teacher_logits = _score_teachers(record, parts)
        run.begin(record, keep=("teacher_cache",) if record.unlabelled else ())  # the tokens of the text stand there
        _teach(run, lesson, parts)
        student_logits = _score_student(record, parts)
        _leave_behind(run, lesson, parts, teacher_logits, student_logits)
        run.finish()
    return StudentArtifact(folder)


# ------------------------------------------------------------------------------------------------- lessons and record


def mixture_lesson(config: RunConfig, opened: OpenMixture) -> tuple[list[Part], Lesson, RunRecord]:
    """Each task as it is learned alone, all tasks as one lesson, and the record of it."""
    mixture, tasks = opened.mixture, opened.tasks
    student, tokenizer = born(config, opened)
    seed_everything(config.seed)
    parts = [asked.lesson(student.of(asked.name), tokenizer) for asked in tasks]
    arguments = list(parts[0].lesson.arguments)
    choose_on = [part.splits.choose_on for part in parts if part.splits.choose_on is not None]
    for settings in arguments:
        settings.metric_for_best_model = f"eval_{MEAN}" if choose_on else None
    train = concatenate_datasets(_rows(parts))
    has_text = any(part.splits.unlabelled is not None for part in parts)
    labelled = [of_task(part.splits.labelled, number) for number, part in enumerate(parts)] if has_text else []
    weights = [asked.entry.weight for asked in tasks]
    stages = _stages(mixture, parts, encoder_shape(student).width)
    scores = [part.splits.score for part in parts if part.splits.score is not None]
    lesson = Lesson(
        student,
        tokenizer,
        stages,
        arguments,
        train,
        MixtureTeacher([part.lesson.teacher for part in parts]),
        to_choose_on(choose_on) if choose_on else None,
        MixtureScore({asked.name: asked.task for asked in tasks}, scores, choose_on),
        MixtureCollator([part.lesson.collate for part in parts]),
        labelled=concatenate_datasets(labelled) if labelled else None,
        batches=lambda rows, size, seed: MixtureSampler(
            rows["task"][:], rows["length"][:], size, seed, temper=mixture.temper, weights=weights
        ),
    )
    if has_text:
        count_steps(stages, arguments, len(_sampler(lesson)))
    return parts, lesson, _record(config, opened.hashes(config), student, lesson, parts)


def prove_mixture(parts: Sequence[Part], lesson: Lesson) -> None:
    """Prove the stages of all tasks on rows of each task, for a batch has rows of one."""
    for part, rows in zip(parts, _rows(parts), strict=True):
        prove(replace(part.lesson, stages=lesson.stages, train=rows, collator=lesson.collator))


def _sampler(lesson: Lesson) -> MixtureSampler:
    """The batches of all that is learned from."""
    settings = lesson.arguments[0]
    assert lesson.batches is not None
    sampler = lesson.batches(lesson.train, settings.per_device_train_batch_size, settings.seed)
    assert isinstance(sampler, MixtureSampler)
    return sampler


def _rows(parts: Sequence[Part]) -> list[Dataset]:
    return [of_task(part.splits.train, number) for number, part in enumerate(parts)]


def _stages(mixture: Mixture, parts: Sequence[Part], width: int) -> list[Stage]:
    """The stages of all tasks, each with the objectives of all; what tasks share by is learned in every stage."""
    discriminator = TaskDiscriminator(width, len(parts)) if mixture.adversary else None
    for part in parts:
        for stage in part.lesson.stages:
            if mixture.orthogonality:
                stage.objective.add("orthogonality", Orthogonality(), mixture.orthogonality)
            if discriminator is not None:
                stage.objective.add("task_discriminator", discriminator, mixture.adversary)
    together = zip(*(part.lesson.stages for part in parts), strict=True)
    return [
        replace(
            each[0], objective=MixtureObjective({p.asked.name: s.objective for p, s in zip(parts, each, strict=True)})
        )
        for each in together
    ]


def _record(
    config: RunConfig, hashes: dict[str, str], student: MultiTaskModel, lesson: Lesson, parts: Sequence[Part]
) -> RunRecord:
    described = {part.asked.name: describe_data(part.asked.data) for part in parts}
    rows = {name: sum(part.splits.rows[name] for part in parts) for name in ("train", "chosen on")}
    texts = [part.splits.unlabelled for part in parts if part.splits.unlabelled is not None]
    return new_record(
        config,
        lesson,
        hashes=hashes,
        task=describe_together(described),
        tasks=described,
        selection=SELECTIONS[config.select].format(rows["chosen on"]),
        rows=rows,
        unlabelled={name: sum(counts[name] for counts in texts) for name in texts[0]} if texts else None,
        steps_per_epoch=steps_per_epoch(lesson.arguments[0], len(_sampler(lesson))),
        texts_cut_at_max_length=sum(part.splits.cut for part in parts),
        teacher=parts[0].asked.teacher.describe(),
        student=describe_model(student),
    )


def _outline(mixture: Mixture, record: RunRecord, lesson: Lesson, parts: Sequence[Part]) -> str:
    """What is learned, how often each task is met and in how many steps, as a run says it before it begins."""
    sizes = [len(part.splits.train) for part in parts]
    often = shares(sizes, mixture.temper, [part.asked.entry.weight for part in parts])
    lines = [
        f"{part.asked.name}: {size:,} rows to learn from, {share:.1%} of the batches, {count:,} an epoch"
        for part, size, share, count in zip(parts, sizes, often, _sampler(lesson).counts, strict=True)
    ]
    texts = {part.asked.name: part.splits.unlabelled for part in parts}
    lines += [f"{name}: {texts_kept(counts)}" for name, counts in texts.items() if counts is not None]
    steps = sum(
        each.max_steps if each.max_steps > 0 else math.ceil(each.num_train_epochs * (record.steps_per_epoch or 0))
        for each in lesson.arguments
    )
    lines.append(f"{counted(record.steps_per_epoch or 0, 'step')} an epoch, {steps:,} in all; {record.selection}")
    return "\n".join([*lines, objective_and_sizes(record)])


# ------------------------------------------------------------------------------------------------- training and after


def _teach(run: Run, lesson: Lesson, parts: Sequence[Part]) -> None:
    """Fit the projections, write the caches, and train."""
    for part in parts:
        part.fit_projections()
    with run.timed("teacher_cache_seconds"):
        sources = [part.asked.teacher.stage_sources(part.lesson) for part in parts]
    stages = zip(*sources, strict=True)
    together = [None if each == (None,) * len(parts) else MixtureTeacher(each) for each in stages]
    learn(run, lesson, together)


def _score_teachers(record: RunRecord, parts: Sequence[Part]) -> dict[str, Logits | None]:
    """The teachers' logits, and scores, each on its own task; raises TeacherError for one near chance."""
    logits: dict[str, Logits | None] = {}
    for asked in (part.asked for part in parts):
        logits[asked.name] = asked.score_teacher(f"teacher of {asked.name} on dev")
    if None not in logits.values():
        record.scores["teacher"] = _joint(parts, logits)
        say(f"teachers on dev: {say_scores(record.scores['teacher'])}")
    return logits


def _score_student(record: RunRecord, parts: Sequence[Part]) -> dict[str, Logits]:
    """The logits of every head on its task, and the scores."""
    logits = {part.asked.name: part.predict(f"student on {part.asked.name}") for part in parts}
    record.scores["student"] = _joint(parts, logits)
    say(f"student on dev: {say_scores(record.scores['student'])}")
    return logits


def _joint(parts: Sequence[Part], logits: Mapping[str, Logits | None]) -> dict[str, float]:
    every = {part.asked.name: part.asked for part in parts}
    scores = {name: asked.scores(logits[name]) for name, asked in every.items()}
    return joint_scores(scores, {name: asked.task.metrics[0] for name, asked in every.items()})


def _leave_behind(
    run: Run,
    lesson: Lesson,
    parts: Sequence[Part],
    teachers: Mapping[str, Logits | None],
    students: Mapping[str, Logits],
) -> None:
    """Write the run's files; then measure what could be taken instead, of each task as of one alone.

    teachers, students   logits by task
    """
    lesson.tokenizer.model_max_length = parts[0].asked.config.max_length
    write_student(run.folder, lesson.student, lesson.tokenizer, mixture_card(as_distillation(run.folder, run.record)))
    every = {name: (part, task_folder(run.folder, name)) for part in parts for name in [part.asked.name]}
    for name, (part, place) in every.items():
        part.write_answers(place, teachers[name], students[name])
    run.save()
    with silent():
        measured = {
            name: part.measure_baselines(run, place, teachers[name], students[name])
            for name, (part, place) in every.items()
        }
    records = {name: record for name, record in measured.items() if record is not None}
    if records:
        print_table(tasks_table(records))
        for task, record in records.items():
            say(f"{task}: {verdict(record)}")
            for name, row in record.baselines.items():
                if row.problem:
                    say(f"{task}: {TITLES[name]}: not computed: {row.problem}")
    write_run_report(run.folder)
