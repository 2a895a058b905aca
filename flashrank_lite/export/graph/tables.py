"""Embedding tables in 4 or 8 bits: most of a small model's bytes.

4 bits: two codes a byte, one fp16 scale for 64 columns. 8 bits: one scale a row. Either way only
the rows that are looked up are ever widened, by plain operators: for 500 tokens of 384 columns they
take 0.5 ms where `GatherBlockQuantized` takes 5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from flashrank_lite.export.graph.nodes import drop_unused
from flashrank_lite.export.graph.weights import value

BLOCK = 64
SMALLEST_ROWS = 128  # smaller tables are not worth it
# Shares of a block's largest magnitude tried for the least squared error; 1 keeps a table exact
# that was trained on the 4-bit grid.
CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8)
FOUR_BIT_ZERO = 8  # stored for the code 0
FOUR_BIT_ROWS = 8192  # larger tables take 4 bits, smaller ones (positions) 8


def quantise_tables(model: onnx.ModelProto, *, bits: int) -> onnx.ModelProto:
    """Shrink the constant tables that `Gather` looks rows up in, in place.

    Args:
        model: the graph.
        bits: 4 or 8, for tables of `FOUR_BIT_ROWS` rows or more, looked up by ids of shape
            (n, tokens); smaller ones take 8.

    Returns:
        `model`.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        table = constants.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or not _is_table(node, table):
            nodes.append(node)
            continue
        rows, columns = table.dims
        four = bits == 4 and rows >= FOUR_BIT_ROWS and columns % BLOCK == 0
        nodes.extend((_four_bits if four else _eight_bits)(graph, node, table))
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused(graph)
    return model


def four_bit_codes(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Codes in [-7, 7], shape (rows, columns), and scales, shape (rows, columns / BLOCK)."""
    blocks = table.reshape(len(table), -1, BLOCK)
    largest = np.maximum(np.abs(blocks).max(-1, keepdims=True), 1e-6)
    best_scale = (largest / 7).astype(np.float16)
    least = np.full(largest.shape, np.inf, np.float32)
    for clip in CLIPS:
        scale = (largest * clip / 7).astype(np.float16)
        wide = scale.astype(np.float32)
        restored = np.clip(np.rint(blocks / wide), -7, 7) * wide
        error = np.square(restored - blocks).sum(-1, keepdims=True)
        best_scale = np.where(error < least, scale, best_scale)
        least = np.minimum(error, least)
    codes = np.clip(np.rint(blocks / best_scale.astype(np.float32)), -7, 7).astype(np.int8)
    return codes.reshape(table.shape), best_scale[..., 0]


def _is_table(node: onnx.NodeProto, table: onnx.TensorProto) -> bool:
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    floating = table.data_type == TensorProto.FLOAT
    return axis == 0 and floating and len(table.dims) == 2 and table.dims[0] >= SMALLEST_ROWS


def _four_bits(
    graph: onnx.GraphProto, node: onnx.NodeProto, table: onnx.TensorProto
) -> list[onnx.NodeProto]:
    codes, scales = four_bit_codes(value(table))
    stored = (codes + FOUR_BIT_ZERO).astype(np.uint8)
    half = stored.shape[1] // 2
    constants = {
        f"{table.name}_packed": stored[:, :half] | stored[:, half:] << 4,
        f"{table.name}_scales": scales,
        "table_low_bits": np.array(15, np.uint8),
        "table_four_bits": np.array(4, np.uint8),
        "table_four_bit_zero": np.array(FOUR_BIT_ZERO, np.float32),
        "table_blocks_shape": np.array([0, 0, -1, BLOCK]),
        "table_rows_shape": np.array([0, 0, -1]),
        "table_last_axis": np.array([-1]),
    }
    _add_constants(graph, constants)
    packed, scales_name = f"{table.name}_packed", f"{table.name}_scales"
    chain = _Chain(node)
    rows = chain.add("Gather", packed, node.input[1])
    low = chain.add("BitwiseAnd", rows, "table_low_bits")
    high = chain.add("BitShift", rows, "table_four_bits", direction="RIGHT")
    wide = chain.add("Cast", chain.add("Concat", low, high, axis=-1), to=TensorProto.FLOAT)
    blocks = chain.add(
        "Reshape", chain.add("Sub", wide, "table_four_bit_zero"), "table_blocks_shape"
    )
    found = chain.add("Cast", chain.add("Gather", scales_name, node.input[1]), to=TensorProto.FLOAT)
    scaled = chain.add("Mul", blocks, chain.add("Unsqueeze", found, "table_last_axis"))
    chain.add("Reshape", scaled, "table_rows_shape", output=node.output[0])
    return chain.nodes


def _eight_bits(
    graph: onnx.GraphProto, node: onnx.NodeProto, table: onnx.TensorProto
) -> list[onnx.NodeProto]:
    values = value(table)
    scale = np.maximum(np.abs(values).max(1, keepdims=True), 1e-8) / 127
    codes = np.rint(values / scale).astype(np.int8)
    constants = {f"{table.name}_s8": codes, f"{table.name}_scale": scale.astype(np.float32)}
    _add_constants(graph, constants)
    chain = _Chain(node)
    found = chain.add("Gather", f"{table.name}_s8", node.input[1])
    scales = chain.add("Gather", f"{table.name}_scale", node.input[1])
    wide = chain.add("Cast", found, to=TensorProto.FLOAT)
    chain.add("Mul", wide, scales, output=node.output[0])
    return chain.nodes


def _add_constants(graph: onnx.GraphProto, constants: dict[str, NDArray[Any]]) -> None:
    """Add the constants that are new: a table may be looked up twice."""
    known = {tensor.name for tensor in graph.initializer}
    graph.initializer.extend(
        numpy_helper.from_array(constant, name)
        for name, constant in constants.items()
        if name not in known
    )


class _Chain:
    """Nodes that take the place of one, named after it."""

    def __init__(self, node: onnx.NodeProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._name = node.name

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Append a node; returns the name of its output."""
        name = f"{self._name}_{len(self.nodes)}_{operator}"
        result = output or f"{name}_output"
        self.nodes.append(helper.make_node(operator, inputs, [result], name=name, **attributes))
        return result
