"""A model folder that ships → the student's weights again, to go on training from it.

What rounding took is lost: the layers come back as their 7-bit codes stand for them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nano.model import NanoConfig

PARTS = ("query", "key", "value", "out", "up", "down")  # of a layer, in the order of the graph


def shipped_weights(folder: Path, config: NanoConfig) -> dict[str, Tensor]:
    """The state dict of the student that became `folder`'s int8 graph."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(folder / "model_int8.onnx").graph
    constants = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    products = {}  # by weight: query and passage share it
    for node in graph.node:
        if node.op_type == "MatMulIntegerToFloat":
            products.setdefault(node.input[1], node)
    if len(products) != len(PARTS) * config.num_hidden_layers:
        raise SystemExit(
            f"{folder} has {len(products)} products, not {len(PARTS)} for each of "
            f"{config.num_hidden_layers} layers: it was exported by another version"
        )
    weights: dict[str, np.ndarray] = {}
    for place, node in enumerate(products.values()):
        layer, part = divmod(place, len(PARTS))
        weight, bias = _product(node, constants, made)
        weights[f"{layer}.{PARTS[part]}.weight"] = weight
        weights[f"{layer}.{PARTS[part]}.bias"] = bias
    found = {name: constants[name] for name in constants if name.split(".")[-2:-1] == ["norm"]}
    for layer in range(config.num_hidden_layers):
        own = f"layers.{layer}."
        for kind in ("weight", "bias"):
            found[f"{own}qkv.{kind}"] = np.concatenate(
                [weights[f"{layer}.{part}.{kind}"] for part in PARTS[:3]]
            )
            for part in PARTS[3:]:
                found[f"{own}{part}.{kind}"] = weights[f"{layer}.{part}.{kind}"]
            for norm in ("norm1", "norm2"):
                found[f"{own}{norm}.{kind}"] = constants[f"{own}{norm}.{kind}"]
    found["word.weight"] = _words(constants)
    found["position.weight"] = constants["position.weight_s8"] * constants["position.weight_scale"]
    for name in ("head.weigh.bias", "head.linear.weight", "head.linear.bias"):
        found[name] = constants[name]
    (weigh,) = [one for one in constants.values() if one.shape == (2 * config.hidden_size, 2)]
    found["head.weigh.weight"] = weigh.T
    return {name: torch.from_numpy(np.array(one, np.float32)) for name, one in found.items()}


def _product(
    node: Any, constants: dict[str, np.ndarray], made: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Weight, (out, in), and bias of a product of 8-bit codes."""
    weight = constants[node.input[1]].astype(np.float32) * constants[node.input[3]]
    source = made[made[node.input[0]].input[0]]  # what is rounded before the product
    if source.op_type == "Mul" and source.input[1] in constants:
        weight = constants[source.input[1]][:, None] * weight
    return weight.T, constants[node.input[6]]


def _words(constants: dict[str, np.ndarray]) -> np.ndarray:
    if "word.weight_s8" in constants:
        return constants["word.weight_s8"] * constants["word.weight_scale"]
    packed, scales = constants["word.weight_packed"], constants["word.weight_scales"]
    codes = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32) - 8
    blocks = codes.reshape(len(codes), scales.shape[1], -1) * scales[:, :, None].astype(np.float32)
    words: np.ndarray = blocks.reshape(len(codes), -1)
    return words
