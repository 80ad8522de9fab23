"""General distillation: raw text in, a student for any task out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console

from emdistill.config import RunConfig, config_dict
from emdistill.data.batches import MaskingCollator, padding_collator, text_encoder
from emdistill.data.corpus import CorpusSplits, corpus_dataset
from emdistill.errors import ConfigError
from emdistill.methods import compose_stages
from emdistill.models.encoder import encoder_shape, load_encoder, load_tokenizer
from emdistill.models.masked_lm import has_masked_lm_head
from emdistill.models.teacher import Teacher
from emdistill.runs.flow_recorder import FlowRecorder
from emdistill.runs.run_folder import (
    OWN_FILES,
    check_output,
    check_same_run,
    clear_run,
    describe_model,
    describe_teaching,
    read_run,
    versions,
    write_run,
)
from emdistill.runs.student_artifact import StudentArtifact
from emdistill.show.explain import draw_run
from emdistill.show.general_card import write_general_student
from emdistill.students import make_student
from emdistill.tasks.task import Predictions
from emdistill.training import DistillationArguments, Stage
from emdistill.training.evaluate import mean_terms
from emdistill.training.projections import fit_projections
from emdistill.training.run_stages import run_stages, seed_everything, stage_arguments
from emdistill.training.splits import HELD_OUT_SEED, check_max_length

# Options of a task's data, which raw text has not.
OF_A_TASK = ("text_pair", "dev", "kind", "augmented")
SAMPLE_PIECES = 64


def distill_text(config: RunConfig, *, quiet: bool = False) -> StudentArtifact:
    """Distil a pretrained teacher on raw text and write the run folder, whose student/ is a `--student` for any task.

    A teacher with a masked-LM head can teach words too; without one it teaches by its layers alone.
    Raises an EmdistillError before any training where an input cannot be used; Interrupted after Ctrl-C.
    """
    _check_options(config)
    console = Console(soft_wrap=True, markup=False, highlight=False, quiet=quiet)
    folder = Path(config.output)
    reads = (config.teacher, config.data, config.student, config.student_source)
    check_output(folder, overwrite=config.overwrite, resume=config.resume, inputs=reads)

    teacher = Teacher(load_encoder(config.teacher))
    tokenizer = load_tokenizer(config.teacher)
    check_max_length(config.max_length, teacher.model)
    predictions: Predictions = "words" if has_masked_lm_head(teacher.model) else "none"
    text = corpus_dataset(
        config.data,
        text_encoder(tokenizer),
        max_length=config.max_length,
        folder=Path(config.teacher_cache_folder or folder / "teacher_cache"),
        seed=HELD_OUT_SEED,
        rows=config.rows,
        description="" if quiet else "reading the text",
    )
    masking = MaskingCollator(tokenizer, seed=config.seed) if predictions == "words" else None
    plain = padding_collator(tokenizer)

    def sample() -> list[dict[str, Any]]:
        rows = text.train.select(range(min(SAMPLE_PIECES, len(text.train)))).remove_columns("length").to_list()
        return [dict((masking or plain)(rows[start : start + 16])) for start in range(0, len(rows), 16)]

    student, tokenizer = make_student(
        config.student,
        teacher.model,
        tokenizer,
        predictions=predictions,
        seed=config.seed,
        source=config.student_source,
        birth=config.student_birth,
        embedding_rank=config.embedding_rank,
        sample=sample,
    )
    check_max_length(config.max_length, student)
    seed_everything(config.seed)
    stages = compose_stages(config, encoder_shape(student), teacher.shape, predictions)
    arguments = [
        stage_arguments(stage, config.training, folder=folder, choose=False, metric="loss", seed=config.seed)
        for stage in stages
    ]
    # Words are masked only where an objective asks for them.
    collator = masking if masking is not None and any(stage.objective.predicts for stage in stages) else plain
    run = _describe(config, text, teacher, stages, arguments)
    run["student"] = describe_model(student)
    if config.resume:
        check_same_run(folder, run)
        if read_run(folder)["status"] == "finished":
            console.print(f"{folder} is finished already; nothing to do")
            return StudentArtifact(folder)
    else:
        # The tokens of the text stand among them, and have just been written.
        clear_run(folder, only=tuple(name for name in OWN_FILES if name != "teacher_cache"))
    console.print(_say_what_runs(run))
    write_run(folder, run)

    teacher.to(arguments[0].device)
    student.to(arguments[0].device)  # type: ignore[arg-type]
    teacher.dtype = arguments[0].teacher_dtype

    def held_out_loss(description: str) -> dict[str, float]:
        terms: dict[str, float] = {}
        for stage in stages:
            terms |= mean_terms(
                student, teacher, stage.objective, text.held_out, collator, description="" if quiet else description
            )
        return {"loss": sum(terms.values()), **terms}

    fit_projections(stages, student, teacher, sample)
    run["held_out_loss"] = {"before": held_out_loss("held-out text")}
    started = time.perf_counter()
    run["log"] = run_stages(
        student,
        tokenizer,
        stages,
        arguments,
        teachers=[teacher if stage.objective.taught else None for stage in stages],
        train=text.train,
        choose_on=None,
        score=None,
        folder=folder,
        resume=config.resume,
        callbacks=[FlowRecorder(folder / "flows.jsonl", stages)],
        collator=collator,
    )
    run["timings"] = {"training_seconds": time.perf_counter() - started}
    run["held_out_loss"]["after"] = held_out_loss("held-out text")
    console.print("held-out text: " + _say_loss(run["held_out_loss"]))
    write_general_student(folder, student, tokenizer, run)
    write_run(folder, run | {"status": "finished"})
    draw_run(folder)
    if not config.keep_checkpoints:
        clear_run(folder, only=("checkpoints", "teacher_cache"))
    return StudentArtifact(folder)


def _check_options(config: RunConfig) -> None:
    given = [f"--{name}" for name in OF_A_TASK if getattr(config, name) is not None]
    if given:
        raise ConfigError(f"{', '.join(given)}: raw text (--task text) has no labels, pairs or columns; leave it out")
    if config.teacher_cache == "states":
        raise ConfigError(
            "--teacher_cache states: the states of a whole raw text would fill the disk, and masks change from epoch "
            "to epoch; leave it out"
        )


def _describe(
    config: RunConfig,
    text: CorpusSplits,
    teacher: Teacher,
    stages: list[Stage],
    arguments: list[DistillationArguments],
) -> dict[str, Any]:
    corpus = text.corpus
    return {
        "status": "running",
        "config": config_dict(config),
        "seed": config.seed,
        "versions": versions(),
        "hashes": {"teacher": teacher.fingerprint, corpus.path.name: corpus.sha256},
        "corpus": {name: getattr(corpus, name) for name in ("documents", "paragraphs", "pieces", "tokens", "dropped")},
        "selection": "the last checkpoint is kept; nothing was chosen on any score",
        "rows": {"train": len(text.train), "held out": len(text.held_out)},
        **describe_teaching(teacher, stages, arguments),
    }


def _say_what_runs(run: dict[str, Any]) -> str:
    return (
        f"raw text: {run['rows']['train']:,} pieces of at most {run['config']['max_length']} tokens to learn from, "
        f"{run['rows']['held out']:,} held out; {run['selection']}\n"
        + "\n".join(f"{name}: {equation}" for name, equation in run["objective"].items())
        + f"\nteacher {run['teacher']['parameters']:,} parameters, student {run['student']['parameters']:,}"
    )


def _say_loss(held_out: dict[str, dict[str, float]]) -> str:
    before, after = held_out["before"], held_out["after"]
    return ", ".join(f"{name} {before[name]:.4g} -> {value:.4g}" for name, value in after.items())
