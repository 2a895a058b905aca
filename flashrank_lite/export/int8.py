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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from flashrank_lite.errors import InvalidModel
from flashrank_lite.export.attention import Attention, Feeds, find_attention, watch

WEIGHT_MAX = 64
SMALLEST_SIDE = 64  # smaller matrices (a classifier's) stay fp32: they cost nothing and decide most
# Added to the scores of padding before the softmax. exp(-60) is 9e-27, and still a normal number:
# with -10,000 the softmax met denormal ones and took 51 ms where it now takes 28.
MASK = -60.0
SAMPLES = 200_000  # values kept of each activation
# Shares of the observed range tried for the least squared error: the rare extremes are clipped
# when that makes everything else finer.
CLIPS = tuple(np.geomspace(1.0, 0.25, 25))


@dataclass(frozen=True)
class Scale:
    """Affine uint8 quantisation of one activation: real = scale * (stored - zero_point)."""

    scale: float
    zero_point: int


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
    sources = {node.input[0] for node in graph.node if node.name in products}
    sources |= {found.source for found in attentions.values()}
    writer = _Writer(graph, calibrate(model, sorted(sources), feeds))
    for node in list(graph.node):
        if node.name in attentions:
            writer.attention(attentions[node.name])
        elif node.name in products:
            writer.product(node)
        elif node.name not in inside:
            writer.keep(node)
    del graph.node[:]
    graph.node.extend(writer.nodes)
    _approximate_gelu(graph, sources)
    drop_unused(graph)
    return model


def calibrate(model: onnx.ModelProto, names: list[str], feeds: Sequence[Feeds]) -> dict[str, Scale]:
    """The uint8 scale with the least squared error for each tensor ``names``.

    Padded positions do not count: they never reach a score.
    """
    run = watch(model, names)
    rng = np.random.default_rng(0)
    samples: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    extremes = {name: [0.0, 0.0] for name in names}
    share = max(1, SAMPLES // max(1, len(feeds)))
    for feed in feeds:
        masks = [value.astype(bool) for key, value in feed.items() if key.endswith("_mask")]
        for name, value in run(feed).items():
            real = next((mask for mask in masks if mask.shape == value.shape[:2]), ...)
            values = value[real].ravel()
            low, high = extremes[name]
            extremes[name] = [min(low, float(values.min())), max(high, float(values.max()))]
            chosen = rng.integers(len(values), size=min(share, len(values)))
            samples[name].append(values[chosen])
    return {name: _best_scale(np.concatenate(samples[name]), *extremes[name]) for name in names}


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the nodes and the initializers that nothing reads."""
    wanted = {output.name for output in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):  # they stand in the order of computation
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    constants = [tensor for tensor in graph.initializer if tensor.name in wanted]
    del graph.initializer[:]
    graph.initializer.extend(constants)


class _Writer:
    """Writes the nodes of the int8 graph, in the order of the fp32 one."""

    def __init__(self, graph: onnx.GraphProto, scales: Mapping[str, Scale]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._graph = graph
        self._scales = scales
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
        if self._first(f"{weight}_s8"):
            columns = numpy_helper.to_array(self._constants[weight])
            self._add_weight(weight, columns, np.zeros(columns.shape[1], np.int8))
        inputs = [f"{source}_u8", f"{weight}_s8", f"{source}_scale", f"{weight}_scale"]
        inputs += [f"{source}_zero", f"{weight}_zero"]
        readers = self._readers.get(output, [])
        if len(readers) == 1 and readers[0].op_type == "Add":
            bias = next((name for name in readers[0].input if name != output), "")
            if bias in self._constants and len(self._constants[bias].dims) == 1:
                inputs.append(bias)
                output = readers[0].output[0]
                self._merged.add(readers[0].name)
        self._node("MatMulIntegerToFloat", inputs, output, f"{node.name}_int8")

    def attention(self, found: Attention) -> None:
        """The three products, softmax and mixing as one operator."""
        source = found.source
        self._quantise(source)
        # Named after the weights: two streams of text may go through one layer.
        name = f"{found.projections[0].weight}_attention"
        if self._first(f"{name}_s8"):
            self._add_projections(name, found)
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

    def _add_projections(self, name: str, found: Attention) -> None:
        weights = [numpy_helper.to_array(self._constants[p.weight]) for p in found.projections]
        biases = [
            np.zeros(weight.shape[1], np.float32)
            if projection.bias is None
            else numpy_helper.to_array(self._constants[projection.bias])
            for projection, weight in zip(found.projections, weights, strict=True)
        ]
        self._add_weight(name, np.concatenate(weights, 1), np.array(0, np.int8))
        self._add(f"{name}_bias", np.concatenate(biases))

    def _quantise(self, name: str) -> None:
        if not self._first(f"{name}_u8"):
            return
        scale = self._scales[name]
        self._add(f"{name}_scale", np.array(scale.scale, np.float32))
        self._add(f"{name}_zero", np.array(scale.zero_point, np.uint8))
        inputs = [name, f"{name}_scale", f"{name}_zero"]
        self.nodes.append(
            helper.make_node("QuantizeLinear", inputs, [f"{name}_u8"], name=f"{name}_quantise")
        )

    def _add_weight(
        self, name: str, weight: NDArray[np.float32], zero_point: NDArray[np.int8]
    ) -> None:
        scale = np.maximum(np.abs(weight).max(0), 1e-8) / WEIGHT_MAX
        stored = np.clip(np.rint(weight / scale), -WEIGHT_MAX, WEIGHT_MAX).astype(np.int8)
        self._add(f"{name}_s8", stored)
        self._add(f"{name}_scale", scale.astype(np.float32))
        self._add(f"{name}_zero", zero_point)

    def _add(self, name: str, value: NDArray[Any]) -> None:
        self._graph.initializer.append(numpy_helper.from_array(value, name))

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


def _best_scale(values: NDArray[np.float32], low: float, high: float) -> Scale:
    best, least = Scale(1.0, 0), np.inf
    for clip in CLIPS:
        bottom, top = low * clip, high * clip
        scale = max(top - bottom, 1e-8) / 255
        zero = int(np.clip(round(-bottom / scale), 0, 255))
        restored = (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale
        error = float(np.square(restored - values).mean())
        if error < least:
            best, least = Scale(scale, zero), error
    return best
