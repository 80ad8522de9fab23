"""The spine: from a teacher and sentences to a student, in the order the README tells it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from emdistill.commands.distill_text import distill_text
from emdistill.config import RunConfig, config_dict
from emdistill.data.augmentation import read_augmented
from emdistill.data.read import read_data
from emdistill.methods import compose_stages
from emdistill.models.encoder import encoder_shape, load_classifier, load_tokenizer
from emdistill.models.teacher import Teacher, check_above_chance
from emdistill.options import load_config
from emdistill.runs.answers import PREDICTIONS, write_predictions
from emdistill.runs.flow_recorder import FlowRecorder
from emdistill.runs.run_folder import (
    check_output,
    check_same_run,
    clear_run,
    describe_data,
    describe_model,
    describe_teaching,
    file_hashes,
    read_run,
    versions,
    write_run,
)
from emdistill.runs.student_artifact import StudentArtifact, write_student
from emdistill.show.explain import draw_run, run_card
from emdistill.students import ExtractionPlan, make_student
from emdistill.tasks.metrics import chance, score
from emdistill.tasks.task import RAW_TEXT, Task, TaskData
from emdistill.training import DistillationArguments, Stage
from emdistill.training.evaluate import predict_sets, score_sets
from emdistill.training.projections import fit_projections
from emdistill.training.run_stages import run_stages, seed_everything, stage_arguments
from emdistill.training.splits import Splits, check_max_length, make_splits, sample_batches
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
    console = Console(soft_wrap=True, markup=False, highlight=False, quiet=quiet)
    folder = Path(config.output)
    reads = (config.teacher, config.data, config.dev, config.student, config.student_source, config.augmented)
    check_output(folder, overwrite=config.overwrite, resume=config.resume, inputs=reads)

    data = examples or read_data(config)
    task = data.task
    teacher = Teacher(load_classifier(config.teacher))
    teacher.check_labels(task.labels)
    augmented = None
    if config.augmented is not None:
        augmented = read_augmented(Path(config.augmented), data, teacher=teacher.fingerprint)
    teacher_tokenizer = load_tokenizer(config.teacher)
    sample = partial(
        sample_batches, data, teacher_tokenizer, select=config.select, max_length=config.max_length, rows=config.rows
    )
    plans: list[ExtractionPlan] = []
    student, tokenizer = make_student(
        config.student,
        teacher.model,
        teacher_tokenizer,
        labels=task.labels,
        predictions=task.predictions,
        seed=config.seed,
        source=config.student_source,
        birth=config.student_birth,
        embedding_rank=config.embedding_rank,
        sample=sample,
        record=plans.append,
    )
    check_max_length(config.max_length, teacher.model, student)
    seed_everything(config.seed)
    stages = compose_stages(config, encoder_shape(student), teacher.shape, task.predictions)
    arguments = [
        stage_arguments(
            stage,
            config.training,
            folder=folder,
            choose=config.select != "last",
            metric=task.metrics[0],
            seed=config.seed,
        )
        for stage in stages
    ]
    splits = make_splits(
        data,
        tokenizer,
        select=config.select,
        max_length=config.max_length,
        batch_size=arguments[0].per_device_train_batch_size,
        tokens_per_batch=arguments[0].tokens_per_batch,
        rows=config.rows,
        augmented=augmented,
    )
    run = _describe(config, data, teacher, stages, arguments, splits)
    run["student"] = describe_model(student) | {
        "cut_out": [{"layers": plan.layers, "heads": plan.heads} for plan in plans],
    }
    if config.resume:
        check_same_run(folder, run)
        if read_run(folder)["status"] == "finished":
            console.print(f"{folder} is finished already; nothing to do")
            return StudentArtifact(folder)
    console.print(_say_what_runs(run, task))

    started = time.perf_counter()
    answer_dev = partial(predict_sets, evaluation=data.evaluation, max_length=config.max_length)
    teacher.to(arguments[0].device)
    if teacher_logits is None:
        teacher_logits = answer_dev(teacher.model, teacher_tokenizer, description="" if quiet else "teacher on dev")
    teacher_scores = score_sets(task, teacher_logits, data.evaluation)
    console.print(f"teacher on dev: {_say(teacher_scores)}")
    if config.check_teacher:
        dev = next(iter(data.evaluation.values()))
        metric = task.metrics[0]
        check_above_chance(teacher_scores[metric], chance(task, dev["label"]), metric)
    run["scores"] = {"teacher": teacher_scores}
    run["timings"] = {"teacher_evaluation_seconds": time.perf_counter() - started}

    if not config.resume:
        clear_run(folder)
    write_run(folder, run)
    student.to(arguments[0].device)  # type: ignore[arg-type]
    fit_projections(stages, student, teacher, sample)
    started = time.perf_counter()
    teacher.dtype = arguments[0].teacher_dtype
    teachers = stage_teachers(
        stages,
        teacher,
        splits.train,
        tokenizer,
        cache=config.teacher_cache,
        folder=Path(config.teacher_cache_folder or folder / "teacher_cache"),
    )
    run["timings"]["teacher_cache_seconds"] = time.perf_counter() - started
    recorder = FlowRecorder(folder / "flows.jsonl", stages)
    started = time.perf_counter()
    run["log"] = run_stages(
        student,
        tokenizer,
        stages,
        arguments,
        teachers=teachers,
        train=splits.train,
        choose_on=splits.choose_on,
        score=lambda logits, labels: score(task, logits, labels),
        folder=folder,
        resume=config.resume,
        callbacks=[recorder],
    )
    run["timings"]["training_seconds"] = time.perf_counter() - started
    student_logits = answer_dev(student, tokenizer, description="" if quiet else "student on dev")
    run["scores"]["student"] = score_sets(task, student_logits, data.evaluation)
    console.print(f"student on dev: {_say(run['scores']['student'])}")
    write_student(folder, student, tokenizer, task=task, max_length=config.max_length, card=run_card(run))
    write_predictions(folder / PREDICTIONS, data.evaluation, teacher_logits, student_logits)
    write_run(folder, run | {"status": "finished"})
    draw_run(folder)
    if not config.keep_checkpoints:
        clear_run(folder, only=("checkpoints", "teacher_cache"))
    return StudentArtifact(folder)


def input_hashes(config: RunConfig, teacher: Teacher, data: TaskData) -> dict[str, str]:
    """SHA-256 of all that a run reads, by name: what two runs of one configuration may still differ in."""
    files = {name: Path(place) for name in ("mapping", "augmented") if (place := getattr(config, name))}
    return {
        "teacher": teacher.fingerprint,
        **file_hashes(data),
        **{name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items() if file.is_file()},
    }


def _describe(
    config: RunConfig,
    data: TaskData,
    teacher: Teacher,
    stages: list[Stage],
    arguments: list[DistillationArguments],
    splits: Splits,
) -> dict[str, Any]:
    return {
        "status": "running",
        "config": config_dict(config),
        "seed": config.seed,
        "versions": versions(),
        "hashes": input_hashes(config, teacher, data),
        "task": describe_data(data),
        "selection": splits.selection,
        "rows": {"train": len(splits.train), "chosen on": 0 if splits.choose_on is None else len(splits.choose_on)},
        "texts_cut_at_max_length": splits.cut,
        "share_of_padding": splits.padding,
        **describe_teaching(teacher, stages, arguments),
    }


def _say_what_runs(run: dict[str, Any], task: Task) -> str:
    rows = run["rows"]["train"]
    padding = f"{run['share_of_padding']:.1%} of the positions in its batches are padding"
    held_out = f"; {run['task']['held_out']}" if run["task"]["held_out"] else ""
    return (
        f"{task.name}: {rows} rows to learn from{held_out}; {run['selection']}\n{padding}\n"
        + "\n".join(f"{name}: {equation}" for name, equation in run["objective"].items())
        + f"\nteacher {run['teacher']['parameters']:,} parameters, student {run['student']['parameters']:,}"
    )


def _say(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
