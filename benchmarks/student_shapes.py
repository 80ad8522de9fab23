"""Which student shapes are fast at equal parameters, and what each change to the exported graph saves.

    python benchmarks/student_shapes.py [--short] [--rounds N] [--threads N] [--output FILE.json]

Shapes: encoders of the 4.55 million parameters of TinyBERT's 4×312 (without embeddings), deeper, shallower, with fewer
heads, and with widths and heads that are multiples of 64; random weights, for only speed is asked; float32 and dynamic
int8 as `emdistill export` writes them, batch 1, lengths 32 and 128.

Graphs: 4×312 as PyTorch's exporter writes it, then with one change more at a time (`onnx_graph.py`),
and last with heads of 26 padded to 32, which `export` does not do.
"""

import statistics
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from inference import Contender, Shape, contenders, latency, onnx_contender, random_model, take_turns
from measure import arguments, print_table, ratio, save
from transformers import BertForSequenceClassification

from emdistill.ship import onnx, onnx_graph
from emdistill.ship.quantize import quantize_dynamic_int8

RUNTIMES = ("PyTorch fp32", "ONNX Runtime fp32", "ONNX Runtime int8")
LENGTHS = (32, 128)
CALLS = 10  # timed calls in one turn
TINYBERT = Shape(4, 312, 12, 1200)
# layers, width, heads, feed-forward width: the last is what is left of 4.55 million
SHAPES = {
    "4×312, 12 heads of 26 (TinyBERT)": TINYBERT,
    "4×312, 6 heads of 52": Shape(4, 312, 6, 1200),
    "4×312, 4 heads of 78": Shape(4, 312, 4, 1200),
    "4×320, 5 heads of 64": Shape(4, 320, 5, 1152),
    "2×448, 7 heads of 64": Shape(2, 448, 7, 1664),
    "3×384, 6 heads of 64": Shape(3, 384, 6, 1216),
    "6×256, 4 heads of 64": Shape(6, 256, 4, 960),
    "8×192, 3 heads of 64": Shape(8, 192, 3, 1088),
    "12×192, 3 heads of 64": Shape(12, 192, 3, 608),
}
SHORT_SHAPES = {"2×64, 4 heads": Shape(2, 64, 4, 128), "2×64, 1 head": Shape(2, 64, 1, 128)}


def main() -> None:
    options = arguments(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rounds = options.rounds or (2 if options.short else 20)
    shapes = SHORT_SHAPES if options.short else SHAPES
    entrants: dict[tuple[str, str], Contender] = {}
    for name, shape in shapes.items():
        found = contenders(random_model(shape), options.threads, with_onnx=True)
        entrants |= {(name, runtime): found[runtime] for runtime in RUNTIMES}
    parameters = {name: encoder_parameters(random_model(shape)) for name, shape in shapes.items()}
    figures = {f"shapes, length {length}": time_all(entrants, length, rounds) for length in LENGTHS}
    for title, timed in figures.items():
        show_shapes(f"{title}, batch 1, {options.threads} threads", timed, parameters)
    steps = dict(
        graphs(random_model(next(iter(SHORT_SHAPES.values())) if options.short else TINYBERT), options.threads)
    )
    for length in LENGTHS:
        figures[f"graphs, length {length}"] = timed = time_all(steps, length, rounds)
        show_graphs(f"graph, length {length}, batch 1, {options.threads} threads", timed)
    save(options.output, {"rounds": rounds, "calls": CALLS, "encoder_parameters": parameters, "figures": figures})


def encoder_parameters(model: BertForSequenceClassification) -> int:
    return sum(weight.numel() for weight in model.bert.encoder.parameters())


def time_all(entrants: Mapping[tuple[str, str], Contender], length: int, rounds: int) -> list[dict[str, Any]]:
    """Each contender's latency, and how many times faster it is than the first of its runtime, round by round."""
    ids = torch.randint(1000, 30000, (1, length))
    mask = torch.ones_like(ids)
    turns = take_turns({name: lambda it=it: it.logits(ids, mask) for name, it in entrants.items()}, rounds, CALLS)
    medians = {name: [statistics.median(turn) for turn in kept] for name, kept in turns.items()}
    first = {runtime: name for name, runtime in reversed(entrants)}
    return [
        {
            "name": name,
            "runtime": runtime,
            "megabytes": it.megabytes,
            **latency([call for turn in turns[name, runtime] for call in turn], 1),
            "faster": ratio(medians[first[runtime], runtime], medians[name, runtime]),
        }
        for (name, runtime), it in entrants.items()
    ]


def graphs(model: BertForSequenceClassification, threads: int) -> Iterator[tuple[tuple[str, str], Contender]]:
    """The model's graph with one change more at a time, in float32 and int8."""
    changes = ("_drop_reshapes", "_read_first_token_only")
    steps: dict[str, tuple[BertForSequenceClassification, tuple[str, ...]]] = {
        "as exported": (model, ()),
        "attention as one node": (model, changes[:1]),
        "last layer for the first token only (export)": (model, changes),
        "heads padded to 32": (padded_heads(model), changes),
    }
    for name, (network, made) in steps.items():
        with tempfile.TemporaryDirectory() as folder, left_out(set(changes) - set(made), one_node=bool(made)):
            graph, quantised = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
            onnx.export_onnx(network, graph, token_types=False)
            quantize_dynamic_int8(graph, quantised)
            for runtime, file in zip(RUNTIMES[1:], (graph, quantised), strict=True):
                yield (name, runtime), onnx_contender(file, threads)


@contextmanager
def left_out(changes: Iterable[str], *, one_node: bool) -> Iterator[None]:
    """For its length, export without these changes to the graph."""
    with ExitStack() as stack:
        for name in changes:
            stack.enter_context(patch.object(onnx_graph, name, lambda _: None))
        if not one_node:
            stack.enter_context(patch.object(onnx, "attention_as_one_node", nullcontext))
        yield


def padded_heads(model: BertForSequenceClassification) -> BertForSequenceClassification:
    """The same function with zero units in every head, so that heads are multiples of 32 wide."""
    config = model.config
    size = config.hidden_size // config.num_attention_heads
    wide = -(-size // 32) * 32
    units = torch.arange(config.hidden_size).view(-1, size)
    places = (torch.arange(config.num_attention_heads)[:, None] * wide + torch.arange(size)).flatten()
    padded = random_model(Shape(config.num_hidden_layers, config.hidden_size, config.num_attention_heads,
                                config.intermediate_size))  # fmt: skip
    padded.load_state_dict(model.state_dict())
    for layer in padded.bert.encoder.layer:
        attention = layer.attention.self
        for name in ("query", "key", "value"):
            linear = getattr(attention, name)
            weight = torch.zeros(wide * len(units), config.hidden_size)
            bias = torch.zeros(wide * len(units))
            weight[places], bias[places] = linear.weight.data, linear.bias.data
            linear.weight, linear.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
        dense = layer.attention.output.dense
        weight = torch.zeros(config.hidden_size, wide * len(units))
        weight[:, places] = dense.weight.data
        dense.weight = torch.nn.Parameter(weight)
        attention.attention_head_size, attention.all_head_size = wide, wide * len(units)
    return padded


def show_shapes(title: str, figures: list[dict[str, Any]], parameters: Mapping[str, int]) -> None:
    columns = ("", "millions in layers", *(f"{runtime} p50 ms (× first)" for runtime in RUNTIMES), "int8 MB")
    rows = []
    for name in dict.fromkeys(figure["name"] for figure in figures):
        own = [figure for figure in figures if figure["name"] == name]
        cells = [f"{figure['p50_ms']:.2f} ({figure['faster']['median']:.2f}×)" for figure in own]
        rows.append((name, f"{parameters[name] / 1e6:.2f}", *cells, f"{own[-1]['megabytes']:.1f}"))
    print_table(title, columns, rows)


def show_graphs(title: str, figures: list[dict[str, Any]]) -> None:
    rows = []
    for name in dict.fromkeys(figure["name"] for figure in figures):
        own = [figure for figure in figures if figure["name"] == name]
        rows.append((name, *(f"{figure['p50_ms']:.2f} ({figure['faster']['median']:.2f}×)" for figure in own)))
    print_table(title, ("", *(f"{runtime} p50 ms (× first)" for runtime in RUNTIMES[1:])), rows)


if __name__ == "__main__":
    main()
