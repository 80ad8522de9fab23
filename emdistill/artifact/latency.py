"""How fast and how large a model is: milliseconds a sentence, parameters, bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.errors import ConfigError, DataError

Sentences = Sequence[str] | Sequence[tuple[str, str]]
Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Latency:
    """Milliseconds a sentence: median and 95th percentile over the timed batches, and how they were had.

    threads   CPU threads that torch computed with
    """

    p50: float
    p95: float
    batch_size: int
    threads: int


def measure_latency(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Sentences,
    *,
    batch_size: int = 1,
    repeats: int = 50,
    warm_up: int = 5,
    max_length: int = 128,
) -> Latency:
    """Time one model's forward pass, tokenisation left out: milliseconds a sentence (a pair counts as one).

    `repeats` batches are timed, going round the sentences in their order, each padded to its own longest sentence,
    after `warm_up` untimed ones. The model computes in eval mode and is left in the mode it was in.
    Raises DataError without sentences, ConfigError for a batch size or number of repeats below 1.
    """
    models, tokenizers = {"model": model}, {"model": tokenizer}
    return compare_latency(
        models,
        tokenizers,
        sentences,
        batch_size=batch_size,
        repeats=repeats,
        warm_up=warm_up,
        max_length=max_length,
    )["model"]


def compare_latency(
    models: Mapping[str, PreTrainedModel],
    tokenizers: Mapping[str, PreTrainedTokenizerBase],
    sentences: Sentences,
    *,
    batch_size: int = 1,
    repeats: int = 50,
    warm_up: int = 5,
    max_length: int = 128,
) -> dict[str, Latency]:
    """Time several models on the same sentences in turns, so that what else the machine does hits all alike.

    As `measure_latency`, by name; the models take turns batch by batch, every model on the same sentences.
    Only the ratios inside one call mean much: compare medians. Raises ConfigError for a model without a tokenizer.
    """
    if not sentences:
        raise DataError("latency is measured on sentences, but none were given")
    for name, value in {"batch_size": batch_size, "repeats": repeats}.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}; at least 1 is needed to measure latency")
    missing = [name for name in models if name not in tokenizers]
    if missing:
        raise ConfigError(f"no tokenizer was given for: {', '.join(missing)}")

    batches = {
        name: _batches(model, tokenizers[name], sentences, batch_size, repeats, max_length)
        for name, model in models.items()
    }
    milliseconds: dict[str, list[float]] = {name: [] for name in models}
    with _evaluating(models.values()), torch.inference_mode():
        for turn in range(warm_up + repeats):
            for name, model in models.items():
                elapsed = _time_forward(model, batches[name][turn % len(batches[name])])
                if turn >= warm_up:
                    milliseconds[name].append(1000.0 * elapsed / batch_size)
    return {name: _summarise(times, batch_size) for name, times in milliseconds.items()}


def parameter_count(model: nn.Module) -> int:
    """How many parameters a model has; those that it uses in several places count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def model_size(model: nn.Module) -> int:
    """Bytes of a model's parameters, at the precision they are held in; shared ones count once."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def _batches(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Sentences,
    batch_size: int,
    repeats: int,
    max_length: int,
) -> list[Inputs]:
    """Full batches that go round the sentences: no more than are timed, no fewer than show every sentence."""
    count = min(repeats, -(-len(sentences) // batch_size))
    chosen = [
        [sentences[(batch * batch_size + k) % len(sentences)] for k in range(batch_size)] for batch in range(count)
    ]
    return [_tokenize(model, tokenizer, batch, max_length) for batch in chosen]


def _tokenize(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: Sequence[str | tuple[str, str]], max_length: int
) -> Inputs:
    texts = [sentence if isinstance(sentence, str) else sentence[0] for sentence in batch]
    pairs = [sentence[1] for sentence in batch if not isinstance(sentence, str)]
    encoded = tokenizer(
        texts,
        text_pair=pairs or None,
        padding=True,
        truncation=True,
        max_length=max_length,
        return_tensors="pt",
    )
    return {name: tensor.to(model.device) for name, tensor in encoded.items()}


def _time_forward(model: PreTrainedModel, inputs: Inputs) -> float:
    """Seconds of one forward pass."""
    _wait_for(model.device)
    start = perf_counter()
    model(**inputs)
    _wait_for(model.device)
    return perf_counter() - start


def _wait_for(device: torch.device) -> None:
    # An accelerator only queues the work: without waiting, one would time the queueing.
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@contextmanager
def _evaluating(models: Iterable[PreTrainedModel]) -> Iterator[None]:
    """Every module in eval mode; afterwards each in its own former mode, for parts of a model may differ."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training


def _summarise(milliseconds: Sequence[float], batch_size: int) -> Latency:
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return Latency(p50=float(p50), p95=float(p95), batch_size=batch_size, threads=torch.get_num_threads())
