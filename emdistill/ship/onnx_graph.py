"""The graph that the exporter writes, made shorter for ONNX Runtime; logits are the same up to rounding.

Attention becomes one node, ONNX Runtime's MultiHeadAttention: on its way through the exporter the model attends by a
function that writes that node, whatever its family. Of what is left, two things cost time for nothing: reshapes around
these nodes, and the last layer's answers for all tokens but the first, which is the only one a classifier reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from emdistill.models.attention import attending
from emdistill.models.multi_task import MultiTaskModel

if TYPE_CHECKING:
    import onnx_ir

    Use = tuple[onnx_ir.Node, int]

NAME = "onnx+emdistill"
ATTENTION = "MultiHeadAttention"
QUERY, KEY, VALUE, BIAS = 0, 1, 2, 5  # its inputs
# What treats every token by itself: row k of the output depends on row k of the input alone.
TOKEN_BY_TOKEN = frozenset(
    ("Add", "Sub", "Mul", "Div", "Pow", "Sum", "LayerNormalization", "Gelu", "Relu", "Tanh", "Sigmoid", "Erf")
)
FIRST = "first_token"


@contextmanager
def attention_as_one_node(model: PreTrainedModel) -> Iterator[None]:
    """For its length the exporter writes the model's attention as MultiHeadAttention; afterwards all is as before."""
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _padding)
    models = [model.of(task) for task in model.outputs] if isinstance(model, MultiTaskModel) else [model]
    with ExitStack() as stack:
        for one in {id(each.base_model): each for each in models}.values():
            stack.enter_context(attending(one, lambda _: NAME))
        yield


def shorten(model: onnx_ir.Model) -> None:
    """Take out of the graph, in place, what ONNX Runtime would compute for nothing."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    remove_unused = RemoveUnusedNodesPass()
    for node in model.graph:
        if node.op_type == ATTENTION:
            _drop_reshapes(node)
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                # Some are about to change. And where it knows them ONNX Runtime 1.31 fuses sums and LayerNorms into a
                # kernel that takes 87 µs for 128 × 312 numbers; apart they take 24.
                value.shape = None
    remove_unused(model)
    _read_first_token_only(model.graph)
    remove_unused(model)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    position_bias: Tensor | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """softmax(q·kᵀ·scaling + bias, padding left out)·v as one node: states are [B, h, L, s], the answer [B, L, h, s].

    attention_mask  [B, L], or for every query and key [B, 1, L, L], of which the keys' part is read
    sliding_window  tokens at this distance or beyond are not attended to, by a bias of their own
    """
    batch, heads, length, size = query.shape

    def side_by_side(states: Tensor) -> Tensor:
        return states.transpose(1, 2).reshape(batch, -1, heads * size)

    if attention_mask is not None and attention_mask.dim() > 2:
        attention_mask = attention_mask.to(torch.int32).amax(dim=(1, 2))
    if sliding_window is not None:
        places = torch.arange(length, device=query.device)
        beyond = (places[:, None] - places).abs() >= sliding_window
        position_bias = query.new_zeros(()).masked_fill(beyond, torch.finfo(query.dtype).min)[None, None]
    bias = () if position_bias is None else (position_bias,)
    attended = torch.onnx.ops.symbolic(
        f"com.microsoft::{ATTENTION}",
        (side_by_side(query), side_by_side(key), side_by_side(value), None, attention_mask, *bias),
        attrs={"num_heads": heads, "scale": size**-0.5 if scaling is None else float(scaling)},
        dtype=query.dtype,
        shape=(batch, length, heads * size),
        version=1,
    )
    return attended.reshape(batch, length, heads, size), None


def _padding(*_: Any, attention_mask: Tensor, **__: Any) -> Tensor:
    """1 where there is a token, 0 where there is padding: [B, L], as the node reads it."""
    return attention_mask.to(torch.int32)


def _drop_reshapes(attention: onnx_ir.Node) -> None:
    """[B, L, d] → [B, L, h, d/h] → [B, L, d] is nothing, before the node and after it."""
    for place in (QUERY, KEY, VALUE):
        state = attention.inputs[place]
        while state is not None and (producer := state.producer()) is not None and producer.op_type == "Reshape":
            state = producer.inputs[0]
        if state is not None and state.shape is not None and len(state.shape) == 3:  # rotated ones come in heads
            attention.replace_input_with(place, state)
    states = end = attention.outputs[0]
    while len(uses := list(end.uses())) == 1 and uses[0].node.op_type == "Reshape":
        end = uses[0].node.outputs[0]
    if end is not states:
        for use in list(end.uses()):
            use.node.replace_input_with(use.idx, states)


def _read_first_token_only(graph: onnx_ir.Graph) -> None:
    """Where only token 0 of a state is read, compute only token 0.

    A classifier's head reads the first token. So then do the last layer's feed-forward layers, its residuals, the
    output of its attention, its queries and their bias; of its keys and values all tokens are read.
    """
    reads_first = {(node, 0) for node in graph if _selects_first_token(node)}  # (node, its input)
    narrow: list[onnx_ir.Node] = []  # nodes that are to compute token 0 only
    for node in reversed(graph):
        uses, places = _uses(node.outputs[0]), _places_of_same_tokens(node)
        if places and uses and uses <= reads_first:
            narrow.append(node)
            reads_first |= {(node, place) for place in places}
    for state in {node.inputs[place]: None for node in narrow for place in _places_of_same_tokens(node)}:
        if state is not None and state.producer() not in narrow:
            _read_first_of(state, [use for use in _uses(state) if use in reads_first], graph)
    for node in narrow:
        if node.op_type == ATTENTION and len(node.inputs) > BIAS and (bias := node.inputs[BIAS]) is not None:
            _read_first_of(bias, [(node, BIAS)], graph, axis=2)


def _selects_first_token(node: onnx_ir.Node) -> bool:
    if node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 1:
        return False
    index = node.inputs[1].const_value if node.inputs[1] is not None else None
    return index is not None and not np.any(index.numpy()) and index.size == 1


def _places_of_same_tokens(node: onnx_ir.Node) -> list[int]:
    """The inputs of which token k alone decides token k of the output; none where others have a say."""
    if node.op_type == ATTENTION:
        return [QUERY]
    states = [place for place, value in enumerate(node.inputs) if value is not None and value.const_value is None]
    if node.op_type == "MatMul":
        return states if states == [0] else []
    return states if node.op_type in TOKEN_BY_TOKEN else []


def _read_first_of(state: onnx_ir.Value, uses: list[Use], graph: onnx_ir.Graph, *, axis: int = 1) -> None:
    import onnx_ir

    first = graph.initializers.get(FIRST)
    if first is None:
        first = onnx_ir.Value(name=FIRST, const_value=onnx_ir.tensor(np.zeros(1, dtype=np.int64), name=FIRST))
        graph.register_initializer(first)
    gather = onnx_ir.Node("", "Gather", [state, first], [onnx_ir.AttrInt64("axis", axis)])
    gather.outputs[0].name = f"{state.name}/{FIRST}"
    gather.outputs[0].type = state.type
    producer = state.producer()
    if producer is None:  # an input of the graph
        graph.insert_before(graph[0], gather)
    else:
        graph.insert_after(producer, gather)
    for node, place in uses:
        node.replace_input_with(place, gather.outputs[0])


def _uses(state: onnx_ir.Value) -> set[Use]:
    return {(use.node, use.idx) for use in state.uses()}
