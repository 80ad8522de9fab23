"""How fast and how large a model is: calls of any runtime timed in turns; parameters, bytes."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.errors import ConfigError, DataError
from emdistill.training.evaluate import evaluating

Sentences = Sequence[str] | Sequence[tuple[str, str]]
Call = Callable[[int], object]
"""What is timed; its argument counts its timed calls, from 0, to choose its input by."""

FEWEST_CALLS = 3  # a median needs as many


@dataclass(frozen=True)
class Latency:
    """Milliseconds per call of a whole batch: median, 95th and 99th percentile over the timed calls.

    throughput   sentences per second at the median
    calls        how many were timed
    """

    p50: float
    p95: float
    p99: float
    throughput: float
    calls: int


def time_in_turns(
    contenders: Mapping[str, Call], *, rounds: int = 10, calls: int = 10, warm_up: int = 1, seconds: float = 5.0
) -> dict[str, list[float]]:
    """Seconds of every timed call, by contender; they take turns, so that what else the machine does hits all alike.

    A turn is `warm_up` untimed calls, which bring the weights back into the processor's caches, and `calls` timed ones.
    The order rotates from round to round. A turn ends early after `seconds / rounds`, and a contender that was timed
    for `seconds` and three times at least is out of the further rounds: slow models are timed less often.
    """
    names = list(contenders)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        start = turn % max(len(names), 1)
        for name in names[start:] + names[:start]:
            if len(times[name]) >= FEWEST_CALLS and sum(times[name]) >= seconds:
                continue
            _take_turn(contenders[name], times[name], calls, warm_up, seconds / rounds)
    return times


def _take_turn(call: Call, times: list[float], calls: int, warm_up: int, seconds: float) -> None:
    for _ in range(warm_up):
        call(len(times))
    spent = 0.0
    for _ in range(calls):
        begun = perf_counter()
        call(len(times))
        elapsed = perf_counter() - begun
        times.append(elapsed)
        spent += elapsed
        if spent >= seconds:
            return


def summarise(seconds: Sequence[float], batch_size: int) -> Latency:
    """The percentiles of timed calls, interpolated linearly."""
    p50, p95, p99 = (float(value) for value in np.percentile(np.asarray(seconds) * 1000.0, [50, 95, 99]))
    return Latency(p50=p50, p95=p95, p99=p99, throughput=1000.0 * batch_size / p50, calls=len(seconds))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """While open, torch computes with so many CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
    """Time the forward passes of several models on the same sentences in turns, tokenisation left out.

    `repeats` batches are timed, going round the sentences in their order, each padded to its own longest sentence,
    after `warm_up` untimed turns. The models compute in eval mode and are left in the mode they were in. Only the
    ratios inside one call mean much: compare medians.
    Raises DataError without sentences, ConfigError for a batch size or number of repeats below 1, or a model without
    a tokenizer.
    """
    if not sentences:
        raise DataError("latency is measured on sentences, but none were given")
    for name, value in {"batch_size": batch_size, "repeats": repeats}.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}; at least 1 is needed to measure latency")
    if missing := [name for name in models if name not in tokenizers]:
        raise ConfigError(f"no tokenizer was given for: {', '.join(missing)}")
    # Full batches that go round the sentences: no more than are timed, no fewer than show every sentence.
    count = min(repeats, -(-len(sentences) // batch_size))
    places = np.arange(count * batch_size).reshape(count, batch_size) % len(sentences)
    batches = {
        name: [_tokenize(model, tokenizers[name], [sentences[place] for place in row], max_length) for row in places]
        for name, model in models.items()
    }

    def passes(name: str) -> Call:
        return lambda index: forward(models[name], batches[name][index % len(batches[name])])

    one_by_one = partial(time_in_turns, {name: passes(name) for name in models}, calls=1, warm_up=0, seconds=math.inf)
    with evaluating(*models.values()), torch.inference_mode():
        one_by_one(rounds=warm_up)
        times = one_by_one(rounds=repeats)
    return {name: summarise(seconds, batch_size) for name, seconds in times.items()}


def forward(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> Tensor:
    """The logits of one forward pass, waited for."""
    logits: Tensor = model(**inputs).logits
    # An accelerator only queues the work: without waiting, one would time the queueing.
    if logits.device.type != "cpu":
        torch.accelerator.synchronize(logits.device)
    return logits


def _tokenize(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: Sequence[str | tuple[str, str]], max_length: int
) -> dict[str, Tensor]:
    texts = [sentence if isinstance(sentence, str) else sentence[0] for sentence in batch]
    pairs = [sentence[1] for sentence in batch if not isinstance(sentence, str)] or None
    encoded = tokenizer(
        texts, text_pair=pairs, padding=True, truncation=True, max_length=max_length, return_tensors="pt"
    )
    return {name: tensor.to(model.device) for name, tensor in encoded.items()}
