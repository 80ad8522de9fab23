"""Scores of a model on a task: plain, in float32, without the objective."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from rich.console import Console
from rich.progress import track
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.data.batches import padding_collator, tokenise
from emdistill.losses import Objective
from emdistill.models.arithmetic import fast_float32
from emdistill.models.capture import capture
from emdistill.models.teacher import TeacherSource
from emdistill.tasks.task import Task

Collate = Callable[[list[dict[str, Any]]], Mapping[str, Tensor]]


def predict_logits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Dataset,
    *,
    max_length: int,
    batch_size: int = 64,
    description: str = "",
) -> np.ndarray:
    """Logits [rows, C] in the order of `examples` (columns `text`, `text_pair`), in eval mode, longest first inside."""
    encoded = tokenise(
        examples.select_columns([n for n in ("text", "text_pair") if n in examples.column_names]), tokenizer, max_length
    )
    lengths = list(encoded["length"])
    order = sorted(range(len(encoded)), key=lambda row: -lengths[row])
    encoded = encoded.remove_columns("length")
    collate = padding_collator(tokenizer)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    logits = np.zeros((len(encoded), int(model.config.num_labels or 1)), dtype=np.float32)
    was_training = model.training
    model.train(False)
    with torch.inference_mode(), fast_float32():
        for rows in _with_bar(batches, description):
            inputs = collate([encoded[row] for row in rows])
            inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
            logits[rows] = model(**inputs).logits.float().cpu().numpy()
    model.train(was_training)
    return logits


def _with_bar(batches: list[list[int]], description: str) -> Iterable[list[int]]:
    """A progress bar on stderr: results go to stdout."""
    return track(
        batches, description=description, transient=True, disable=not description, console=Console(stderr=True)
    )


def predict_sets(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    evaluation: Mapping[str, Dataset],
    *,
    max_length: int,
    batch_size: int = 64,
    description: str = "",
) -> dict[str, np.ndarray]:
    """Logits [rows, C] of every evaluation set, by its name."""
    return {
        name: predict_logits(
            model, tokenizer, examples, max_length=max_length, batch_size=batch_size, description=description
        )
        for name, examples in evaluation.items()
    }


def score_sets(task: Task, logits: Mapping[str, np.ndarray], evaluation: Mapping[str, Dataset]) -> dict[str, float]:
    """Metric name -> value; the first set's metrics under their own names, further sets' as `set/metric`."""
    scores: dict[str, float] = {}
    for place, (name, examples) in enumerate(evaluation.items()):
        found = task.score(logits[name], np.asarray(examples["label"]))
        scores |= found if place == 0 else {f"{name}/{metric}": value for metric, value in found.items()}
    return scores


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    evaluation: Mapping[str, Dataset],
    *,
    max_length: int,
    batch_size: int = 64,
    description: str = "",
) -> dict[str, float]:
    """The scores of `score_sets` for the logits of `predict_sets`."""
    logits = predict_sets(
        model, tokenizer, evaluation, max_length=max_length, batch_size=batch_size, description=description
    )
    return score_sets(task, logits, evaluation)


def mean_terms(
    student: PreTrainedModel,
    teacher: TeacherSource,
    objective: Objective,
    examples: Dataset,
    collate: Collate,
    *,
    batch_size: int = 32,
    description: str = "",
) -> dict[str, float]:
    """Term name -> its mean over the batches of `examples`, with its weight; everything in eval mode."""
    lengths = list(examples["length"])
    order = sorted(range(len(examples)), key=lambda row: -lengths[row])
    encoded = examples.remove_columns("length")
    sums: dict[str, float] = {}
    was_training = student.training, objective.training
    student.train(False)
    objective.train(False)
    device = student.device
    objective.to(device)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    with torch.inference_mode(), fast_float32():
        for rows in _with_bar(batches, description):
            inputs = {name: tensor.to(device) for name, tensor in collate([encoded[row] for row in rows]).items()}
            states = capture(student, inputs, objective.needs, objective.student_layers)
            taught = teacher(inputs, objective.needs, objective.teacher_layers) if objective.taught else states
            for name, value in objective(states, taught, inputs)[1].items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(rows) / len(order)
    student.train(was_training[0])
    objective.train(was_training[1])
    return sums
