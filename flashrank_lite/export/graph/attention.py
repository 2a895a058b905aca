"""Finds plain attention in a fp32 graph, so that one operator can do all of it.

ONNX's `Attention` splits the heads, adds the mask, takes the softmax and mixes, without a
transposed copy of anything: for 5 texts of 100 tokens, 384 wide, on one core 1.14 ms where the
single operators take 1.58 and onnxruntime's `QAttention` (less the products that are part of it)
1.52. Attention that it cannot express (rotary positions) stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from flashrank_lite.export.graph.nodes import Feeds, drop_unused, watch

OPSET = 23  # of the ONNX operators, the first with Attention; onnxruntime has it since 1.23
# The least that is added to a score before the softmax. exp(-60) is 9e-27, and still a normal
# number: with -10,000 the softmax met denormal ones and took 51 ms where it now takes 28.
MASKED = -60.0


@dataclass(frozen=True)
class Attention:
    """`softmax(scale * q @ k.T + bias) @ v` for each of `heads` heads.

    Attributes:
        query, key, value: names of the tensors, (n, tokens, hidden), before they are split.
        value_weight: the constant matrix whose product `value` is; None if there is none.
        heads: how many.
        bias: name of what is added before the softmax, (n, 1 or heads, 1 or tokens, others).
        wide: whether `bias` has a row for each token.
        output: name of the mixed values, (n, tokens, hidden).
        nodes: names of all nodes that it consists of, the last of which gives `output`.
        split: name of the node among them that splits `query`.
    """

    query: str
    key: str
    value: str
    value_weight: str | None
    heads: int
    scale: float
    bias: str
    wide: bool
    output: str
    nodes: tuple[str, ...]

    @property
    def split(self) -> str:
        return self.nodes[1]


@dataclass(frozen=True)
class _Shape:
    """Attention as read off the structure, before a run gives `heads` and `wide`."""

    sides: tuple[str, str, str]
    scale: float
    bias: str
    softmax: str
    output: str
    nodes: tuple[str, ...]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors whose shapes a run has to give."""
        return (*self.sides, self.bias, self.softmax, self.output)


def find_attention(model: onnx.ModelProto, feeds: Sequence[Feeds]) -> list[Attention]:
    """Every attention in the graph, in order.

    The structure is read off the graph, the number of heads and the form of the mask off a run.
    """
    finder = _Finder(model.graph)
    found = finder.shapes()
    if not found or not feeds:
        return []
    names = sorted({name for shape in found for name in shape.tensors})
    values = watch(model, names)(feeds[0])
    sizes = {name: value.shape for name, value in values.items()}
    return [
        Attention(
            *shape.sides,
            finder.weight(shape.sides[2]),
            sizes[shape.softmax][1],
            shape.scale,
            shape.bias,
            (1, *sizes[shape.bias])[-2] == sizes[shape.softmax][2],
            shape.output,
            shape.nodes,
        )
        for shape in found
        if _is_plain(shape, sizes)
    ]


def fuse_attention(model: onnx.ModelProto, found: Sequence[Attention]) -> onnx.ModelProto:
    """Put the one operator in the place of each attention, in place.

    Returns:
        `model`, which from now on takes `OPSET`.
    """
    graph = model.graph
    inside = {name: attention for attention in found for name in attention.nodes}
    last = {attention.nodes[-1] for attention in found}
    nodes: list[onnx.NodeProto] = []
    masks: dict[tuple[str, str], str] = {}
    for node in graph.node:
        if node.name in last:
            nodes.extend(_operator(inside[node.name], masks))
        elif node.name not in inside:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    if found:
        floor = np.array(MASKED, np.float32)
        graph.initializer.append(numpy_helper.from_array(floor, "mask_floor"))
        graph.initializer.append(numpy_helper.from_array(np.array([1]), "mask_one"))
        for entry in model.opset_import:
            if entry.domain == "":
                if entry.version < 18:
                    _renew(graph)
                entry.version = max(entry.version, OPSET)
        drop_unused(graph)
    return model


def _renew(graph: onnx.GraphProto) -> None:
    """Write operators of version 17 as they are from 18 on: the axes of a reduction are an input,
    and `Split` is told in how many equal parts."""
    for node in graph.node:
        if node.op_type == "Split" and len(node.input) == 1:
            node.attribute.append(helper.make_attribute("num_outputs", len(node.output)))
        for attribute in node.attribute:
            if node.op_type.startswith("Reduce") and attribute.name == "axes":
                axes = f"{node.name}_axes"
                graph.initializer.append(numpy_helper.from_array(np.array(attribute.ints), axes))
                node.input.append(axes)
                node.attribute.remove(attribute)
                break


def _is_plain(shape: _Shape, sizes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the tensors are as the operator splits and joins them: no head serves several."""
    query, key, value = (sizes[name] for name in shape.sides)
    weights, bias = sizes[shape.softmax], sizes[shape.bias]
    if len(weights) != 4 or not 0 < len(bias) <= 4 or not len(query) == len(key) == len(value) == 3:
        return False
    rows, _, tokens, others = weights
    return (
        query == (rows, tokens, key[2])
        and key[:2] == value[:2] == (rows, others)
        and sizes[shape.output] == (rows, tokens, value[2])
        and bias[-1] == others  # the operator takes fewer for masked ones
    )


def _operator(found: Attention, masks: dict[tuple[str, str], str]) -> list[onnx.NodeProto]:
    nodes = []
    if (found.bias, "") not in masks:
        floored = masks[found.bias, ""] = f"{found.bias}_mask"
        nodes.append(helper.make_node("Max", [found.bias, "mask_floor"], [floored], name=floored))
    mask = masks[found.bias, ""]
    if not found.wide:  # the operator wants a row for each token
        wide = masks.get((found.bias, found.query), f"{mask}_{len(masks)}_wide")
        if (found.bias, found.query) not in masks:
            masks[found.bias, found.query] = wide
            rows, shape = f"{wide}_rows", f"{wide}_shape"
            size = helper.make_node("Shape", [found.query], [rows], name=rows, start=1, end=2)
            ones = ["mask_one", "mask_one", rows, "mask_one"]
            joined = helper.make_node("Concat", ones, [shape], name=shape, axis=0)
            nodes += [size, joined, helper.make_node("Expand", [mask, shape], [wide], name=wide)]
        mask = wide
    nodes.append(
        helper.make_node(
            "Attention",
            [found.query, found.key, found.value, mask],
            [found.output],
            name=f"{found.nodes[-1]}_attention",
            q_num_heads=found.heads,
            kv_num_heads=found.heads,
            scale=found.scale,
        )
    )
    return nodes


class _Finder:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self._nodes = graph.node
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._from = {name: node for node in graph.node for name in node.output}
        self._to: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._to.setdefault(name, []).append(node)

    def shapes(self) -> list[_Shape]:
        found = (self._match(node) for node in self._nodes if node.op_type == "Softmax")
        return [shape for shape in found if shape is not None]

    def weight(self, name: str) -> str | None:
        """The constant matrix whose product, with or without a bias, `name` is."""
        node = self._source(name, "Add", "MatMul")
        if node is not None and node.op_type == "Add":
            inner = [n for n in node.input if len(self._dims(n)) != 1]
            node = self._source(inner[0], "MatMul") if len(inner) == 1 else None
        fits = node is not None and node.input[1] in self._constants
        return node.input[1] if node is not None and fits else None

    def _match(self, softmax: onnx.NodeProto) -> _Shape | None:
        add = self._source(softmax.input[0], "Add")
        mix = self._only_reader(softmax.output[0], "MatMul")
        axis = next((a.i for a in softmax.attribute if a.name == "axis"), -1)
        if add is None or mix is None or axis not in (-1, 3):
            return None
        products = [self._source(name, "MatMul", "FusedMatMul") for name in add.input]
        product, bias = products[0] or products[1], add.input[1 if products[0] else 0]
        if product is None:
            return None
        flags = {a.name: a for a in product.attribute}
        if any(flags[n].i for n in ("transA", "transBatchA", "transBatchB") if n in flags):
            return None
        turned = "transB" in flags and flags["transB"].i == 1
        sides = (
            self._side(product.input[0], [0, 2, 1, 3]),
            self._side(product.input[1], [0, 2, 1, 3] if turned else [0, 2, 3, 1]),
            self._side(mix.input[1], [0, 2, 1, 3]) if mix.input[0] == softmax.output[0] else None,
        )
        back = self._only_reader(mix.output[0], "Transpose")
        joined = self._only_reader(back.output[0], "Reshape") if back is not None else None
        if None in sides or back is None or joined is None or _perm(back) != [0, 2, 1, 3]:
            return None
        (query, a), (key, b), (value, c) = (side for side in sides if side is not None)
        nodes = [*a, *b, *c, product, add, softmax, mix, back, joined]
        return _Shape(
            (query, key, value),
            flags["alpha"].f if "alpha" in flags else 1.0,
            bias,
            softmax.output[0],
            joined.output[0],
            tuple(node.name for node in nodes),
        )

    def _side(self, name: str, perm: list[int]) -> tuple[str, tuple[onnx.NodeProto, ...]] | None:
        """Walk back from the heads of query, key or value to where they are not split yet."""
        turn = self._source(name, "Transpose")
        split = self._source(turn.input[0], "Reshape") if turn is not None else None
        if turn is None or split is None or _perm(turn) != perm:
            return None
        return split.input[0], (turn, split)

    def _dims(self, name: str) -> Sequence[int]:
        """The shape of a constant; of anything else none."""
        return self._constants[name].dims if name in self._constants else ()

    def _source(self, name: str, *operators: str) -> onnx.NodeProto | None:
        """The node that gives `name` to one reader alone, if it is such an operator."""
        node = self._from.get(name)
        fits = node is not None and node.op_type in operators and len(self._to[name]) == 1
        return node if fits else None

    def _only_reader(self, name: str, operator: str) -> onnx.NodeProto | None:
        readers = self._to.get(name, [])
        return readers[0] if len(readers) == 1 and readers[0].op_type == operator else None


def _perm(node: onnx.NodeProto) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == "perm"), [])
