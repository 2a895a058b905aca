"""Embedding tables in 4 or 8 bits: most of a small model's bytes.

4 bits: ``GatherBlockQuantized``, one fp16 scale for 64 columns. 8 bits: a row's scale, applied to
the rows that are looked up. Either way only looked-up rows are ever widened.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from flashrank_lite.export.int8 import drop_unused

BLOCK = 64
SMALLEST_ROWS = 128  # smaller tables are not worth it
# Shares of a block's largest magnitude tried for the least squared error; 1 keeps a table exact
# that was trained on the 4-bit grid.
CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8)
FOUR_BIT_ROWS = 8192  # larger tables take 4 bits, smaller ones (positions) 8


def quantise_tables(model: onnx.ModelProto, *, bits: int) -> onnx.ModelProto:
    """Shrink the constant tables that ``Gather`` looks rows up in, in place.

    Args:
        model: the graph.
        bits: 4 or 8, for tables of ``FOUR_BIT_ROWS`` rows or more; smaller ones take 8.

    Returns:
        ``model``.
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
    codes, scales = four_bit_codes(numpy_helper.to_array(table))
    low, high = codes[:, 0::2].astype(np.uint8) & 15, codes[:, 1::2].astype(np.uint8) & 15
    packed = helper.make_tensor(
        f"{table.name}_s4",
        TensorProto.INT4,
        list(codes.shape),
        (low | (high << 4)).tobytes(),
        raw=True,
    )
    graph.initializer.extend([packed, numpy_helper.from_array(scales, f"{table.name}_scales")])
    output = node.output[0]
    return [
        helper.make_node(
            "GatherBlockQuantized",
            [packed.name, node.input[1], f"{table.name}_scales"],
            [f"{output}_f16"],
            name=f"{node.name}_4bit",
            domain="com.microsoft",
            gather_axis=0,
            quantize_axis=1,
            block_size=BLOCK,
        ),
        helper.make_node("Cast", [f"{output}_f16"], [output], name=f"{node.name}_cast", to=1),
    ]


def _eight_bits(
    graph: onnx.GraphProto, node: onnx.NodeProto, table: onnx.TensorProto
) -> list[onnx.NodeProto]:
    values = numpy_helper.to_array(table)
    scale = np.maximum(np.abs(values).max(1, keepdims=True), 1e-8) / 127
    codes = np.rint(values / scale).astype(np.int8)
    graph.initializer.extend(
        [
            numpy_helper.from_array(codes, f"{table.name}_s8"),
            numpy_helper.from_array(scale.astype(np.float32), f"{table.name}_scale"),
        ]
    )
    output, rows = node.output[0], node.input[1]
    return [
        helper.make_node(
            "Gather", [f"{table.name}_s8", rows], [f"{output}_s8"], name=f"{node.name}_s8"
        ),
        helper.make_node(
            "Gather", [f"{table.name}_scale", rows], [f"{output}_scale"], name=f"{node.name}_scale"
        ),
        helper.make_node(
            "Cast", [f"{output}_s8"], [f"{output}_wide"], name=f"{node.name}_cast", to=1
        ),
        helper.make_node(
            "Mul", [f"{output}_wide", f"{output}_scale"], [output], name=f"{node.name}_mul"
        ),
    ]
