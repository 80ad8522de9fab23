"""A small learnable task, a tiny teacher and student, and stages of training on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from emdistill.data.batches import tokenise
from emdistill.methods import METHODS
from emdistill.models.encoder import encoder_shape
from emdistill.models.teacher import Teacher
from emdistill.runs.flow_recorder import FlowRecorder
from emdistill.training import Stage
from emdistill.training.run_stages import run_stages, seed_everything, stage_arguments
from emdistill.training.stage_teachers import CacheChoice, stage_teachers

NOUNS = ("movie", "book", "it", "the movie and the book")
SETTINGS = {"num_train_epochs": 2, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "disable_tqdm": True}


def make_examples(rows: int = 48, *, seed: int = 0) -> Dataset:
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


@dataclass
class Run:
    """One training from scratch: what it read and what it left."""

    student: PreTrainedModel
    teacher: Teacher
    tokenizer: PreTrainedTokenizerBase
    stages: list[Stage]
    folder: Path
    settings: dict[str, Any]
    score: Callable[..., dict[str, float]] = accuracy
    cache: CacheChoice = "none"

    @property
    def train(self) -> Dataset:
        """What it learns from, tokenised."""
        return tokenise(make_examples(), self.tokenizer, 64)

    def go(
        self, *, choose: bool = False, resume: bool = False, callbacks: tuple[TrainerCallback, ...] = ()
    ) -> list[dict[str, Any]]:
        """Run all stages; raises what they raise."""
        arguments = [
            stage_arguments(stage, self.settings, folder=self.folder, choose=choose, metric="accuracy", seed=3)
            for stage in self.stages
        ]
        train = self.train
        cache_folder = self.folder / "teacher_cache"
        return run_stages(
            self.student,
            self.tokenizer,
            self.stages,
            arguments,
            teachers=stage_teachers(
                self.stages, self.teacher, train, self.tokenizer, cache=self.cache, folder=cache_folder
            ),
            train=train,
            choose_on=tokenise(make_examples(24, seed=1), self.tokenizer, 64) if choose else None,
            score=self.score,
            folder=self.folder,
            resume=resume,
            callbacks=[FlowRecorder(self.folder / "flows.jsonl", self.stages), *callbacks],
        )


@pytest.fixture
def new_run(
    tmp_path: Path, tiny_encoder: Callable[..., PreTrainedModel], tiny_tokenizer: PreTrainedTokenizerBase
) -> Callable[..., Run]:
    """Factory: new_run("name", method="bert-emd", objective={...}, **training) is a run that starts from scratch."""

    def make(name: str = "run", *, method: str = "bert-emd", objective: dict[str, Any] | None = None, **training: Any):
        teacher = Teacher(tiny_encoder(layers=3, width=16, heads=2, seed=1))
        student = tiny_encoder(layers=2, width=8, heads=2, seed=2)
        seed_everything(3)
        stages = METHODS[method](encoder_shape(student), teacher.shape, **(objective or {}))
        return Run(student, teacher, tiny_tokenizer, stages, tmp_path / name, {**SETTINGS, **training})

    return make
