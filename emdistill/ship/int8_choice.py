"""Which int8 graph is worth shipping: what stays in float32, and dynamic or static; by training rows and the clock."""

import math
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emdistill.models.arithmetic import int8_overflows
from emdistill.ship.latency import Call, time_in_turns
from emdistill.ship.onnx import OUTPUT, open_session, session_answers, session_outputs
from emdistill.ship.quantize import Batch, Bits, groups, quantize_dynamic_int8, quantize_static_int8
from emdistill.states import ANSWERS
from emdistill.tasks import TaskKind
from emdistill.tasks.task import TaskData
from emdistill.training.splits import sample_batches

Quantise = Callable[..., None]
"""quantise(fp32, path, keep=groups) writes `path`."""
Score = Callable[[NDArray[np.float32]], float]

MAX_DROP_ON_TRAIN = 1.0  # points that int8 may cost on training rows before layers are kept in float32
MARGIN = 0.95  # static has to take less than this share of dynamic's time to be preferred
TIMED_ROUNDS = 5
ROUNDING = 1e-9
ROWS_TO_CHOOSE_BY = 1000  # of train: of fewer, a point is a row or two
SOME = 256  # batches that calibrate, rank the groups and are timed


@dataclass(frozen=True)
class Sample:
    """Training rows of a task, by which the int8 graph is chosen: on dev rows its score there would flatter.

    batches  padded
    score    of the logits [A, C] of their answers, in order
    kind     which of the graph's logits are answers
    output   of the graph, that answers this task
    """

    batches: Sequence[Batch]
    score: Score
    kind: TaskKind
    output: str = OUTPUT


@dataclass(frozen=True)
class Quantised:
    """How a graph was quantised: by which method, to weights of how many bits, and which groups stayed in float32."""

    method: Literal["dynamic", "static"]
    in_float32: tuple[str, ...]
    bits: Bits


def training_sample(data: TaskData, tokenizer: Any, max_length: int, output: str = OUTPUT) -> Sample:
    """ROWS_TO_CHOOSE_BY training rows of a task with its first metric."""
    task = data.task
    sample = sample_batches(
        data, tokenizer, select="last", max_length=max_length, count=ROWS_TO_CHOOSE_BY, batch_size=1
    )
    labels = [batch.pop("labels").numpy() for batch in sample]
    batches = [{name: rows.numpy() for name, rows in batch.items()} for batch in sample]

    def score(logits: NDArray[np.float32]) -> float:
        if task.kind.one_answer:
            return task.score(logits, np.concatenate(labels))[task.metrics[0]]
        windows = np.split(logits, np.cumsum([batch[ANSWERS].size for batch in batches])[:-1])
        return task.kind.score_of_windows(task, windows, [label[0] for label in labels])

    return Sample(batches, score, task.kind, output)


def logits_of(path: Path, samples: Sequence[Sample]) -> list[NDArray[np.float32]]:
    """Logits [A, C] of each sample's answers, in their order; the samples are of all outputs of the graph."""
    session = open_session(path, outputs_of=[sample.output for sample in samples])
    return [
        np.concatenate([session_answers(session, batch, sample.kind, sample.output) for batch in sample.batches])
        for sample in samples
    ]


def sensitivities(fp32: Path, quantise: Quantise, samples: Sequence[Sample]) -> dict[str, float]:
    """Group -> what quantising it alone does to the logits z, the most sensitive first.

    mean over samples of  mean (z' − z)² / var z : tasks whose logits are large count no more than the others
    """
    reference = logits_of(fp32, samples)
    sizes = [max(float(logits.var()), np.finfo(np.float32).tiny) for logits in reference]
    names = list(groups(fp32))
    differences = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.onnx"
        for name in names:
            quantise(fp32, path, keep=[other for other in names if other != name])
            parts = zip(logits_of(path, samples), reference, sizes, strict=True)
            differences[name] = float(np.mean([((logits - own) ** 2).mean() / size for logits, own, size in parts]))
    return dict(sorted(differences.items(), key=lambda item: -item[1]))


def quantize_within(
    fp32: Path, path: Path, samples: Sequence[Sample], *, quantise: Quantise, least: Sequence[float]
) -> list[str]:
    """Quantise as much as the scores allow; returns the groups left in float32.

    All groups are quantised first. While the score of any sample is below its `least`, the most sensitive group in int8
    is left in float32 as well.
    """

    def is_within() -> bool:
        parts = zip(samples, logits_of(path, samples), least, strict=True)
        return all(sample.score(logits) >= lowest for sample, logits, lowest in parts)

    quantise(fp32, path, keep=())
    in_float32: list[str] = []
    order: list[str] | None = None
    while not is_within():
        order = list(sensitivities(fp32, quantise, _some(samples))) if order is None else order
        in_float32.append(order[len(in_float32)])
        if len(in_float32) == len(order):
            shutil.copyfile(fp32, path)
            break
        quantise(fp32, path, keep=in_float32)
    return in_float32


def quantize_best(
    fp32: Path,
    path: Path,
    samples: Sequence[Sample],
    *,
    max_drop: float,
    threads: int | None = None,
    bits: Bits | None = None,
) -> Quantised | None:
    """Write the int8 graph that is worth shipping: dynamic, unless static is measurably faster here.

    None, and nothing written, where `max_drop` leaves nothing in int8.

    Both are brought within `max_drop` points (hundredths) of float32 by quantize_within, on every task of the graph.
    Static is taken where it takes less than 95 % of dynamic's time on single training texts: dynamic is the one that
    fits texts of any kind.

    samples  of every task that the graph answers; some of their rows calibrate static, and are timed
    bits     of the weights; if not given 8, and 7 where this processor would overflow by 8
    """
    bits = bits or (7 if int8_overflows() else 8)
    some = _some(samples)
    scores = [sample.score(logits) for sample, logits in zip(samples, logits_of(fp32, samples), strict=True)]
    least = [score - max_drop / 100 - ROUNDING for score in scores]
    calibration = [batch for sample in some for batch in sample.batches]
    with tempfile.TemporaryDirectory() as folder:
        methods: dict[Literal["dynamic", "static"], Quantise] = {
            "dynamic": partial(quantize_dynamic_int8, bits=bits),
            "static": partial(quantize_static_int8, calibration=calibration, bits=bits),
        }
        files = {method: Path(folder) / f"{method}.onnx" for method in methods}
        in_float32 = {
            method: quantize_within(fp32, files[method], samples, quantise=quantise, least=least)
            for method, quantise in methods.items()
        }
        whole = len(groups(fp32))
        left = {method: file for method, file in files.items() if len(in_float32[method]) < whole}
        if not left:
            return None
        outputs = [sample.output for sample in samples]
        seconds = {"dynamic": math.inf, "static": math.inf} | _seconds(left, calibration, outputs, threads)
        best: Literal["dynamic", "static"] = "static" if seconds["static"] < MARGIN * seconds["dynamic"] else "dynamic"
        shutil.copyfile(files[best], path)
    return Quantised(best, tuple(in_float32[best]), bits)


def _some(samples: Sequence[Sample]) -> list[Sample]:
    """SOME of the batches of all, as many of each, from the first to the last: they may be sorted by length."""
    most = -(-SOME // len(samples))
    return [replace(sample, batches=sample.batches[:: -(-len(sample.batches) // most)]) for sample in samples]


def _seconds(
    files: Mapping[Any, Path], batches: Sequence[Batch], outputs: Sequence[str], threads: int | None
) -> dict[Any, float]:
    """The median time of a call with the first text of each batch, without its padding; the graphs take turns."""
    texts = [
        {name: values[:1, : int(batch["attention_mask"][0].sum())] for name, values in batch.items()}
        for batch in batches
    ]

    def call(path: Path) -> Call:
        session = open_session(path, threads=threads, outputs_of=outputs)
        return lambda number: session_outputs(session, texts[number % len(texts)], outputs)

    calls = {name: call(path) for name, path in files.items()}
    times = time_in_turns(calls, rounds=TIMED_ROUNDS, calls=len(texts), seconds=math.inf)
    return {name: statistics.median(seconds) for name, seconds in times.items()}
