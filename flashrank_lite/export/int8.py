"""fp32 graph → int8 products with static activation scales.

Every ``MatMul`` with a large constant matrix becomes ``QuantizeLinear`` (one scale for the tensor,
fixed by calibration) and ``MatMulIntegerToFloat`` (8-bit weights, one scale a column). Scales that
are fixed make a score independent of the batch it is computed in, which dynamic quantisation does
not (onnxruntime#10111), and save the pass that looks for the range.

Weights keep 7 of their 8 bits: on processors without VNNI two u8×s8 products are added in 16 bits
and saturate; with |weight| ≤ 64 they cannot (255 × 64 × 2 < 32768): one file is right everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from flashrank_lite.errors import InvalidModel

WEIGHT_MAX = 64
SMALLEST_SIDE = 64  # smaller matrices (a classifier's) stay fp32: they cost nothing and decide most
SAMPLES = 200_000  # values kept of each activation
# Shares of the observed range tried for the least squared error: the rare extremes are clipped
# when that makes everything else finer.
CLIPS = tuple(np.geomspace(1.0, 0.25, 25))

Feeds = Mapping[str, NDArray[np.int64]]


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
    constants = {tensor.name: tensor for tensor in graph.initializer}
    products = [n for n in graph.node if _is_product(n, constants)]
    if not products:
        raise InvalidModel("the graph has no matrix product with a constant: nothing to quantise")
    scales = calibrate(model, sorted({n.input[0] for n in products}), batches)
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    replaced: dict[str, list[onnx.NodeProto]] = {}
    dropped: set[str] = set()
    quantised: set[str] = set()
    for node in products:
        source, weight = node.input[0], node.input[1]
        nodes = []
        if source not in quantised:
            quantised.add(source)
            _add_scale(graph, source, scales[source])
            nodes.append(
                helper.make_node(
                    "QuantizeLinear",
                    [source, f"{source}_scale", f"{source}_zero"],
                    [f"{source}_u8"],
                    name=f"{source}_quantise",
                )
            )
        _add_weight(graph, constants[weight])
        inputs = [f"{source}_u8", f"{weight}_s8", f"{source}_scale", f"{weight}_scale"]
        inputs += [f"{source}_zero", f"{weight}_zero"]
        output = node.output[0]
        follower = consumers.get(output, [])
        if len(follower) == 1 and follower[0].op_type == "Add":
            bias = next((name for name in follower[0].input if name != output), "")
            if bias in constants and len(constants[bias].dims) == 1:
                inputs.append(bias)
                output = follower[0].output[0]
                dropped.add(follower[0].name)
        nodes.append(
            helper.make_node(
                "MatMulIntegerToFloat",
                inputs,
                [output],
                name=f"{node.name}_int8",
                domain="com.microsoft",
            )
        )
        replaced[node.name] = nodes
    kept = []
    for node in graph.node:
        if node.name in replaced:
            kept.extend(replaced[node.name])
        elif node.name not in dropped:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
    _approximate_gelu(graph, quantised)
    drop_unused(graph)
    return model


def calibrate(
    model: onnx.ModelProto, names: list[str], batches: Iterable[Feeds]
) -> dict[str, Scale]:
    """The uint8 scale with the least squared error for each tensor ``names``.

    Padded positions do not count: they never reach a score.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {output.name for output in watched.graph.output}
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in names
        if name not in known
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    declared = {entry.name for entry in session.get_inputs()}
    rng = np.random.default_rng(0)
    samples: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    extremes = {name: [0.0, 0.0] for name in names}
    feeds = list(batches)
    share = max(1, SAMPLES // max(1, len(feeds)))
    for feed in feeds:
        real = feed["attention_mask"].astype(bool)
        outputs = session.run(names, {k: v for k, v in feed.items() if k in declared})
        for name, value in zip(names, outputs, strict=True):
            values = (value[real] if value.shape[:2] == real.shape else value).ravel()
            low, high = extremes[name]
            extremes[name] = [min(low, float(values.min())), max(high, float(values.max()))]
            chosen = rng.integers(len(values), size=min(share, len(values)))
            samples[name].append(values[chosen])
    return {name: _best_scale(np.concatenate(samples[name]), *extremes[name]) for name in names}


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove initializers that no node reads."""
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


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


def _add_scale(graph: onnx.GraphProto, name: str, scale: Scale) -> None:
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(scale.scale, np.float32), f"{name}_scale"),
            numpy_helper.from_array(np.array(scale.zero_point, np.uint8), f"{name}_zero"),
        ]
    )


def _add_weight(graph: onnx.GraphProto, tensor: onnx.TensorProto) -> None:
    if any(t.name == f"{tensor.name}_s8" for t in graph.initializer):
        return
    weight = numpy_helper.to_array(tensor)
    scale = np.maximum(np.abs(weight).max(0), 1e-8) / WEIGHT_MAX
    stored = np.clip(np.rint(weight / scale), -WEIGHT_MAX, WEIGHT_MAX).astype(np.int8)
    graph.initializer.extend(
        [
            numpy_helper.from_array(stored, f"{tensor.name}_s8"),
            numpy_helper.from_array(scale.astype(np.float32), f"{tensor.name}_scale"),
            numpy_helper.from_array(np.zeros(weight.shape[1], np.int8), f"{tensor.name}_zero"),
        ]
    )
