"""Shared by the passes over a graph: watching its tensors, and removing unused nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from flashrank_lite.export.graph.weights import for_session

Feeds = Mapping[str, NDArray[np.int64]]


def watch(
    model: onnx.ModelProto, names: list[str]
) -> Callable[[Feeds], dict[str, NDArray[np.float32]]]:
    """A function from a batch to the values of the tensors `names` inside the graph."""
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
    options.log_severity_level = 3
    content, settings = for_session(watched)
    for key, entry in settings.items():
        options.add_session_config_entry(key, entry)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    declared = {entry.name for entry in session.get_inputs()}

    def run(feed: Feeds) -> dict[str, NDArray[np.float32]]:
        values = session.run(names, {k: v for k, v in feed.items() if k in declared})
        return dict(zip(names, values, strict=True))

    return run


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
    for number in reversed(range(len(graph.initializer))):  # one by one: to extend is to copy
        if graph.initializer[number].name not in wanted:
            del graph.initializer[number]
