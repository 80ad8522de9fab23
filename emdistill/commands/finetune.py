"""Make a teacher: fine-tune a pretrained encoder on a task."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console

from emdistill.config import FinetuneConfig, config_dict
from emdistill.data.read import read_data
from emdistill.methods import METHODS
from emdistill.models.encoder import encoder_shape, fingerprint, load_classifier, load_tokenizer, save_student
from emdistill.options import load_finetune_config
from emdistill.runs.reading import remember_reading
from emdistill.runs.run_folder import (
    OWN_FILES,
    check_output,
    check_same_run,
    clear_run,
    describe_data,
    file_hashes,
    read_run,
    versions,
    write_run,
)
from emdistill.tasks.metrics import score
from emdistill.tasks.task import TaskData
from emdistill.training import evaluate
from emdistill.training.run_stages import run_stages, seed_everything, stage_arguments
from emdistill.training.splits import check_max_length, make_splits


def command(config: FinetuneConfig) -> str:
    """Fine-tune a pretrained encoder: make a teacher."""
    return f"{finetune(config)}: the fine-tuned model, with its run.json"


def finetune(config: FinetuneConfig | None = None, *, examples: TaskData | None = None, **options: Any) -> Path:
    """Fine-tune an encoder on a task's labels; the output folder is the model, with its run.json beside it.

    config   a FinetuneConfig, or its fields as keywords: finetune(model=..., task="mrpc", data=..., output="teacher/")
    examples   task and examples where they are read already; config.data then only names them
    Raises an EmdistillError before any training where an input cannot be used; Interrupted after Ctrl-C.
    """
    config = config if config is not None else load_finetune_config(**options)
    console = Console(soft_wrap=True, markup=False, highlight=False)
    folder = Path(config.output)
    reads = (config.model, config.data, config.dev)
    check_output(folder, overwrite=config.overwrite, resume=config.resume, inputs=reads)

    data = examples or read_data(config)
    task = data.task
    regression = task.kind == "regression"
    seed_everything(config.seed)
    model = load_classifier(config.model, labels=task.labels, regression=regression)
    check_max_length(config.max_length, model)
    tokenizer = load_tokenizer(config.model)
    shape = encoder_shape(model)
    stages = METHODS["hard-labels"](shape, shape, predictions=task.predictions)
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
        rows=config.rows,
        batch_size=arguments[0].per_device_train_batch_size,
        tokens_per_batch=arguments[0].tokens_per_batch,
    )
    run: dict[str, Any] = {
        "status": "running",
        "config": config_dict(config),
        "seed": config.seed,
        "versions": versions(),
        "hashes": {"model": fingerprint(model), **file_hashes(data)},
        "task": describe_data(data),
        "selection": splits.selection,
        "rows": {"train": len(splits.train), "chosen on": 0 if splits.choose_on is None else len(splits.choose_on)},
    }
    if config.resume:
        check_same_run(folder, run)
        if read_run(folder)["status"] == "finished":
            console.print(f"{folder} is finished already; nothing to do")
            return folder
    else:
        clear_run(folder, only=(*OWN_FILES, "model.safetensors"))  # a half-trained run must not pass for the old one
    console.print(f"{task.name}: {len(splits.train)} rows to learn from; {splits.selection}")
    write_run(folder, run)

    started = time.perf_counter()
    run["log"] = run_stages(
        model,
        tokenizer,
        stages,
        arguments,
        teachers=[None] * len(stages),
        train=splits.train,
        choose_on=splits.choose_on,
        score=lambda logits, labels: score(task, logits, labels),
        folder=folder,
        resume=config.resume,
    )
    run["timings"] = {"training_seconds": time.perf_counter() - started}
    scores = evaluate(
        model, tokenizer, task, data.evaluation, max_length=config.max_length, description="teacher on dev"
    )
    run["scores"] = {"teacher": scores}
    run["status"] = "finished"
    remember_reading(model, tokenizer, task, config.max_length)
    save_student(model, tokenizer, folder)
    if not config.keep_checkpoints:
        clear_run(folder, only=("checkpoints",))
    write_run(folder, run)
    console.print("dev: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    return folder
