"""fp32 graph → int8 products with static activation scales.

Every `MatMul` with a large constant matrix becomes `QuantizeLinear` (one scale for the tensor,
fixed by calibration) and `MatMulIntegerToFloat` (8-bit weights, one scale a column), plain
attention one operator. Scales that are fixed make a score independent of the batch it is computed
in, which dynamic quantisation does not (onnxruntime#10111), and save the pass that looks for the
range.

Weights keep 7 of their 8 bits: on processors without VNNI two u8×s8 products are added in 16 bits
and saturate; with |weight| ≤ 64 they cannot (255 × 64 × 2 < 32768): one file is right everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from flashrank_lite.errors import InvalidModel
from flashrank_lite.export.graph.attention import find_attention, fuse_attention
from flashrank_lite.export.graph.calibration import Product, Rounded, calibrate
from flashrank_lite.export.graph.nodes import Feeds, drop_unused
from flashrank_lite.export.graph.weights import value

MICROSOFT = "com.microsoft"  # the domain of onnxruntime's own operators
SMALLEST_SIDE = 64  # smaller matrices (a classifier's) stay fp32: they cost nothing and decide most


def quantise_products(
    model: onnx.ModelProto, batches: Iterable[Feeds], *, accurate: bool = False
) -> onnx.ModelProto:
    """Replace products with constant matrices by int8 ones and attention by one operator, in place.

    Args:
        model: an fp32 graph; constants are initializers.
        batches: inputs of the graph on real text, to calibrate the activations on.
        accurate: products with a matrix that narrows (the second of a feed-forward layer) stay
            fp32: more than half of the rounding's damage comes from them.

    Returns:
        `model`.

    Raises:
        InvalidModel: the graph has no product to quantise.
    """
    graph = model.graph
    feeds = list(batches)
    _split_gelu(graph)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    products = {
        node.name
        for node in graph.node
        if _is_product(node, constants) and not (accurate and _narrows(node, constants))
    }
    if not products:
        raise InvalidModel("the graph has no matrix product with a constant: nothing to quantise")
    plan = [Product(n.input[0], n.input[1]) for n in graph.node if n.name in products]
    attentions = find_attention(model, feeds)
    rounded = calibrate(model, plan, attentions, feeds)
    divided = {
        found.value_weight: rounded[found.output].divisors
        for found in attentions
        if found.value_weight and found.output in rounded and rounded[found.output].folded
    }
    writer = _Writer(graph, rounded, divided)
    for node in list(graph.node):
        if node.name in products:
            writer.product(node)
        else:
            writer.keep(node)
    del graph.node[:]
    graph.node.extend(writer.nodes)
    fuse_attention(model, attentions)
    drop_unused(graph)
    return model


class _Writer:
    """Writes the nodes of the int8 graph, in the order of the fp32 one.

    Args:
        graph: the fp32 graph; constants are added to it.
        rounded: what the products come to, by their source.
        divided: by what the columns of a product with a matrix are divided, by its name.
    """

    def __init__(
        self,
        graph: onnx.GraphProto,
        rounded: Mapping[str, Rounded],
        divided: Mapping[str, NDArray[np.float32]],
    ) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._graph = graph
        self._rounded, self._divided = rounded, divided
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._done: set[str] = set()
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._merged: set[str] = set()

    def keep(self, node: onnx.NodeProto) -> None:
        """Copy a node, unless a product has taken it in."""
        if node.name not in self._merged:
            self.nodes.append(node)

    def product(self, node: onnx.NodeProto) -> None:
        """A product with a constant, and the bias that is added to it alone."""
        source, weight, output = node.input[0], node.input[1], node.output[0]
        self._quantise(source)
        inputs = [f"{source}_u8", f"{weight}_s8", f"{source}_scale", f"{weight}_scale"]
        inputs += [f"{source}_zero", f"{weight}_zero", f"{weight}_bias"]
        bias = ""
        readers = self._readers.get(output, [])
        if len(readers) == 1 and readers[0].op_type == "Add":
            bias = next((name for name in readers[0].input if name != output), "")
            if bias in self._constants and len(self._constants[bias].dims) == 1:
                output = readers[0].output[0]
                self._merged.add(readers[0].name)
            else:
                bias = ""
        if self._first(f"{weight}_s8"):
            self._add_matrix(weight, source, bias)
        self.nodes.append(
            helper.make_node(
                *("MatMulIntegerToFloat", inputs, [output]),
                name=f"{node.name}_int8",
                domain=MICROSOFT,
            )
        )

    def _quantise(self, name: str) -> None:
        if not self._first(f"{name}_u8"):
            return
        rounded = self._rounded[name]
        scale, smooth = rounded.scales[name], name
        if not rounded.folded:
            smooth = f"{name}_smooth"
            self._add(f"{name}_factors", (1 / rounded.divisors).astype(np.float32))
            self.nodes.append(
                helper.make_node("Mul", [name, f"{name}_factors"], [smooth], name=smooth)
            )
        self._add(f"{name}_scale", np.array(scale.scale, np.float32))
        self._add(f"{name}_zero", np.array(scale.zero_point, np.uint8))
        inputs = [smooth, f"{name}_scale", f"{name}_zero"]
        # of this domain because onnxruntime 1.23, the last for Python 3.10, has ONNX's own only up
        # to operators of version 21, and Attention is of version 23
        self.nodes.append(
            helper.make_node(
                *("QuantizeLinear", inputs, [f"{name}_u8"]),
                name=f"{name}_quantise",
                domain=MICROSOFT,
            )
        )

    def _add_matrix(self, name: str, source: str, bias: str) -> None:
        matrix = self._rounded[source].matrices[name]
        columns = matrix.stored.shape[1]
        added: NDArray[Any] = np.zeros(columns, np.float32)
        if bias:
            added = value(self._constants[bias]) / self._divided.get(name, 1)
        self._add(f"{name}_s8", matrix.stored)
        self._add(f"{name}_scale", matrix.scale)
        self._add(f"{name}_zero", np.zeros(columns, np.int8))
        self._add(f"{name}_bias", (added + matrix.bias).astype(np.float32))

    def _add(self, name: str, constant: NDArray[Any]) -> None:
        self._graph.initializer.append(numpy_helper.from_array(constant, name))

    def _first(self, name: str) -> bool:
        """Whether `name` is asked for the first time."""
        new = name not in self._done
        self._done.add(name)
        return new


def _split_gelu(graph: onnx.GraphProto) -> None:
    """A GELU that adds the bias itself, as two: the product adds it for nothing.

    1,536 columns of 512 tokens, one core: 0.83 ms with the bias, 0.46 without.
    """
    nodes = []
    for node in graph.node:
        if node.op_type == "BiasGelu":
            added = f"{node.output[0]}_biased"
            nodes.append(helper.make_node("Add", node.input, [added], name=added))
            gelu = helper.make_node("Gelu", [added], node.output, name=node.name)
            gelu.domain = MICROSOFT
            nodes.append(gelu)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _is_product(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    if node.op_type != "MatMul" or node.input[1] not in constants:
        return False
    dims = constants[node.input[1]].dims
    return len(dims) == 2 and min(dims) >= SMALLEST_SIDE


def _narrows(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    inner, columns = constants[node.input[1]].dims
    return bool(inner > columns)
