"""Stages run in order on one student: where checkpoints go, which one is kept, how a run is taken up again."""

import contextlib
import json
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_model, save_model
from torch.utils.tensorboard import SummaryWriter
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, set_seed
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils import logging as transformers_logging

from emdistill.errors import Interrupted, tell
from emdistill.files import damage, folder_written_whole, put_back, seal, storage_errors
from emdistill.models.teacher import TeacherSource
from emdistill.processes import any_process, is_first_process, wait_for_all
from emdistill.stopping import CTRL_C, stop_requests
from emdistill.training.lesson import Lesson
from emdistill.training.trainer import DistillationTrainer

TRAINER_STATE = "trainer_state.json"
FINISHED, WEIGHTS, LOG = "finished", "model.safetensors", "log.json"  # of a stage, beside its checkpoints
STEPS_BETWEEN_QUESTIONS = 10  # of processes on accelerators, whether any is to stop


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators."""
    set_seed(seed)


def run_stages(
    lesson: Lesson,
    teachers: Sequence[TeacherSource | None],
    folder: Path,
    *,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
) -> list[dict[str, Any]]:
    """Train the lesson's student in place through all stages; each stage's log history.

    teachers  one per stage; None where its objective reads labels only, or the student teaches itself
    folder    gets checkpoints/STAGE/ and tensorboard/STAGE/
    Raises Interrupted after Ctrl-C, once a checkpoint is written; TrainingError where a loss is not finite.
    """
    student = lesson.student
    histories = []
    for stage, settings, teacher in zip(lesson.stages, lesson.arguments, teachers, strict=True):
        checkpoints = Path(str(settings.output_dir))
        finished = checkpoints / FINISHED
        if resume and (log := _load_finished(student, finished)) is not None:
            histories.append({"stage": stage.name, "log": log})
            continue
        # The order of random draws must not depend on what came before, or a resumed run would differ.
        set_seed(settings.seed)
        trainer = lesson.trainer(stage, settings, teacher, callbacks)
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        if not settings.disable_tqdm:
            trainer.add_callback(ProgressWithLoss())
        logs = folder / "tensorboard" / stage.name
        with _quiet_transformers(), _tensorboard(trainer, logs), _stop_on_interrupt(stage.name) as stop:
            trainer.add_callback(stop)
            trainer.train(resume_from_checkpoint=_last_checkpoint(checkpoints) if resume else None)
        histories.append({"stage": stage.name, "log": trainer.state.log_history})
        _save_finished(student, finished, trainer.state.log_history)
        if stop.is_asked(settings):
            raise Interrupted(f"stopped after stage '{stage.name}'")
    student.train(False)
    return histories


def _last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that is whole; those that are not are named, and removed: they would count as the last."""
    checkpoints = folder.glob("checkpoint-*")
    for place in sorted(checkpoints, key=lambda place: int(place.name.rpartition("-")[2]), reverse=True):
        if not (fault := damage(place) or _damage_of_best(place)):
            return str(place)
        if is_first_process():
            tell(f"{place} is passed over: {fault}")
            shutil.rmtree(place, ignore_errors=True)
    return None


def _damage_of_best(checkpoint: Path) -> str:
    """What has become of the best checkpoint so far, which a stage that goes on from this one may end with."""
    best = json.loads((checkpoint / TRAINER_STATE).read_text(encoding="utf-8"))["best_model_checkpoint"]
    place = checkpoint.parent / Path(best or checkpoint).name
    fault = "" if place == checkpoint else damage(place)
    return f"of {place.name}, the best one so far, {fault}" if fault else ""


def _save_finished(student: PreTrainedModel, folder: Path, log: list[dict[str, Any]]) -> None:
    if is_first_process():
        with storage_errors(folder), folder_written_whole(folder) as part:
            save_model(student, str(part / WEIGHTS), metadata={"format": "pt"})
            (part / LOG).write_text(json.dumps(log), encoding="utf-8")
            seal(part)
    wait_for_all()


def _load_finished(student: PreTrainedModel, folder: Path) -> list[dict[str, Any]] | None:
    """The log of a finished stage, whose student is loaded; None where none is whole."""
    put_back(folder)
    if not folder.is_dir():
        return None
    if fault := damage(folder):
        tell(f"{folder} is passed over: {fault}")
        return None
    load_model(student, folder / WEIGHTS)
    log: list[dict[str, Any]] = json.loads((folder / LOG).read_text(encoding="utf-8"))
    return log


class ProgressWithLoss(ProgressCallback):
    """transformers' progress bar, with the loss and score beside it instead of a line of JSON a log."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[str, str] = {}

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if self.training_bar is None or logs is None:
            return
        values = {name.removeprefix("eval_"): value for name, value in logs.items() if isinstance(value, float)}
        names = ("loss", "accuracy", "f1", "matthews_corrcoef", "pearson")
        self.shown |= {name: f"{values[name]:.3f}" for name in names if name in values}
        self.training_bar.set_postfix(self.shown)


class StopOnRequest(TrainerCallback):
    """Once `requested` is set: a checkpoint after the step under way, then Interrupted.

    At the end of an epoch its evaluation and checkpoint come first, and what is complete is not cut short. Several
    processes stop together; on accelerators they ask each other every ten steps, for it has them wait.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.requested = False

    def is_asked(self, args: Any) -> bool:
        """Whether any process is asked to stop; called by all at the same points."""
        return any_process(self.requested, args.device)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        is_now = args.world_size == 1 or args.device.type == "cpu" or state.global_step % STEPS_BETWEEN_QUESTIONS == 0
        if is_now and self.is_asked(args) and not control.should_training_stop:
            control.should_save |= not float(state.epoch or 0).is_integer()
        return control

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.is_asked(args) and not control.should_training_stop and state.global_step < state.max_steps:
            # Not by should_training_stop: transformers would go on to score the half epoch as if it were one,
            # and remove this checkpoint where another one is the best.
            raise Interrupted(f"stopped at step {state.global_step} of {state.max_steps} of stage '{self.stage}'")


@contextlib.contextmanager
def _stop_on_interrupt(stage: str) -> Iterator[StopOnRequest]:
    """While open, the first Ctrl-C or warning asks for a checkpoint and a stop; a Ctrl-C after it stops at once.

    A further warning does not: `timeout`, batch systems and terminals send several at a time.
    """
    stop = StopOnRequest(stage)

    def on_request(number: int) -> None:
        if stop.requested:
            return
        stop.requested = True
        signal.signal(CTRL_C, signal.default_int_handler)
        if is_first_process():
            print("\nstopping with a checkpoint; press Ctrl-C to stop at once", file=sys.stderr)

    with stop_requests(on_request, ctrl_c=True):
        yield stop


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Errors only: the notes on file times and restored callbacks are not the user's business."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


@contextlib.contextmanager
def _tensorboard(trainer: DistillationTrainer, folder: Path) -> Iterator[None]:
    """Log to `folder`, unless the user has named loggers of their own."""
    if trainer.args.report_to or not is_first_process():
        yield
        return
    before = threading.excepthook
    # What the disk refuses the writer's thread is raised by its next call here; the thread need not print it as well.
    threading.excepthook = lambda told: None if isinstance(told.exc_value, OSError) else before(told)
    try:
        with SummaryWriter(str(folder)) as writer:
            trainer.add_callback(TensorBoardCallback(writer))  # type: ignore[no-untyped-call]
            yield
    finally:
        threading.excepthook = before
