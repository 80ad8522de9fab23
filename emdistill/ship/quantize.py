"""A float32 graph in int8, dynamic or static, but for the parts that are to stay as they are.

Embedding tables become int8 with a scale per row: two thirds of a small student. Matrix products become int8, weights
with a scale per column; activations get a scale per token in every call (dynamic), or one range for all, once and for
all, from training texts (static). Either way an answer depends on its text alone, and not on what else is in the batch.
Products with a handful of outputs, as the classifier's, stay in float32: nothing is saved there.

A group is what is kept in float32 together: `embeddings`, `layer.0.attention`, `layer.0.feed_forward`, …, `head`; of
a chain's operators also `layer.0.convolution`.
"""

import re
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emdistill.errors import ConfigError, ModelError, nearest
from emdistill.files import written_whole
from emdistill.ship.onnx import check_onnx_packages, quiet

Batch = Mapping[str, NDArray[Any]]

Bits = Literal[7, 8]

FLOAT = 1  # onnx.TensorProto.FLOAT
MICROSOFT = "com.microsoft"
TINY = np.finfo(np.float32).tiny
# The constants of _tokens_to_int8: ONNX Runtime's product of int8 is fast for activations without a sign.
ROUNDING: Mapping[str, NDArray[Any]] = {
    "last": np.array([-1], np.int64),
    "step": np.array(1 / 127, np.float32),
    "tiny": np.array(TINY, np.float32),
    "one": np.array(1, np.float32),
    "middle": np.array(128, np.uint8),
}
FEWEST_OUTPUTS = 16


def groups(fp32: Path) -> dict[str, list[str]]:
    """Group -> the names of its nodes that can be quantised, in the graph's order."""
    groups: dict[str, list[str]] = {}
    for node in _quantisable(_load(fp32)):
        groups.setdefault(_group(node.name), []).append(node.name)
    return groups


def quantize_dynamic_int8(fp32: Path, path: Path, *, keep: Collection[str] = (), bits: Bits = 8) -> None:
    """Weights in int8; activations are brought to int8 in every call, each token by its own largest value.

    x̂ = round(x / s),  s = max|x| / 127 of the token;  y = s · scale of the column · (x̂ Ŵ), the sum in whole numbers

    keep  groups that stay in float32
    bits  of the weights; 7 where the processor adds two products in 16 bits, which 8 would overflow
    Raises ModelError: `fp32` is no graph, or has nothing to quantise; ConfigError: a group that is none.
    """
    _quantise(fp32, path, keep, partial(_products_by_token, bits=bits))


def quantize_static_int8(
    fp32: Path, path: Path, *, calibration: Sequence[Batch], keep: Collection[str] = (), bits: Bits = 8
) -> None:
    """Weights in int8; activations by the range (least to greatest) they have over the calibration batches.

    calibration  padded batches of training texts; percentiles of the ranges were tried and gained nothing
    keep, bits   as of quantize_dynamic_int8
    Raises as quantize_dynamic_int8 does, and ConfigError where there is nothing to calibrate on.
    """
    if not calibration:
        raise ConfigError("static int8 needs texts to calibrate on; give some training rows")
    _quantise(fp32, path, keep, partial(_products_by_range, calibration=calibration, bits=bits))


def _group(node: str) -> str:
    """embeddings, layer.0.attention (or .convolution, .feed_forward) or head, as the node's name says."""
    if layer := re.match(r"layer\.(\d+)\.((attention|convolution)\b)?", node):
        return f"layer.{layer[1]}.{layer[2] or 'feed_forward'}"
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


def _quantise(fp32: Path, path: Path, keep: Collection[str], products_to_int8: Callable[[Any, list[Any]], Any]) -> None:
    """Tables here, products by `products_to_int8(model, nodes)`; `path` is written whole or not at all."""
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
    _tables_to_int8(model.graph, [node for node in chosen if node.op_type == "Gather"])
    if products := [node for node in chosen if node.op_type == "MatMul"]:
        model = products_to_int8(model, products)
    del model.graph.value_info[:]
    del model.metadata_props[:]
    with written_whole(path) as part:
        onnx.save(model, part, "protobuf")


def _products_by_token(model: Any, products: Sequence[Any], *, bits: Bits) -> Any:
    """Each MatMul(x, W) becomes MatMulIntegerToFloat(x̂, Ŵ, scales of the columns) · s, a scale s per token."""
    from onnx import helper, numpy_helper

    matrices = {item.name: item for item in model.graph.initializer}
    constants, made, in_int8 = dict(ROUNDING), {}, set()
    for node in products:
        x, w = node.input
        tokens = [] if x in in_int8 else _tokens_to_int8(x)  # queries, keys and values read the same
        in_int8.add(x)
        whole, scales = _whole_numbers(numpy_helper.to_array(matrices[w]), 0, 2 ** (bits - 1) - 1)
        zeros = np.zeros(scales.size, np.int8)
        constants |= {f"{w}/int8": whole, f"{w}/scales": scales.ravel(), f"{w}/zeros": zeros}
        inputs = [f"{x}/int8", f"{w}/int8", "one", f"{w}/scales", "middle", f"{w}/zeros"]
        product = f"{node.name}/product"
        made[node.name] = [
            *tokens,
            helper.make_node("MatMulIntegerToFloat", inputs, [product], product, domain=MICROSOFT),
            helper.make_node("Mul", [product, f"{x}/scale"], node.output, node.name),
        ]
    _replace(model.graph, made, constants)
    if MICROSOFT not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return model


def _tokens_to_int8(x: str) -> list[Any]:
    """x/int8 = round(x / s) + 128 and x/scale = s = max|x| / 127 of each token; of a token of zeros s is tiny."""
    from onnx import helper

    steps = (
        ("Abs", [x], "size"),
        ("ReduceMax", [f"{x}/size", "last"], "largest"),
        ("Mul", [f"{x}/largest", "step"], "step"),
        ("Max", [f"{x}/step", "tiny"], "scale"),
        ("Div", [x, f"{x}/scale"], "steps"),
        ("QuantizeLinear", [f"{x}/steps", "one", "middle"], "int8"),
    )
    return [helper.make_node(kind, inputs, [f"{x}/{name}"], f"{x}/{name}") for kind, inputs, name in steps]


def _whole_numbers(matrix: NDArray[np.float32], axis: int, most: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """The matrix in whole numbers up to `most`, and the scales, one for all that lies along the axis."""
    scales = np.maximum(np.abs(matrix).max(axis, keepdims=True) / most, TINY).astype(np.float32)
    return np.rint(matrix / scales).astype(np.int8), scales


def _products_by_range(model: Any, products: Sequence[Any], *, calibration: Sequence[Batch], bits: Bits) -> Any:
    """The products by ONNX Runtime's quantiser, which works on files."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    _note_types(model.graph, products)
    with tempfile.TemporaryDirectory() as folder, quiet():
        prepared, quantised = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, prepared)
        quantize_static(
            prepared, quantised, _Reader(model, calibration), quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True, reduce_range=bits < 8,
            op_types_to_quantize=["MatMul"], nodes_to_quantize=[node.name for node in products],
            extra_options={
                "MatMulConstBOnly": True, "DefaultTensorType": FLOAT, "OpTypesToExcludeOutputQuantization": ["MatMul"],
            },
        )  # fmt: skip
        return onnx.load(quantised)


def _note_types(graph: Any, products: Sequence[Any]) -> None:
    """The quantiser knows no types behind ONNX Runtime's own nodes, and passes over what it does not know."""
    from onnx import helper

    known = {value.name for value in graph.value_info}
    for name in dict.fromkeys(name for node in products for name in (node.input[0], node.output[0])):
        if name not in known:
            graph.value_info.append(helper.make_tensor_value_info(name, FLOAT, None))


def _tables_to_int8(graph: Any, lookups: Sequence[Any]) -> None:
    """Each Gather(table, ids) becomes Gather(int8 table, ids) · Gather(scales, ids), a scale per row."""
    from onnx import helper, numpy_helper

    tables = {item.name: item for item in graph.initializer}
    constants: dict[str, NDArray[Any]] = {}
    made = {}
    for node in lookups:
        name, ids = node.input
        whole, scales = _whole_numbers(numpy_helper.to_array(tables[name]), 1, 127)
        constants |= {f"{name}/int8": whole, f"{name}/scales": scales}
        made[node.name] = [
            helper.make_node("Gather", [f"{name}/int8", ids], [f"{node.name}/rows"], f"{node.name}/rows"),
            helper.make_node("Cast", [f"{node.name}/rows"], [f"{node.name}/cast"], f"{node.name}/cast", to=FLOAT),
            helper.make_node("Gather", [f"{name}/scales", ids], [f"{node.name}/scales"], f"{node.name}/scales"),
            helper.make_node("Mul", [f"{node.name}/cast", f"{node.name}/scales"], node.output, node.name),
        ]
    _replace(graph, made, constants)


def _replace(graph: Any, made: Mapping[str, Sequence[Any]], constants: Mapping[str, NDArray[Any]]) -> None:
    """Put the nodes made in the place of those of these names, with their constants; what nothing reads goes."""
    from onnx import numpy_helper

    nodes = [new for node in graph.node for new in made.get(node.name, [node])]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    used = {name for node in graph.node for name in node.input}
    for item in [item for item in graph.initializer if item.name not in used]:
        graph.initializer.remove(item)


class _Reader:
    """The batches as ONNX Runtime's calibration asks for them: one per call, then None."""

    def __init__(self, model: Any, calibration: Sequence[Batch]) -> None:
        names = [item.name for item in model.graph.input]
        self.left = ({name: np.asarray(batch[name], dtype=np.int64) for name in names} for batch in calibration)

    def get_next(self) -> dict[str, NDArray[np.int64]] | None:
        return next(self.left, None)
