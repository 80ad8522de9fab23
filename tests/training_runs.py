"""Short trainings: a small learnable task, a tiny teacher and student, what interrupts them and what compares them."""

import functools
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from emdistill.data.batches import tokenise
from emdistill.models.teacher import Teacher
from emdistill.runs.flow_recorder import FlowRecorder
from emdistill.states import EncoderStates
from emdistill.training import DistillationTrainer, Stage
from emdistill.training.lesson import Lesson
from emdistill.training.run_stages import run_stages
from emdistill.training.stage_arguments import stage_arguments
from emdistill.training.stage_teachers import CacheChoice, stage_teachers
from emdistill.training.two_vocabularies import tokenise_for_both

NOUNS = ("movie", "book", "it", "the movie and the book")
ROWS, STEPS_AN_EPOCH = 48, 6  # in batches of 8
SETTINGS = {
    "num_train_epochs": 2, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "disable_tqdm": True,
    "logging_steps": 1, "flow_steps": 1,
}  # fmt: skip
TWO_PHASES = {"schedule": "two-phase", "intermediate_share": 0.5, "intermediate_learning_rate": 1e-3}


@functools.cache
def make_examples(rows: int = ROWS, *, seed: int = 0) -> Dataset:
    """Sentences of 3 to 12 words, label 1 where they hold 'good' and 0 where they hold 'bad'."""
    draw = np.random.default_rng(seed)
    labels = [row % 2 for row in range(rows)]
    words = [[str(draw.choice(["very", "not", "and", "of"])) for _ in range(draw.integers(0, 6))] for _ in range(rows)]
    texts = [
        " ".join([str(draw.choice(NOUNS)), "was", *filler, "good" if label else "bad"])
        for label, filler in zip(labels, words, strict=True)
    ]
    return Dataset.from_dict({"text": texts, "label": labels})


def accuracy(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Share of right answers, as the training loop wants it."""
    return {"accuracy": float((logits.argmax(-1) == labels).mean())}


class CountingTeacher(Teacher):
    """Notes what each of its passes was asked for, and the ids of its sentences."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self.passes: list[tuple[frozenset[str], torch.Tensor]] = []

    def __call__(self, inputs: Any, needs: Any = (), layers: Any = None) -> EncoderStates:
        self.passes.append((frozenset(needs), inputs["input_ids"]))
        return super().__call__(inputs, needs, layers)

    def sentences(self) -> int:
        """How many it was asked about, all passes together."""
        return sum(len(ids) for _, ids in self.passes)


@dataclass
class Run:
    """One training from scratch: what it read and what it left."""

    student: PreTrainedModel
    teacher: CountingTeacher
    tokenizer: PreTrainedTokenizerBase
    stages: list[Stage]
    folder: Path
    settings: dict[str, Any]
    cache: CacheChoice = "none"
    score: Callable[..., dict[str, float]] = accuracy
    teacher_tokenizer: PreTrainedTokenizerBase | None = None
    seed: int = 3
    log: list[dict[str, Any]] = field(default_factory=list)

    @functools.cached_property
    def train(self) -> Dataset:
        """What it learns from, tokenised."""
        return tokenise_for_both(make_examples(), self.tokenizer, 64, self.teacher_tokenizer)

    def go(self, *callbacks: TrainerCallback, choose: bool = False, resume: bool = False) -> list[dict[str, Any]]:
        """Run all stages and give their logs; raises what they raise."""
        arguments = [
            stage_arguments(stage, self.settings, folder=self.folder, choose=choose, metric="accuracy", seed=self.seed)
            for stage in self.stages
        ]
        cache_folder = self.folder / "teacher_cache"
        reader = self.teacher_tokenizer or self.tokenizer
        teachers = stage_teachers(self.stages, self.teacher, self.train, reader, cache=self.cache, folder=cache_folder)
        choose_on = tokenise(make_examples(24, seed=1), self.tokenizer, 64) if choose else None
        lesson = Lesson(
            self.student, self.tokenizer, self.stages, arguments, self.train, choose_on=choose_on, score=self.score,
            teacher_tokenizer=self.teacher_tokenizer,
        )  # fmt: skip
        recorder = FlowRecorder(self.folder / "flows.jsonl", self.stages)
        self.log = run_stages(lesson, teachers, self.folder, resume=resume, callbacks=[recorder, *callbacks])
        return self.log


class AtStep(TrainerCallback):
    """Does something, by default presses Ctrl-C, when a step (of a stage) begins for the first time."""

    def __init__(self, step: int, stage: str | None = None, action: Callable[[], Any] | None = None) -> None:
        self.step = step
        self.stage = stage
        self.action = press_ctrl_c if action is None else action
        self.done = False

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        here = self.stage is None or Path(args.output_dir).name == self.stage
        if here and state.global_step == self.step and not self.done:
            self.done = True
            self.action()


def press_ctrl_c() -> None:
    """Returns once the handler has been called, which with other threads about may be a while later."""
    before, end = signal.getsignal(signal.SIGINT), time.monotonic() + 5
    signal.raise_signal(signal.SIGINT)
    while signal.getsignal(signal.SIGINT) is before and time.monotonic() < end:
        time.sleep(0.001)  # the handler puts back the one before it, or raises KeyboardInterrupt here


class Asynchronous(DistillationTrainer):
    """The schedule of an accelerator, on whatever there is."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._asynchronous = self._finite.delayed = True


def same_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def same_models(one: nn.Module, other: nn.Module) -> bool:
    return same_tensors(one.state_dict(), other.state_dict())


def assert_same_outcome(one: Run, other: Run, *, resumed_after: str | None = None) -> None:
    """Student, projections, layer weights and flows are equal bit for bit.

    resumed_after: a stage that was finished when `other` was taken up again: of it the student alone is kept
    """
    assert same_models(one.student, other.student)
    for stage, again in zip(one.stages, other.stages, strict=True):
        assert same_models(stage.objective, again.objective) or stage.name == resumed_after
    flows = [run.folder / "flows.jsonl" for run in (one, other)]
    assert flows[0].exists() == flows[1].exists()
    assert not flows[0].exists() or flows[0].read_bytes() == flows[1].read_bytes()


def assert_close(one: nn.Module, other: nn.Module, tolerance: float) -> None:
    """All weights but the keys' biases, whose gradient is rounding alone: softmax does not see them."""
    for (name, weight), other_weight in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        if not name.endswith("key.bias"):
            torch.testing.assert_close(weight, other_weight, rtol=tolerance, atol=tolerance)
