"""What a student saves at inference against its teacher: PyTorch, ONNX Runtime, ONNX Runtime in int8.

    python benchmarks/inference.py [--short] [--rounds N] [--threads N] [--output FILE.json]

Random weights in the shapes of BERT-base (12 layers of 768) with a 4×312 student and of MiniLM (6×384) with a 3×384
student; batches of 1 and 32 sentences of 32 and 128 tokens, none of them padding. The graphs are those of `emdistill
export`: float32, and int8 by dynamic quantisation. Their logits are compared with PyTorch's on every timed input and on
the same input padded, and float32 graphs that differ by more than 1e-4 are refused. How much int8 costs in accuracy is
a question for trained weights, not for this script. PyTorch is timed twice: as it comes, and with float32 products by
oneDNN, which emdistill asks for where the processor then still multiplies in float32.

Models take turns. A turn is one untimed call, that brings the weights back into the processor's caches, and a few timed
ones. Without onnx, onnxscript and onnxruntime (`pip install emdistill[onnx]`), PyTorch is timed alone.
"""

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from measure import arguments, interleave, print_table, ratio, save
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

from emdistill.models.arithmetic import fast_float32, onednn_keeps_float32
from emdistill.ship.onnx import export_onnx, open_session, session_logits
from emdistill.ship.quantize import quantize_dynamic_int8

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TORCH, ONEDNN, FLOAT, INT8 = "PyTorch fp32", "PyTorch fp32, oneDNN", "ONNX Runtime fp32", "ONNX Runtime int8"
TOLERANCE = 1e-4
LENGTHS = (32, 128)
TIMED_CALLS = {1: 10, 32: 2}  # in one turn, by batch size


class Shape(NamedTuple):
    """An encoder's size; `intermediate` is the width of the feed-forward layers."""

    layers: int
    hidden: int
    heads: int
    intermediate: int

    def __str__(self) -> str:
        return f"{self.layers}×{self.hidden}"


class Contender(NamedTuple):
    """One model in one runtime: logits [B, C] from input ids and mask [B, L], and the MB that its weights take."""

    logits: Callable[[Tensor, Tensor], Tensor]
    megabytes: float


PAIRS = {
    "BERT-base": (Shape(12, 768, 12, 3072), Shape(4, 312, 12, 1200)),
    "MiniLM": (Shape(6, 384, 12, 1536), Shape(3, 384, 12, 1536)),
}
SHORT_PAIRS = {"small": (Shape(4, 128, 4, 512), Shape(2, 64, 4, 256))}


def main() -> None:
    options = arguments(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        print(f"not installed: {', '.join(missing)} (pip install emdistill[onnx]); PyTorch is timed alone")
    rounds = options.rounds or (3 if options.short else 20)
    figures = []
    for name, (teacher, student) in (SHORT_PAIRS if options.short else PAIRS).items():
        models = {f"teacher {teacher}": random_model(teacher), f"student {student}": random_model(student)}
        runtimes = {model: contenders(module, options.threads, not missing) for model, module in models.items()}
        for batch, calls in TIMED_CALLS.items():
            for length in LENGTHS:
                case = compare(runtimes, batch, length, rounds, calls)
                show(f"{name}, batch {batch}, length {length}, {options.threads} threads", case)
                figures += [{"pair": name, "batch": batch, "length": length, **figure} for figure in case]
    versions = {package: version(package) for package in PACKAGES if package not in missing}
    save(options.output, {"versions": versions, "rounds": rounds, "timed_calls": TIMED_CALLS, "figures": figures})


def random_model(shape: Shape) -> BertForSequenceClassification:
    config = BertConfig(
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        attn_implementation="sdpa",
    )
    return BertForSequenceClassification(config).eval()


def contenders(model: BertForSequenceClassification, threads: int, with_onnx: bool) -> dict[str, Contender]:
    """The same model in every runtime at hand, by the runtime's name."""
    megabytes = sum(weight.numel() * weight.element_size() for weight in model.parameters()) / 1e6

    @torch.inference_mode()
    def logits(ids: Tensor, mask: Tensor) -> Tensor:
        return model(input_ids=ids, attention_mask=mask).logits

    def by_onednn(ids: Tensor, mask: Tensor) -> Tensor:
        with fast_float32():
            return logits(ids, mask)

    found = {TORCH: Contender(logits, megabytes)}
    if onednn_keeps_float32():
        found[ONEDNN] = Contender(by_onednn, megabytes)
    if with_onnx:
        with tempfile.TemporaryDirectory() as folder:
            graph, quantised = Path(folder) / "model.onnx", Path(folder) / "model_int8.onnx"
            export_onnx(model, graph, token_types=False)
            quantize_dynamic_int8(graph, quantised)
            found |= {FLOAT: onnx_contender(graph, threads), INT8: onnx_contender(quantised, threads)}
    return found


def onnx_contender(graph: Path, threads: int) -> Contender:
    session = open_session(graph, threads=threads)

    def logits(ids: Tensor, mask: Tensor) -> Tensor:
        return torch.from_numpy(session_logits(session, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}))

    return Contender(logits, graph.stat().st_size / 1e6)


def compare(
    runtimes: Mapping[str, Mapping[str, Contender]], batch: int, length: int, rounds: int, calls: int
) -> list[dict[str, Any]]:
    """Figures of every model in every runtime on one batch; the first model is the teacher.

    Times are of a whole batch, in ms; "saved" is how many times faster than the teacher in the same runtime, and
    "saved_in_all" than the teacher in PyTorch: medians and quartiles over the rounds.
    """
    ids = torch.randint(1000, 30000, (batch, length))
    mask = torch.ones_like(ids)
    entrants = {(model, runtime): it for model, found in runtimes.items() for runtime, it in found.items()}
    differences = {
        (model, runtime): difference(entrants[model, TORCH], it, ids, f"{model}, {runtime}")
        for (model, runtime), it in entrants.items()
    }
    turns = take_turns({name: lambda it=it: it.logits(ids, mask) for name, it in entrants.items()}, rounds, calls)
    medians = {name: [statistics.median(turn) for turn in kept] for name, kept in turns.items()}
    teacher = next(iter(runtimes))
    return [
        {
            "model": model,
            "runtime": runtime,
            "megabytes": it.megabytes,
            **latency([second for turn in turns[model, runtime] for second in turn], batch),
            "saved": ratio(medians[teacher, runtime], medians[model, runtime]),
            "saved_in_all": ratio(medians[teacher, TORCH], medians[model, runtime]),
            "largest_difference": differences[model, runtime],
        }
        for (model, runtime), it in entrants.items()
    ]


def difference(reference: Contender, contender: Contender, ids: Tensor, name: str) -> float:
    """The largest |logit − PyTorch's| on the timed input and on the same with its first sentence padded."""
    full, padded = torch.ones_like(ids), torch.ones_like(ids)
    padded[0, ids.shape[1] // 2 :] = 0
    largest = max((contender.logits(ids, m) - reference.logits(ids, m)).abs().max().item() for m in (full, padded))
    if not name.endswith(INT8) and not largest <= TOLERANCE:
        raise SystemExit(f"{name}: logits differ from PyTorch's by {largest:.1e}, more than {TOLERANCE}; not timed")
    return largest


def take_turns(
    runs: Mapping[tuple[str, str], Callable[[], object]], rounds: int, calls: int
) -> dict[tuple[str, str], list[list[float]]]:
    """Seconds of each call, by contender and round; the order of the contenders rotates from round to round."""
    names = list(runs)
    turns: dict[tuple[str, str], list[list[float]]] = {name: [] for name in names}
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            turns[name].append(interleave({"run": runs[name]}, calls, warmup=1)["run"])
    return turns


def latency(seconds: Sequence[float], batch: int) -> dict[str, float]:
    p50 = statistics.median(seconds)
    p95 = statistics.quantiles(seconds, n=20, method="inclusive")[-1]
    return {"p50_ms": 1e3 * p50, "p95_ms": 1e3 * p95, "sentences_per_second": batch / p50, "calls": len(seconds)}


def show(title: str, figures: Sequence[Mapping[str, Any]]) -> None:
    columns = ("", "MB", "p50 ms", "p95 ms", "sentences/s", "× same runtime", "× PyTorch teacher", "largest difference")
    rows = [
        (
            f"{figure['model']}, {figure['runtime']}",
            f"{figure['megabytes']:.1f}",
            f"{figure['p50_ms']:.2f}",
            f"{figure['p95_ms']:.2f}",
            f"{figure['sentences_per_second']:.0f}",
            *("{median:.2f} ({low:.2f}–{high:.2f})".format(**figure[kind]) for kind in ("saved", "saved_in_all")),
            f"{figure['largest_difference']:.0e}",
        )
        for figure in figures
    ]
    print_table(title, columns, rows)


if __name__ == "__main__":
    main()
