"""Computes only the part of the last layer that the head reads.

A classifier reads the state of one token, most often the first. The last layer
still needs keys and values of all tokens, but queries, softmax, feed-forward part and norms only of
that one. This saves nearly one layer of six, or nearly half of two, and changes no score.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from flashrank_lite.export.graph.attention import Attention, find_attention
from flashrank_lite.export.graph.nodes import Feeds, watch

# Operators that compute a token's row from that row alone (and constants).
_ROWWISE = {
    *("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Erf", "Tanh", "Sigmoid", "Relu", "Identity"),
    *("Gelu", "BiasGelu", "FastGelu", "QuickGelu", "MatMul"),
    *("LayerNormalization", "SimplifiedLayerNormalization"),
}


def keep_read_token(model: onnx.ModelProto, feeds: Sequence[Feeds]) -> onnx.ModelProto:
    """Narrow the last layer to one token, if the head reads only one.

    Args:
        model: an fp32 graph as `to_onnx` gives it; constants are initializers.
        feeds: a batch of real text, to see shapes by.

    Returns:
        `model`, changed in place.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    reading = [node for node in graph.node if _constant_place(node, constants) is not None]
    for node in reading:
        region = _Region(graph, node, constants, find_attention(model, feeds))
        if region.products and _of_tokens(model, region.edges, feeds):
            _narrow(graph, node, region, constants)
            break
    return model


class _Region:
    """Nodes that need only one token.

    Attributes:
        nodes: their names.
        attentions: those whose queries are of one token.
        edges: tensors, (n, tokens, ...), from which the token has to be taken.
        products: whether there is any matrix product among the nodes.
    """

    def __init__(
        self,
        graph: onnx.GraphProto,
        reading: onnx.NodeProto,
        constants: dict[str, onnx.TensorProto],
        attentions: Sequence[Attention],
    ) -> None:
        readers = {output.name: {""} for output in graph.output}
        for node in graph.node:
            for name in node.input:
                readers.setdefault(name, set()).add(node.name)
        mixing = {attention.nodes[-1]: attention for attention in attentions}
        wanted, given = {reading.input[0]}, set[str]()
        self.nodes, self.attentions = {reading.name}, list[Attention]()
        self.products = False
        for node in reversed(graph.node):  # they stand in the order of computation
            output = node.output[0]
            if output not in wanted or not readers[output] <= self.nodes:
                continue
            if node.name in mixing:
                attention = mixing[node.name]
                self.attentions.append(attention)
                self.nodes |= {*attention.nodes}
                wanted.add(attention.query)
            elif _is_rowwise(node, constants):
                self.products = self.products or node.op_type == "MatMul"
                self.nodes.add(node.name)
                wanted |= {name for name in node.input if name not in constants}
            else:
                continue
            given.add(output)
        self.edges = sorted(wanted - given)


def _narrow(
    graph: onnx.GraphProto,
    reading: onnx.NodeProto,
    region: _Region,
    constants: dict[str, onnx.TensorProto],
) -> None:
    place = _constant_place(reading, constants) or 0
    inside = {name: a for a in region.attentions for name in a.nodes}
    values = {
        "read_start": np.array([place]),
        "read_end": np.array([place + 1 or np.iinfo(np.int64).max]),
        "read_tokens": np.array([1]),
        "read_queries": np.array([-2]),
        "read_first": np.array(0),
        "read_joined": np.array([0, 0, -1]),
    }
    values |= {f"read_split_{a.heads}": np.array([0, 0, a.heads, -1]) for a in region.attentions}
    graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in values.items())
    nodes: list[onnx.NodeProto] = []
    taken: set[str] = set()

    def take(name: str, axis: str) -> str:
        """One token of a tensor; the node that takes it stands before its first reader."""
        one = f"{name}_read"
        if one not in taken:
            taken.add(one)
            inputs = [name, "read_start", "read_end", axis]
            nodes.append(helper.make_node("Slice", inputs, [one], name=one))
        return one

    for node in graph.node:
        attention = inside.get(node.name)
        if node.name == reading.name:
            if node.input[0] in region.edges:
                node.input[0] = take(node.input[0], "read_tokens")
            node.input[1] = "read_first"
        elif attention is not None:
            if node.name == attention.split:
                if attention.query in region.edges:
                    node.input[0] = take(attention.query, "read_tokens")
                node.input[1] = f"read_split_{attention.heads}"
            elif node.name == attention.nodes[-1]:
                node.input[1] = "read_joined"
            elif attention.wide and attention.bias in node.input:
                which = list(node.input).index(attention.bias)
                node.input[which] = take(attention.bias, "read_queries")
        elif node.name in region.nodes:
            for number, name in enumerate(node.input):
                if name in region.edges:
                    node.input[number] = take(name, "read_tokens")
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _constant_place(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> int | None:
    """Which token `node` takes out of (n, tokens, hidden); None if it does no such thing."""
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    if node.op_type != "Gather" or axis != 1 or node.input[0] in constants:
        return None
    index = constants.get(node.input[1])
    return int(numpy_helper.to_array(index)) if index is not None and not index.dims else None


def _is_rowwise(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    if node.op_type not in _ROWWISE:
        return False
    if node.op_type.endswith("LayerNormalization"):
        return next((a.i for a in node.attribute if a.name == "axis"), -1) in (-1, 2)
    fixed = [constants[name] for name in node.input if name in constants]
    if node.op_type == "MatMul":
        return node.input[1] in constants and len(fixed[0].dims) == 2
    return all(len(tensor.dims) <= 1 for tensor in fixed)


def _of_tokens(model: onnx.ModelProto, names: list[str], feeds: Sequence[Feeds]) -> bool:
    """Whether the second axis of each of these tensors is that of the tokens."""
    feed = feeds[0]
    shapes = {tensor.shape for tensor in feed.values()}
    return all(
        value.ndim == 3 and value.shape[:2] in shapes
        for value in watch(model, names)(feed).values()
    )
