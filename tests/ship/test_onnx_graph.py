from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedModel

onnx = pytest.importorskip("onnx")
onnx_ir = pytest.importorskip("onnx_ir")
onnxruntime = pytest.importorskip("onnxruntime")

from emdistill.ship.onnx import export_onnx  # noqa: E402
from emdistill.ship.onnx_graph import attention_as_one_node, shorten  # noqa: E402
from emdistill.ship.quantize import groups  # noqa: E402
from emdistill.students.factorise import factorise_embeddings  # noqa: E402

FAMILIES = ("distilbert", "albert", "mpnet")
LAYERS = 2


@pytest.fixture(params=FAMILIES, scope="module")
def exported(
    request: pytest.FixtureRequest,
    tiny_encoder: Callable[..., PreTrainedModel],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    if request.param == "albert":  # as students with factorised embeddings are: BERT's layers over a projection
        model = factorise_embeddings(tiny_encoder("bert", layers=LAYERS), 8)
    else:
        model = tiny_encoder(request.param, layers=LAYERS)
    path = tmp_path_factory.mktemp(request.param) / "model.onnx"
    export_onnx(model, path)
    return path


def test_attention_is_one_node_a_layer_and_nothing_is_reshaped(exported: Path) -> None:
    nodes = onnx.load(exported).graph.node
    kinds = Counter(node.op_type for node in nodes)
    assert kinds["MultiHeadAttention"] == LAYERS
    assert not set(kinds) & {"Softmax", "Reshape"}
    with_bias = any(len(node.input) > 5 for node in nodes if node.op_type == "MultiHeadAttention")
    assert kinds["Transpose"] == with_bias  # MPNet's, made once for all layers


def test_parts_that_stay_in_float32_together_are_named_alike(exported: Path) -> None:
    layers = [f"layer.{layer}.{part}" for layer in range(LAYERS) for part in ("attention", "feed_forward")]
    assert list(groups(exported)) == ["embeddings", *layers, "head"]


def test_the_last_layer_computes_the_first_token_only(exported: Path) -> None:
    """Read off a run: whatever comes after the last attention has one token, whatever comes before it has all."""
    graph = onnx.load(exported)
    nodes = list(graph.graph.node)
    names = {node.output[0]: node.op_type for node in nodes if node.op_type in ("MatMul", "MultiHeadAttention")}
    graph.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(list(names), _inputs(session, batch=2, length=7))
    kinds = [(kind, state.shape[1]) for kind, state in zip(names.values(), found, strict=True) if state.ndim == 3]
    last = max(place for place, (kind, _) in enumerate(kinds) if kind == "MultiHeadAttention")
    assert [tokens for _, tokens in kinds[last:]] == [1] * len(kinds[last:])  # attention and what follows it
    assert len(kinds[last:]) == 4
    assert sorted(tokens for _, tokens in kinds[last - 3 : last]) == [1, 7, 7]  # queries; keys and values
    assert {tokens for _, tokens in kinds[: last - 3]} == {7}


def test_the_model_attends_as_before_afterwards(tiny_encoder: Callable[..., PreTrainedModel]) -> None:
    model = tiny_encoder("bert")
    before = model.config._attn_implementation
    with attention_as_one_node(model):
        assert model.config._attn_implementation != before
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("reads_all", [True, False])
def test_what_others_read_is_left_whole(reads_all: bool) -> None:
    """One head reads the first token; where another reads the mean over all, nothing may be cut."""
    whole = _two_layers(reads_all)
    cut = onnx_ir.from_proto(_two_layers(reads_all))
    shorten(cut)
    states = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
    expected, _ = _run(whole, states)
    found, products = _run(onnx_ir.to_proto(cut), states)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert [product.shape[1] for product in products] == ([6, 6] if reads_all else [1, 1])


def _two_layers(reads_all: bool) -> Any:
    """Gelu(x·A + b), LayerNorm, ·C, and of that the first token, or the first token and the mean."""
    draw = np.random.default_rng(1)
    weights = {"A": draw.normal(size=(4, 4)), "b": draw.normal(size=4), "g": np.ones(4), "C": draw.normal(size=(4, 4))}
    constants = [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    constants.append(onnx.numpy_helper.from_array(np.array(0, dtype=np.int64), "zero"))
    constants.append(onnx.numpy_helper.from_array(np.array([1], dtype=np.int64), "one"))
    make = onnx.helper.make_node
    nodes = [
        make("MatMul", ["x", "A"], ["xA"]),
        make("Add", ["xA", "b"], ["sum"]),
        make("Gelu", ["sum"], ["gelu"]),
        make("LayerNormalization", ["gelu", "g"], ["norm"]),
        make("MatMul", ["norm", "C"], ["states"]),
        make("Gather", ["states", "zero"], ["first" if reads_all else "y"], axis=1),
    ]
    if reads_all:
        nodes.append(make("ReduceMean", ["states", "one"], ["mean"], keepdims=0))
        nodes.append(make("Add", ["first", "mean"], ["y"]))
    value = partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    inputs, outputs = [value("x", shape=["B", "L", 4])], [value("y", shape=["B", 4])]
    graph = onnx.helper.make_graph(nodes, "head", inputs, outputs, initializer=constants)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


def _run(graph: Any, states: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The answer, and every product on the way to it."""
    names = [node.output[0] for node in graph.graph.node if node.op_type == "MatMul"]
    graph.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    answer, *products = session.run(None, {"x": states})
    return answer, products


def _inputs(session: Any, batch: int, length: int) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(0).integers(5, 30, (batch, length))
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return {value.name: given[value.name] for value in session.get_inputs()}
