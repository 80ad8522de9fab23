"""Stages run in order on one student: where checkpoints go, which one is kept, how a run is taken up again."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from safetensors.torch import load_model, save_file
from torch.utils.tensorboard import SummaryWriter
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    set_seed,
)
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import get_last_checkpoint

from emdistill.errors import ConfigError
from emdistill.models.teacher import Teacher
from emdistill.training.arguments import DistillationArguments
from emdistill.training.stage import Stage
from emdistill.training.trainer import DistillationTrainer, metrics_from

Score = Callable[[np.ndarray, np.ndarray], dict[str, float]]


class Interrupted(Exception):
    """The user stopped the run; a checkpoint of the step reached is written."""


def run_stages(
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    stages: Sequence[Stage],
    arguments: Sequence[DistillationArguments],
    *,
    teacher: Teacher | None,
    train: Dataset,
    choose_on: Dataset | None,
    score: Score,
    folder: Path,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
) -> list[dict[str, Any]]:
    """Train `student` in place through all stages; each stage's log history.

    arguments         one a stage, from stage_arguments
    train, choose_on  tokenised examples; with `choose_on`, each stage keeps its best checkpoint on it
    folder            checkpoints/STAGE/ and tensorboard/STAGE/ come to stand in it
    Raises Interrupted after Ctrl-C, once a checkpoint is written; TrainingError where a loss is not finite.
    """
    histories = []
    for stage, settings in zip(stages, arguments, strict=True):
        checkpoints = folder / "checkpoints" / stage.name
        finished = checkpoints / "finished.safetensors"
        if resume and finished.exists():
            load_model(student, finished)
            continue
        # The order of random draws must not depend on what came before, or a resumed run would differ.
        set_seed(settings.seed)
        trainer = DistillationTrainer(
            student,
            teacher=teacher,
            objective=stage.objective,
            args=settings,
            processing_class=tokenizer,
            train_dataset=train,
            eval_dataset=choose_on,
            compute_metrics=metrics_from(score),
            callbacks=list(callbacks),
        )
        if not settings.report_to:
            writer = SummaryWriter(str(folder / "tensorboard" / stage.name))
            trainer.add_callback(TensorBoardCallback(writer))  # type: ignore[no-untyped-call]
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(ProgressWithLoss if not settings.disable_tqdm else QuietLog)
        last = get_last_checkpoint(str(checkpoints)) if resume and checkpoints.is_dir() else None  # type: ignore[no-untyped-call]
        with _checkpoint_on_interrupt() as stop:
            trainer.add_callback(stop)
            trainer.train(resume_from_checkpoint=last)
        if stop.requested:
            raise Interrupted(f"stopped at step {trainer.state.global_step} of stage '{stage.name}'")
        histories.append({"stage": stage.name, "log": trainer.state.log_history})
        if len(stages) > 1:
            checkpoints.mkdir(parents=True, exist_ok=True)
            weights = {name: value.detach().cpu().contiguous() for name, value in student.state_dict().items()}
            save_file(weights, finished, metadata={"format": "pt"})
    student.train(False)
    return histories


def stage_arguments(
    stage: Stage, training: Mapping[str, Any], *, folder: Path, choose: bool, metric: str, seed: int
) -> DistillationArguments:
    """The recipe's training section, and over it the stage's own, as DistillationArguments.

    choose   whether checkpoints are scored by `metric` and the best one is kept
    Raises ConfigError where transformers refuses a value.
    """
    settings: dict[str, Any] = {
        "output_dir": str(folder / "checkpoints" / stage.name),
        # transformers asks for this where mixed precision is wanted and no accelerator is there.
        "use_cpu": not torch.accelerator.is_available(),
        "seed": seed,
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "report_to": "none",
        "eval_strategy": "epoch" if choose else "no",
        "load_best_model_at_end": choose,
        "metric_for_best_model": f"eval_{metric}" if choose else None,
        "greater_is_better": True if choose else None,
        **training,
        **stage.training,
    }
    if not choose and settings.get("early_stopping_patience") is not None:
        raise ConfigError("early stopping needs something to choose on: use --select held-out or dev, not last")
    try:
        return DistillationArguments(**settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the training section cannot be used: {error}") from None


def training_options() -> list[str]:
    """Every option the training section may set: transformers' TrainingArguments and this project's own."""
    return [field.name for field in fields(DistillationArguments) if field.init and field.name != "output_dir"]


class ProgressWithLoss(ProgressCallback):
    """transformers' progress bar, with the loss and score beside it instead of a line of JSON a log."""

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if self.training_bar is None or logs is None:
            return
        shown = {name.removeprefix("eval_"): value for name, value in logs.items() if isinstance(value, float)}
        keep = ("loss", "accuracy", "f1", "matthews_corrcoef", "pearson")
        known = {**getattr(self, "shown", {}), **{name: f"{shown[name]:.3f}" for name in keep if name in shown}}
        self.shown = known
        self.training_bar.set_postfix(known)


class QuietLog(TrainerCallback):
    """No progress bar: nothing is printed; the log is in TensorBoard and run.json all the same."""


class StopOnRequest(TrainerCallback):
    """Ends training after the step under way, with a checkpoint, once `requested` is set."""

    def __init__(self) -> None:
        self.requested = False

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        if self.requested:
            control.should_save = True
            control.should_training_stop = True
        return control


@contextlib.contextmanager
def _checkpoint_on_interrupt() -> Iterator[StopOnRequest]:
    """While open, the first Ctrl-C asks for a checkpoint and a stop; the second one is the usual interrupt."""
    stop = StopOnRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, on_signal)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)
