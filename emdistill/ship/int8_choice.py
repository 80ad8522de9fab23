"""Which int8 graph is worth shipping: what stays in float32, and dynamic or static; by training rows and the clock."""

import math
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emdistill.ship.latency import Call, time_in_turns
from emdistill.ship.onnx import open_session, session_answers, session_logits
from emdistill.ship.quantize import Batch, groups, quantize_dynamic_int8, quantize_static_int8
from emdistill.tasks import KINDS, TaskKind

Quantise = Callable[..., None]
"""quantise(fp32, path, keep=groups) writes `path`."""
Score = Callable[[NDArray[np.float32]], float]

MARGIN = 0.95  # static has to take less than this share of dynamic's time to be preferred
TIMED_ROUNDS = 5
ROUNDING = 1e-9
ONE_ANSWER = KINDS["classification"]
SOME = 256  # batches that calibrate, rank the groups and are timed


@dataclass(frozen=True)
class Quantised:
    """How a graph was quantised: by which method, and which groups stayed in float32."""

    method: Literal["dynamic", "static"]
    in_float32: tuple[str, ...]


def logits_of(
    path: Path, batches: Sequence[Batch], *, threads: int | None = None, kind: TaskKind = ONE_ANSWER
) -> NDArray[np.float32]:
    """Logits [A, C] of a graph's answers over padded batches, in their order."""
    session = open_session(path, threads=threads)
    return np.concatenate([session_answers(session, batch, kind) for batch in batches])


def sensitivities(
    fp32: Path, quantise: Quantise, batches: Sequence[Batch], kind: TaskKind = ONE_ANSWER
) -> dict[str, float]:
    """Group -> mean squared difference of the logits when this group alone is quantised, the most sensitive first."""
    reference = logits_of(fp32, batches, kind=kind)
    names = list(groups(fp32))
    differences = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.onnx"
        for name in names:
            quantise(fp32, path, keep=[other for other in names if other != name])
            differences[name] = float(((logits_of(path, batches, kind=kind) - reference) ** 2).mean())
    return dict(sorted(differences.items(), key=lambda item: -item[1]))


def quantize_within(
    fp32: Path,
    path: Path,
    *,
    quantise: Quantise,
    batches: Sequence[Batch],
    score: Score,
    least: float,
    kind: TaskKind = ONE_ANSWER,
) -> list[str]:
    """Quantise as much as the score allows; returns the groups left in float32.

    All groups are quantised first. While the score is below `least`, the most sensitive group in int8 is
    left in float32 as well.

    batches, score  training rows and their score: on dev rows the choice would flatter what is measured there
    """
    quantise(fp32, path, keep=())
    in_float32: list[str] = []
    order: list[str] | None = None
    while not score(logits_of(path, batches, kind=kind)) >= least:
        order = list(sensitivities(fp32, quantise, _some(batches), kind)) if order is None else order
        in_float32.append(order[len(in_float32)])
        if len(in_float32) == len(order):
            shutil.copyfile(fp32, path)
            break
        quantise(fp32, path, keep=in_float32)
    return in_float32


def quantize_best(
    fp32: Path,
    path: Path,
    batches: Sequence[Batch],
    score: Score,
    *,
    max_drop: float,
    threads: int | None = None,
    kind: TaskKind = ONE_ANSWER,
) -> Quantised | None:
    """Write the int8 graph that is worth shipping: dynamic, unless static is measurably faster here.

    None, and nothing written, where `max_drop` leaves nothing in int8.

    Both are brought within `max_drop` points (hundredths) of float32 by quantize_within. Static is taken where it takes
    less than 95 % of dynamic's time on single training texts: dynamic is the one that fits texts of any kind.

    batches  training rows that are scored; some of them calibrate static, and are timed
    kind     of the task: which of the graph's logits are answers
    """
    some = _some(batches)
    least = score(logits_of(fp32, batches, kind=kind)) - max_drop / 100 - ROUNDING
    with tempfile.TemporaryDirectory() as folder:
        methods: dict[Literal["dynamic", "static"], Quantise] = {
            "dynamic": quantize_dynamic_int8,
            "static": partial(quantize_static_int8, calibration=some),
        }
        files = {method: Path(folder) / f"{method}.onnx" for method in methods}
        in_float32 = {
            method: quantize_within(
                fp32, files[method], quantise=quantise, batches=batches, score=score, least=least, kind=kind
            )
            for method, quantise in methods.items()
        }
        whole = len(groups(fp32))
        left = {method: file for method, file in files.items() if len(in_float32[method]) < whole}
        if not left:
            return None
        seconds = {"dynamic": math.inf, "static": math.inf} | _seconds(left, some, threads)
        best: Literal["dynamic", "static"] = "static" if seconds["static"] < MARGIN * seconds["dynamic"] else "dynamic"
        shutil.copyfile(files[best], path)
    return Quantised(best, tuple(in_float32[best]))


def _some(batches: Sequence[Batch]) -> Sequence[Batch]:
    """SOME of the batches, from the first to the last: they may be sorted by length."""
    return batches[:: -(-len(batches) // SOME)]


def _seconds(files: Mapping[Any, Path], batches: Sequence[Batch], threads: int | None) -> dict[Any, float]:
    """The median time of a call with the first text of each batch, without its padding; the graphs take turns."""
    texts = [
        {name: values[:1, : int(batch["attention_mask"][0].sum())] for name, values in batch.items()}
        for batch in batches
    ]

    def call(path: Path) -> Call:
        session = open_session(path, threads=threads)
        return lambda number: session_logits(session, texts[number % len(texts)])

    calls = {name: call(path) for name, path in files.items()}
    times = time_in_turns(calls, rounds=TIMED_ROUNDS, calls=len(texts), warm_up=1, seconds=math.inf)
    return {name: statistics.median(seconds) for name, seconds in times.items()}
