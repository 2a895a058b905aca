"""fp32 graph → int8 products with static activation scales.

Every ``MatMul`` with a large constant matrix becomes ``QuantizeLinear`` (one scale for the tensor,
fixed by calibration) and ``MatMulIntegerToFloat`` (8-bit weights, one scale a column), plain
self-attention ``QAttention``, which multiplies likewise. Scales that are fixed make a score
independent of the batch it is computed in, which dynamic quantisation does not (onnxruntime#10111),
and save the pass that looks for the range.

Weights keep 7 of their 8 bits: on processors without VNNI two u8×s8 products are added in 16 bits
and saturate; with |weight| ≤ 64 they cannot (255 × 64 × 2 < 32768): one file is right everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from flashrank_lite.errors import InvalidModel
from flashrank_lite.export.attention import Attention, find_attention
from flashrank_lite.export.calibration import Product, Rounded, calibrate
from flashrank_lite.export.nodes import Feeds, drop_unused
from flashrank_lite.export.weights import value

SMALLEST_SIDE = 64  # smaller matrices (a classifier's) stay fp32: they cost nothing and decide most
# Added to the scores of padding before the softmax. exp(-60) is 9e-27, and still a normal number:
# with -10,000 the softmax met denormal ones and took 51 ms where it now takes 28.
MASK = -60.0


def quantise_products(model: onnx.ModelProto, batches: Iterable[Feeds]) -> onnx.ModelProto:
    """Replace products with constant matrices by int8 ones, in place.

    GELUs between two such products become their tanh approximation.

    Args:
        model: an fp32 graph; constants are initializers.
        batches: inputs of the graph on real text, to calibrate the activations on.

    Returns:
        ``model``.

    Raises:
        InvalidModel: the graph has no product to quantise.
    """
    graph = model.graph
    feeds = list(batches)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    attentions = {found.last: found for found in find_attention(model, feeds)}
    inside = {name for found in attentions.values() for name in found.nodes}
    products = {
        node.name for node in graph.node if node.name not in inside and _is_product(node, constants)
    }
    if not products and not attentions:
        raise InvalidModel("the graph has no matrix product with a constant: nothing to quantise")
    plan = [Product(n.input[0], (n.input[1],)) for n in graph.node if n.name in products]
    plan += [
        Product(found.source, tuple(p.weight for p in found.projections))
        for found in attentions.values()
    ]
    rounded = calibrate(model, plan, list(attentions.values()), feeds)
    writer = _Writer(graph, rounded)
    for node in list(graph.node):
        if node.name in attentions:
            writer.attention(attentions[node.name])
        elif node.name in products:
            writer.product(node)
        elif node.name not in inside:
            writer.keep(node)
    del graph.node[:]
    graph.node.extend(writer.nodes)
    _approximate_gelu(graph, {product.source for product in plan})
    drop_unused(graph)
    return model


class _Writer:
    """Writes the nodes of the int8 graph, in the order of the fp32 one."""

    def __init__(self, graph: onnx.GraphProto, rounded: Mapping[str, Rounded]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._graph = graph
        self._rounded = rounded
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
            self._add_matrix(weight, source, (weight,), self._value(bias, weight))
        self._node("MatMulIntegerToFloat", inputs, output, f"{node.name}_int8")

    def attention(self, found: Attention) -> None:
        """The three products, softmax and mixing as one operator."""
        source = found.source
        self._quantise(source)
        # Named after the weights: two streams of text may go through one layer.
        name = f"{found.projections[0].weight}_attention"
        if self._first(f"{name}_s8"):
            biases = [self._value(p.bias, p.weight) for p in found.projections]
            reader = self._rounded.get(found.output)
            if reader is not None and reader.folded:
                biases[2] = biases[2] / reader.divisors
            weights = tuple(p.weight for p in found.projections)
            self._add_matrix(name, source, weights, np.concatenate(biases), columnwise=False)
        mask = f"{found.mask}_int32"
        if self._first(mask):
            self.nodes.append(
                helper.make_node("Cast", [found.mask], [mask], name=mask, to=TensorProto.INT32)
            )
        inputs = [f"{source}_u8", f"{name}_s8", f"{name}_bias", f"{source}_scale", f"{name}_scale"]
        inputs += [mask, f"{source}_zero", f"{name}_zero"]
        self._node(
            *("QAttention", inputs, found.output, f"{found.last}_int8"),
            num_heads=found.heads,
            scale=found.scale,
            mask_filter_value=MASK,
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
        self.nodes.append(
            helper.make_node("QuantizeLinear", inputs, [f"{name}_u8"], name=f"{name}_quantise")
        )

    def _add_matrix(
        self,
        name: str,
        source: str,
        weights: tuple[str, ...],
        bias: NDArray[np.float32],
        *,
        columnwise: bool = True,
    ) -> None:
        """``columnwise``: whether the operator wants one zero point a column, or one for all."""
        matrix = self._rounded[source].matrices[weights]
        self._add(f"{name}_s8", matrix.stored)
        self._add(f"{name}_scale", matrix.scale)
        self._add(f"{name}_zero", np.zeros(len(bias) if columnwise else (), np.int8))
        self._add(f"{name}_bias", bias + matrix.bias)

    def _value(self, bias: str | None, weight: str) -> NDArray[np.float32]:
        if bias:
            return value(self._constants[bias])
        return np.zeros(self._constants[weight].dims[1], np.float32)

    def _add(self, name: str, constant: NDArray[Any]) -> None:
        self._graph.initializer.append(numpy_helper.from_array(constant, name))

    def _node(
        self, operator: str, inputs: list[str], output: str, name: str, **attributes: Any
    ) -> None:
        self.nodes.append(
            helper.make_node(
                *(operator, inputs, [output]), name=name, domain="com.microsoft", **attributes
            )
        )

    def _first(self, name: str) -> bool:
        """Whether ``name`` is asked for the first time."""
        new = name not in self._done
        self._done.add(name)
        return new


def _approximate_gelu(graph: onnx.GraphProto, quantised: set[str]) -> None:
    """GELU by tanh where 8-bit rounding follows: at most 5e-4 off, in 0.7 of the time."""
    for node in graph.node:
        if node.op_type in ("Gelu", "BiasGelu") and node.output[0] in quantised:
            node.op_type, node.domain = "FastGelu", "com.microsoft"


def _is_product(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    if node.op_type != "MatMul" or node.input[1] not in constants:
        return False
    dims = constants[node.input[1]].dims
    return len(dims) == 2 and min(dims) >= SMALLEST_SIDE
