"""What each operator of a chain takes on this machine: parameters, and milliseconds per text.

    cost(operator) = (chain of n of it - chain of 1) / (n - 1),    outside = chain of 1 - cost(operator), the median

so that embeddings, head and the call itself, which every chain has once, stand apart.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from transformers import PreTrainedModel

from emdistill.models.size import parameter_count
from emdistill.search.chains import ChainCost
from emdistill.ship.latency import Call, time_in_turns, torch_threads
from emdistill.ship.measurement import Batch, torch_run
from emdistill.ship.onnx import export_onnx
from emdistill.ship.operator_table import graph_call, random_text

Runtime = Literal["pytorch", "onnx"]
MANY = 5  # operators of one kind in a chain
SECONDS = 1.5  # per model


def operator_costs(
    chain_of: Callable[[str], PreTrainedModel], operators: Sequence[str], *, runtime: Runtime, length: int, threads: int
) -> tuple[dict[str, ChainCost], ChainCost]:
    """The cost of each operator, and of what is outside the operators.

    chain_of   makes a model of the operators that a word names
    length     tokens of the one text that is answered
    """
    chains = {name * count: chain_of(name * count) for name in operators for count in (1, MANY)}
    times = milliseconds(chains, runtime=runtime, length=length, threads=threads)
    sizes = {word: parameter_count(model) for word, model in chains.items()}
    table = {
        name: ChainCost(
            (sizes[name * MANY] - sizes[name]) // (MANY - 1),
            max(0.0, times[name * MANY] - times[name]) / (MANY - 1),
        )
        for name in operators
    }
    outside = statistics.median(max(0.0, times[name] - table[name].milliseconds) for name in operators)
    return table, ChainCost(sizes[operators[0]] - table[operators[0]].parameters, outside)


def milliseconds(
    models: Mapping[str, PreTrainedModel], *, runtime: Runtime, length: int, threads: int
) -> dict[str, float]:
    """The median per text of `length` tokens, the models taking turns; raises as export_onnx does."""
    for model in models.values():
        model.train(False)
    with TemporaryDirectory() as folder, torch_threads(threads):
        calls = {
            name: _call(model, random_text(model, length), runtime, Path(folder) / f"{place}.onnx", threads)
            for place, (name, model) in enumerate(models.items())
        }
        times = time_in_turns(calls, seconds=SECONDS)
    return {name: 1e3 * statistics.median(own) for name, own in times.items()}


def _call(model: PreTrainedModel, text: Batch, runtime: Runtime, file: Path, threads: int) -> Call:
    if runtime == "pytorch":
        run = torch_run(model)
        return lambda _: run(text)
    export_onnx(model, file)
    return graph_call(file, text, threads)
