"""A float32 graph in int8: dynamic, static, and which of its parts had better stay as they are.

Embedding tables become int8 with a scale a row: two thirds of a small student. Matrix products become int8 by ONNX
Runtime's quantiser, weights with a scale a column; activations get theirs in every call (dynamic), or once and for all
from training texts (static). Products with a handful of outputs, as the classifier's, stay in float32: nothing is
saved there.

A group is what is kept in float32 together: `embeddings`, `layer.0.attention`, `layer.0.feed_forward`, …, `head`.
"""

from __future__ import annotations

import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emdistill.artifact.shipping.onnx import check_onnx_packages, open_session, quiet, session_logits
from emdistill.errors import ConfigError, ModelError, nearest

Batch = Mapping[str, NDArray[Any]]
Quantise = Callable[..., None]
"""quantise(fp32, path, keep=groups) writes `path`."""
Score = Callable[[NDArray[np.float32]], float]

FLOAT = 1  # onnx.TensorProto.FLOAT
FEWEST_OUTPUTS = 16
MARGIN = 0.95  # static has to take less than this share of dynamic's time to be preferred
TIMED_ROUNDS = 5
SOME = 256  # batches that calibrate, rank the groups and are timed


@dataclass(frozen=True)
class Quantised:
    """What was done: by which method, what stayed in float32, and the score on the training rows before and after."""

    method: Literal["dynamic", "static"]
    kept: tuple[str, ...]
    score: float
    float32_score: float


def groups(fp32: Path) -> dict[str, list[str]]:
    """Group -> the names of its nodes that can be quantised, in the graph's order."""
    found: dict[str, list[str]] = {}
    for node in _quantisable(_load(fp32)):
        found.setdefault(_group(node.name), []).append(node.name)
    return found


def quantize_dynamic_int8(fp32: Path, path: Path, *, keep: Collection[str] = ()) -> None:
    """Weights in int8; activations are brought to int8 in every call, by their own range.

    keep  groups that stay in float32
    Raises ModelError: `fp32` is no graph, or has nothing to quantise; ConfigError: a group that is none.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    def products_to_int8(source: Path, target: Path, products: list[str]) -> None:
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=products,
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": FLOAT},
        )

    _quantise(fp32, path, keep, products_to_int8)


def quantize_static_int8(fp32: Path, path: Path, *, calibration: Sequence[Batch], keep: Collection[str] = ()) -> None:
    """Weights in int8; activations by the range (least to greatest) they have over the calibration batches.

    calibration  padded batches of training texts; percentiles of the ranges were tried and gained nothing
    keep         groups that stay in float32
    Raises as quantize_dynamic_int8 does, and ConfigError where there is nothing to calibrate on.
    """
    if not calibration:
        raise ConfigError("static int8 needs texts to calibrate on; give some training rows")
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    def products_to_int8(source: Path, target: Path, products: list[str]) -> None:
        quantize_static(
            source,
            target,
            _reader(source, calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=products,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={
                "MatMulConstBOnly": True,
                "DefaultTensorType": FLOAT,
                "OpTypesToExcludeOutputQuantization": ["MatMul"],
            },
        )

    _quantise(fp32, path, keep, products_to_int8)


def logits_of(path: Path, batches: Sequence[Batch], *, threads: int | None = None) -> NDArray[np.float32]:
    """Logits [rows, C] of a graph over padded batches, in their order."""
    session = open_session(path, threads=threads)
    return np.concatenate([session_logits(session, batch) for batch in batches])


def sensitivities(fp32: Path, quantise: Quantise, batches: Sequence[Batch]) -> dict[str, float]:
    """Group -> mean squared difference of the logits when this group alone is quantised, the most sensitive first."""
    reference = logits_of(fp32, batches)
    names = list(groups(fp32))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.onnx"
        for name in names:
            quantise(fp32, path, keep=[other for other in names if other != name])
            found[name] = float(((logits_of(path, batches) - reference) ** 2).mean())
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def quantize_within(
    fp32: Path, path: Path, *, quantise: Quantise, batches: Sequence[Batch], score: Score, max_drop: float
) -> list[str]:
    """Quantise as much as the score allows; returns the groups kept in float32.

    All groups are quantised first. While the score is more than `max_drop` points (hundredths) below float32's, the
    most sensitive group that is not kept yet is kept as well.

    batches, score  training rows and their score: on dev rows the choice would flatter what is measured there
    """
    least = score(logits_of(fp32, batches)) - max_drop / 100 - 1e-9
    quantise(fp32, path, keep=())
    kept: list[str] = []
    order: list[str] | None = None
    while not score(logits_of(path, batches)) >= least:
        order = list(sensitivities(fp32, quantise, _some(batches))) if order is None else order
        kept.append(order[len(kept)])
        if len(kept) == len(order):
            shutil.copyfile(fp32, path)
            break
        quantise(fp32, path, keep=kept)
    return kept


def quantize_best(
    fp32: Path,
    path: Path,
    *,
    batches: Sequence[Batch],
    score: Score,
    max_drop: float,
    threads: int | None = None,
) -> Quantised:
    """Write the int8 graph that is worth shipping: dynamic, unless static is measurably faster here.

    Both are brought within `max_drop` by quantize_within. Static is taken where it takes less than 95 % of dynamic's
    time on single training texts: dynamic is the one that fits texts of any kind.

    batches  training rows that are scored; some of them calibrate static, and are timed
    """
    some = _some(batches)
    with tempfile.TemporaryDirectory() as folder:
        methods: dict[Literal["dynamic", "static"], Quantise] = {
            "dynamic": quantize_dynamic_int8,
            "static": partial(quantize_static_int8, calibration=some),
        }
        files = {method: Path(folder) / f"{method}.onnx" for method in methods}
        kept = {
            method: quantize_within(
                fp32, files[method], quantise=quantise, batches=batches, score=score, max_drop=max_drop
            )
            for method, quantise in methods.items()
        }
        seconds = _seconds(files, some, threads)
        best: Literal["dynamic", "static"] = "static" if seconds["static"] < MARGIN * seconds["dynamic"] else "dynamic"
        shutil.copyfile(files[best], path)
    return Quantised(best, tuple(kept[best]), score(logits_of(path, batches)), score(logits_of(fp32, batches)))


def _some(batches: Sequence[Batch]) -> Sequence[Batch]:
    """SOME of the batches, from the first to the last: they may be sorted by length."""
    return batches[:: -(-len(batches) // SOME)]


def _seconds(files: Mapping[Any, Path], batches: Sequence[Batch], threads: int | None) -> dict[Any, float]:
    """The median time of a call with one text, a text a batch and without its padding; the graphs take turns."""
    sessions = {name: open_session(path, threads=threads) for name, path in files.items()}
    texts = [
        {name: values[:1, : int(batch["attention_mask"][0].sum())] for name, values in batch.items()}
        for batch in batches
    ]
    spent: dict[Any, list[float]] = {name: [] for name in files}
    for turn in range(TIMED_ROUNDS + 1):
        for name, session in sessions.items():
            for text in texts:
                start = time.perf_counter()
                session_logits(session, text)
                if turn > 0:  # the first round brings the weights into the caches
                    spent[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in spent.items()}


def _group(node: str) -> str:
    """embeddings, layer.0.attention, layer.0.feed_forward or head, as the node's name says."""
    if layer := re.match(r"layer\.(\d+)\.(attention\b)?", node):
        return f"layer.{layer[1]}.{'attention' if layer[2] else 'feed_forward'}"
    return "embeddings" if "embedding" in node else "head"


def _load(path: Path) -> Any:
    """The graph, Gemm nodes taken apart into MatMul and Add."""
    check_onnx_packages()
    import onnx
    from onnxruntime.quantization.onnx_model import ONNXModel

    try:
        model = onnx.load(path)
    except FileNotFoundError:
        raise ModelError(f"there is no file {path}; export the model first: emdistill export --onnx") from None
    except Exception as error:  # protobuf's DecodeError lies elsewhere from version to version
        raise ModelError(f"{path} is no ONNX graph ({error}); export it again: emdistill export --onnx") from error
    ONNXModel(model).replace_gemm_with_matmul()
    return model


def _quantisable(model: Any) -> list[Any]:
    """Look-ups in a table, and products with a matrix of more than a few columns."""
    matrices = {item.name: list(item.dims) for item in model.graph.initializer if item.data_type == FLOAT}
    return [
        node
        for node in model.graph.node
        if (
            node.op_type == "Gather"
            and len(matrices.get(node.input[0], [])) == 2
            and not any(a.i for a in node.attribute)
        )
        or (node.op_type == "MatMul" and matrices.get(node.input[1], [0])[-1] >= FEWEST_OUTPUTS)
    ]


def _quantise(
    fp32: Path, path: Path, keep: Collection[str], products_to_int8: Callable[[Path, Path, list[str]], None]
) -> None:
    """Tables here, products by `products_to_int8(source, target, names)`; `path` is written whole or not at all."""
    import onnx

    model = _load(fp32)
    nodes = _quantisable(model)
    known = list(dict.fromkeys(_group(node.name) for node in nodes))
    if unknown := sorted(set(keep) - set(known)):
        raise ConfigError(
            f"there is no group {unknown[0]!r} in {fp32}; there are: {', '.join(known)}.{nearest(unknown[0], known)}"
        )
    chosen = [node for node in nodes if _group(node.name) not in keep]
    if not chosen:
        raise ModelError(f"nothing of {fp32} is left to quantise; ship it in float32")
    products = [node for node in chosen if node.op_type == "MatMul"]
    _tables_to_int8(model.graph, [node for node in chosen if node.op_type == "Gather"])
    _note_types(model.graph, products)
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantised = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, prepared)
        if products:
            with quiet():
                products_to_int8(prepared, quantised, [node.name for node in products])
            model = onnx.load(quantised)
    del model.graph.value_info[:]
    del model.metadata_props[:]
    part = path.with_name(f"{path.name}.part")
    onnx.save(model, part, "protobuf")
    part.replace(path)


def _note_types(graph: Any, products: Sequence[Any]) -> None:
    """The quantiser knows no types behind ONNX Runtime's own nodes, and passes over what it does not know."""
    from onnx import helper

    known = {value.name for value in graph.value_info}
    for name in dict.fromkeys(name for node in products for name in (node.input[0], node.output[0])):
        if name not in known:
            graph.value_info.append(helper.make_tensor_value_info(name, FLOAT, None))


def _tables_to_int8(graph: Any, lookups: Sequence[Any]) -> None:
    """Each Gather(table, ids) becomes Gather(int8 table, ids) · Gather(scales, ids), a scale a row."""
    from onnx import helper, numpy_helper

    tables = {item.name: item for item in graph.initializer}
    for name in dict.fromkeys(node.input[0] for node in lookups):
        table = numpy_helper.to_array(tables[name])
        scales = np.maximum(np.abs(table).max(-1, keepdims=True) / 127, np.finfo(np.float32).tiny).astype(np.float32)
        rounded = np.rint(table / scales).astype(np.int8)
        graph.initializer.append(numpy_helper.from_array(rounded, f"{name}/int8"))
        graph.initializer.append(numpy_helper.from_array(scales, f"{name}/scales"))
    for node in lookups:
        name, ids = node.input
        made = [
            helper.make_node("Gather", [f"{name}/int8", ids], [f"{node.name}/rows"], f"{node.name}/rows"),
            helper.make_node("Cast", [f"{node.name}/rows"], [f"{node.name}/cast"], f"{node.name}/cast", to=FLOAT),
            helper.make_node("Gather", [f"{name}/scales", ids], [f"{node.name}/scales"], f"{node.name}/scales"),
            helper.make_node("Mul", [f"{node.name}/cast", f"{node.name}/scales"], node.output, node.name),
        ]
        place = list(graph.node).index(node)
        graph.node.remove(node)
        for offset, new in enumerate(made):
            graph.node.insert(place + offset, new)
    used = {name for node in graph.node for name in node.input}
    for item in [item for item in graph.initializer if item.name not in used]:
        graph.initializer.remove(item)


def _reader(prepared: Path, calibration: Sequence[Batch]) -> Any:
    """The batches as ONNX Runtime's calibration asks for them: one a call, then None."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

    names = [item.name for item in onnx.load(prepared).graph.input]

    class Reader(CalibrationDataReader):  # type: ignore[misc,unused-ignore]
        """One batch after the other."""

        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, NDArray[np.int64]] | None:
            batch = next(self.left, None)
            return None if batch is None else {name: np.asarray(batch[name], dtype=np.int64) for name in names}

    return Reader()
