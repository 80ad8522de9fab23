"""Scores of a model on a task: plain, in float32, without the objective."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from datasets import Dataset
from rich.console import Console
from rich.progress import track
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.data.batches import padding_collator, tokenise
from emdistill.data.metrics import score
from emdistill.data.task import Task
from emdistill.models.arithmetic import fast_float32


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


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    evaluation: dict[str, Dataset],
    *,
    max_length: int,
    batch_size: int = 64,
    description: str = "",
) -> dict[str, float]:
    """Metric name -> value; the first set's metrics under their own names, further sets' as `set/metric`."""
    scores: dict[str, float] = {}
    for place, (name, examples) in enumerate(evaluation.items()):
        logits = predict_logits(
            model, tokenizer, examples, max_length=max_length, batch_size=batch_size, description=description
        )
        found = score(task, logits, np.asarray(examples["label"]))
        scores |= found if place == 0 else {f"{name}/{metric}": value for metric, value in found.items()}
    return scores
