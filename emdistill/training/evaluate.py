"""Scores of a model on a task: plain, in float32, without the objective."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Required, TypedDict, TypeVar, Unpack

import numpy as np
import torch
from datasets import Dataset
from rich.progress import track
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.console import Terminal, is_silent
from emdistill.data.batches import PaddingCollator, note_cut, texts_cut, tokenise
from emdistill.errors import tell
from emdistill.losses import Objective
from emdistill.models.arithmetic import fast_float32
from emdistill.models.capture import capture
from emdistill.models.inputs import longest_text
from emdistill.models.teacher import TeacherSource, kind_of
from emdistill.states import ANSWERS, answers_per_feature
from emdistill.tasks.task import Task

Collate = Callable[[list[dict[str, Any]]], Mapping[str, Tensor]]
Item = TypeVar("Item")
Score = Callable[[np.ndarray, np.ndarray], dict[str, float]]


class Reading(TypedDict, total=False):
    """How texts are read; a description puts a bar on the terminal."""

    max_length: Required[int]
    batch_size: int
    description: str


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Every module in eval mode; afterwards each in its own former mode, for parts of a model may differ."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training


def with_bar(items: Iterable[Item], description: str, total: int | None = None) -> Iterable[Item]:
    """The items under a progress bar on stderr, for results go to stdout; no bar without a description.

    total  how many a stream has
    """
    console = Terminal(stderr=True)
    return track(items, description, total, transient=True, disable=not description or is_silent(), console=console)


def predict_logits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Dataset,
    *,
    max_length: int,
    batch_size: int = 64,
    description: str = "",
    tell_cut: bool = False,
) -> np.ndarray:
    """The logits of rows in the order of `examples`, in eval mode, longest first inside.

    examples   columns `text`, perhaps `text_pair`, and those of the kind that the model was trained for
    tell_cut   say on stderr how many texts are longer than max_length
    [rows, C]; ragged where a row has several answers (tasks/answers.py).
    """
    kind = kind_of(model)
    read = [name for name in ("text", "text_pair", *kind.columns) if name in examples.column_names]
    encoded = tokenise(examples.select_columns(read), tokenizer, max_length, kind)
    if tell_cut and kind.one_answer and (cut := texts_cut(examples, encoded, [tokenizer], max_length)):
        tell(note_cut(cut, len(examples), max_length, longest_text(model)))
    logits: list[np.ndarray] = [np.empty(0)] * len(encoded)
    with evaluating(model), torch.inference_mode(), fast_float32():
        for places, batch in _batches(encoded, PaddingCollator(tokenizer), batch_size, model.device, description):
            answers = capture(model, batch, ()).logits.float().cpu().numpy()
            ends = np.cumsum(answers_per_feature(batch))
            for place, own in zip(places, np.split(answers, ends[:-1]), strict=True):
                logits[place] = own
    return kind.of_rows(logits, examples, encoded)


def score_features(task: Task, rows: Dataset, features: Dataset, order: Sequence[int]) -> Score:
    """What scores a training's padded logits [features, A, C] of `features` in this order, as the logits of `rows`."""
    if task.kind.one_answer:
        return task.score
    gold, counts = task.gold(rows), [len(places) for places in features[ANSWERS]]

    def score(logits: np.ndarray, _: np.ndarray) -> dict[str, float]:
        own = {place: padded[: counts[place]] for place, padded in zip(order, logits, strict=True)}
        return task.score(task.kind.of_rows([own[place] for place in range(len(features))], rows, features), gold)

    return score


def _batches(
    encoded: Dataset, collate: Collate, batch_size: int, device: torch.device, description: str
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """The numbers of a batch's rows and its tensors, the longest rows first."""
    lengths = list(encoded["length"])
    order = sorted(range(len(encoded)), key=lambda row: -lengths[row])
    encoded = encoded.remove_columns("length")
    for start in with_bar(range(0, len(order), batch_size), description):
        rows = order[start : start + batch_size]
        yield rows, {name: tensor.to(device) for name, tensor in collate([encoded[row] for row in rows]).items()}


def predict_sets(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    evaluation: Mapping[str, Dataset],
    **reading: Unpack[Reading],
) -> dict[str, np.ndarray]:
    """The logits of every evaluation set, by its name."""
    return {name: predict_logits(model, tokenizer, examples, **reading) for name, examples in evaluation.items()}


def score_sets(task: Task, logits: Mapping[str, np.ndarray], evaluation: Mapping[str, Dataset]) -> dict[str, float]:
    """Metric name -> value; the first set's metrics under their own names, further sets' as `set/metric`."""
    scores: dict[str, float] = {}
    for place, (name, examples) in enumerate(evaluation.items()):
        metrics = task.score(logits[name], task.gold(examples))
        scores |= metrics if place == 0 else {f"{name}/{metric}": value for metric, value in metrics.items()}
    return scores


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    evaluation: Mapping[str, Dataset],
    **reading: Unpack[Reading],
) -> dict[str, float]:
    """The scores of `score_sets` for the logits of `predict_sets`; keywords as of `predict_logits`."""
    return score_sets(task, predict_sets(model, tokenizer, evaluation, **reading), evaluation)


def mean_terms(
    student: PreTrainedModel,
    teacher: TeacherSource,
    objective: Objective,
    examples: Dataset,
    collate: Collate,
    *,
    description: str = "",
) -> dict[str, float]:
    """Term name -> its mean over the batches of `examples`, with its weight; everything in eval mode."""
    sums: dict[str, float] = {}
    objective.to(student.device)
    with evaluating(student, objective), torch.inference_mode(), fast_float32():
        for rows, batch in _batches(examples, collate, 32, student.device, description):
            states = capture(student, batch, objective.student_needs, objective.student_layers)
            taught = teacher(batch, objective.needs, objective.teacher_layers) if objective.taught else states
            for name, value in objective(states, taught, batch)[1].items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(rows) / len(examples)
    return sums
