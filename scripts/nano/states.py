"""Have a graph of nano or small give the states that it compares: passages can be read once.

    python scripts/nano/states.py flashrank_lite/models/nano

Adds three outputs to each graph of the folder, without a node or a weight more, and the head's
constants to its manifest. Logits stay bit for bit what they were.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from flashrank_lite.models.checksums import facts_of
from flashrank_lite.models.manifest import MANIFEST
from flashrank_lite.states.graph import PASSAGE_STATES, QUERY_STATES, QUERY_WEIGHTS

LAST = re.compile(r"/layers\.(\d+)/norm2(_1)?/LayerNormalization_output_0")  # _1: of passages
TERM_WEIGHTS = "/Div_2_output_0"
SHAPES = {
    QUERY_STATES: ("queries", "query_sequence", 384),
    QUERY_WEIGHTS: ("queries", "query_sequence", 2),
    PASSAGE_STATES: ("batch", "sequence", 384),
}
CHANNELS = ("maxsim", "cosine", "matches")  # the rows of the head's weight


def main() -> None:
    """Change the folder in place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    give_states(parser.parse_args().folder)


def give_states(folder: Path) -> None:
    """Change a model folder in place; one that gives its states already stays as it is."""
    import onnx

    file = folder / MANIFEST
    manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for variant in manifest["variants"]:
        graph = folder / variant["file"]
        model = onnx.load(graph)
        if PASSAGE_STATES not in {output.name for output in model.graph.output}:
            _add_outputs(model)
            onnx.save(model, graph)
        manifest["late_interaction"] = _head(model)
        facts = facts_of(graph)
        variant |= {"size": facts.size, "sha256": facts.sha256}
    file.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _add_outputs(model: Any) -> None:
    import onnx

    new = _tensors(model.graph)
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = new.get(name, name)
    described = [entry for entry in model.graph.value_info if entry.name not in new]
    del model.graph.value_info[:]
    model.graph.value_info.extend(described)
    for name, shape in SHAPES.items():
        entry = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape))
        model.graph.output.append(entry)


def _tensors(graph: Any) -> dict[str, str]:
    """The tensors to give, as the exporter calls them, with the names to give them."""
    made = {name for node in graph.node for name in node.output}
    found = filter(None, map(LAST.fullmatch, made))
    last = {one[2]: one[0] for one in found if _next(one) not in made}
    if set(last) != {None, "_1"} or TERM_WEIGHTS not in made:
        raise ValueError("the graph does not name its states: look how the exporter calls them")
    passages = last["_1"]
    for node in graph.node:  # of `[CLS] passage [SEP]` the first is not compared
        if node.op_type == "Slice" and node.input[0] == passages:
            passages = node.output[0]
            break
    return {last[None]: QUERY_STATES, TERM_WEIGHTS: QUERY_WEIGHTS, passages: PASSAGE_STATES}


def _next(found: re.Match[str]) -> str:
    """What the same state of the next layer is called."""
    return found[0].replace(f"layers.{found[1]}/", f"layers.{int(found[1]) + 1}/")


def _head(model: Any) -> dict[str, float]:
    from onnx import numpy_helper

    constants = {entry.name: entry for entry in model.graph.initializer}
    weight = numpy_helper.to_array(constants["head.linear.weight"]).ravel()
    bias = numpy_helper.to_array(constants["head.linear.bias"]).ravel()
    return {**dict(zip(CHANNELS, map(float, weight), strict=True)), "bias": float(bias[0])}


if __name__ == "__main__":
    main()
