"""What graphs cost on this machine, and what one more layer costs: students are timed before they are trained.

cost(L) = cost(FEW) + (L - FEW) / (MANY - FEW) · (cost(MANY) - cost(FEW))    of graphs alike but for their layers

A student's time does not depend on what it has learned, so graphs of random weights are measured: exported, quantised
and timed as `emdistill export` does it, a text of full length at a time, all graphs in turns.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from emdistill.console import status
from emdistill.models.inputs import longest_text
from emdistill.runs.search_record import Form
from emdistill.ship.gate import LENGTHS
from emdistill.ship.int8_choice import MARGIN
from emdistill.ship.latency import Call, summarise, time_in_turns
from emdistill.ship.onnx import export_onnx, open_session, session_logits
from emdistill.ship.quantize import quantize_dynamic_int8, quantize_static_int8

FEW, MANY = 1, 4  # layers
CALIBRATION = 8  # random texts
SURE = 0.95  # of MARGIN: two timings of one graph differ by a few percent
SHORT = ", short"


@dataclass(frozen=True)
class GraphCost:
    """Milliseconds of a text of 128 tokens, at the median and the 95th percentile; bytes of the file."""

    p50: float
    p95: float
    bytes: float


def along_layers(few: GraphCost, many: GraphCost, layers: int) -> GraphCost:
    """The cost at so many layers of graphs that were measured at FEW and at MANY of them."""
    steps = (layers - FEW) / (MANY - FEW)

    def at(low: float, high: float) -> float:
        return low + steps * (high - low)

    return GraphCost(at(few.p50, many.p50), at(few.p95, many.p95), at(few.bytes, many.bytes))


def measure_graphs(
    models: Mapping[str, PreTrainedModel], *, threads: int, typical: int = min(LENGTHS), seconds: float = 5.0
) -> dict[str, dict[Form, GraphCost]]:
    """Export, quantise and time models.

    typical   tokens of the texts by which `emdistill export` chooses between dynamic and static
    seconds   of timing, per graph at most
    Raises ModelError for a model that cannot be exported.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, calls, sizes = Path(name), dict[str, Call](), dict[str, int]()
        for place, (model_name, model) in enumerate(models.items()):
            with status(f"measuring {model_name} with random weights"):
                inputs, short = random_text(model), random_text(model, typical)
                for kind, file in _write_graphs(model, folder / str(place), inputs).items():
                    graph, sizes[graph] = f"{model_name} {kind}", file.stat().st_size
                    calls[graph] = graph_call(file, inputs, threads)
                    if kind != "onnx":
                        calls[graph + SHORT] = graph_call(file, short, threads)
        with status(f"timing {len(sizes)} graphs in turns"):
            times = time_in_turns(calls, seconds=seconds)
    latencies = {call: summarise(taken, 1) for call, taken in times.items()}
    # How far the slow calls lie above the others is the machine's, and is known best from all graphs together.
    tail = median(latencies[graph].p95 / latencies[graph].p50 for graph in sizes)
    costs = {graph: GraphCost(latencies[graph].p50, tail * latencies[graph].p50, sizes[graph]) for graph in sizes}
    forms: dict[str, dict[Form, GraphCost]] = {}
    for model_name in models:
        dynamic, static = f"{model_name} dynamic", f"{model_name} static"
        share = latencies[static + SHORT].p50 / latencies[dynamic + SHORT].p50
        int8 = int8_cost(costs[dynamic], costs[static], share)
        forms[model_name] = {"onnx": costs[f"{model_name} onnx"], "int8": int8}
    return forms


def int8_cost(dynamic: GraphCost, static: GraphCost, share: float) -> GraphCost:
    """What the graph that `emdistill export` takes will cost; the dearer where a few percent may turn its choice.

    share   of dynamic's time that static takes on typical texts: export takes static below MARGIN
    """
    if share < SURE * MARGIN:
        return static
    return dynamic if SURE * share > MARGIN else max(dynamic, static, key=lambda cost: cost.p50)


def _write_graphs(model: PreTrainedModel, folder: Path, inputs: Mapping[str, NDArray[np.int64]]) -> dict[str, Path]:
    folder.mkdir()
    files = {kind: folder / f"{kind}.onnx" for kind in ("onnx", "dynamic", "static")}
    _tell_vectors_apart(model)
    export_onnx(model, files["onnx"])
    quantize_dynamic_int8(files["onnx"], files["dynamic"])
    rng, batches = np.random.default_rng(1), []
    for _ in range(CALIBRATION):
        batches.append({**inputs, "input_ids": rng.permuted(inputs["input_ids"], axis=1)})
    quantize_static_int8(files["onnx"], files["static"], calibration=batches)
    return files


def _tell_vectors_apart(model: PreTrainedModel) -> None:
    """Draw biases and norms anew: those of a fresh model are equal, and equal ones stand in the file but once."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim == 1:
                weights.normal_(generator=draw)


def random_text(model: PreTrainedModel, length: int = max(LENGTHS)) -> dict[str, NDArray[np.int64]]:
    """One text of so many tokens drawn at random, or as many as the model reads."""
    shape = 1, min(length, longest_text(model))
    ids = np.random.default_rng(0).integers(model.config.vocab_size, size=shape, dtype=np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def graph_call(file: Path, inputs: Mapping[str, Any], threads: int) -> Call:
    """Answers the inputs with the graph of a file."""
    session = open_session(file, threads=threads)
    return lambda _: session_logits(session, inputs)
