"""How fast a model is: calls of any runtime, timed in turns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter, thread_time

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from emdistill.models.encoder import head_logits

Call = Callable[[int], object]
"""What is timed; its argument counts its timed calls, from 0, to choose its input by."""

FEWEST_CALLS = 3  # a median needs as many
LEAST_TURN = 0.03  # seconds of timed calls: what stops the machine for some milliseconds is few of a turn's, not all
WARM_UP = 5e-3  # seconds until a call takes what it will take: of 0.3 ms, the first takes 2.5 times that, the fifth 1.1


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
    contenders: Mapping[str, Call], *, rounds: int = 10, calls: int = 10, warm_up: float = WARM_UP, seconds: float = 5.0
) -> dict[str, list[float]]:
    """Seconds of every timed call, by contender; they take turns, so that what else the machine does hits all alike.

    A turn is untimed calls, one at least and `warm_up` seconds of them, which bring the weights back into the
    processor's caches, and `calls` timed ones, or more where these take less than LEAST_TURN. The order rotates from
    round to round. A turn ends early after `seconds / rounds`, and a contender that was timed for `seconds` and three
    times at least is out of the further rounds: slow models are timed less often.
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


def _take_turn(call: Call, times: list[float], calls: int, warm_up: float, seconds: float) -> None:
    begun = thread_time()  # that of other processes warms nothing
    call(len(times))
    while thread_time() - begun < warm_up:
        call(len(times))
    spent, timed = 0.0, 0
    while (timed < calls or spent < LEAST_TURN) and (timed == 0 or spent < seconds):
        begun = perf_counter()
        call(len(times))
        times.append(perf_counter() - begun)
        spent += times[-1]
        timed += 1


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


def forward(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> Tensor:
    """The logits of one forward pass, waited for."""
    logits = head_logits(model(**inputs))
    # An accelerator only queues the work: without waiting, one would time the queueing.
    if logits.device.type != "cpu":
        torch.accelerator.synchronize(logits.device)
    return logits
