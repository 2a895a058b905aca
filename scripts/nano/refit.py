"""The head of an exported model, fitted anew on the states that its own int8 graph gives.

The head stays in fp32 in the graph, so a better one is written over it without another export, and
it has seen the states as rounding left them.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flashrank_lite.late_interaction import PASSAGE_STATES, QUERY_STATES
from flashrank_lite.models.manifest import MANIFEST
from nano.data import Corpus
from nano.model import NanoRanker
from nano.states import give_states
from nano.store import StateStore
from nano.teacher import STATES, Run, Teacher, fill

GRAPH = "model_int8.onnx"


def graph_states(folder: Path, corpus: Corpus, cache: Path) -> Teacher:
    """The states of every text as the folder's graph gives them; computed once, as a teacher's."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    made_by = manifest["variants"][0]["sha256"]
    store = StateStore(cache / made_by[:16], {STATES: 384}, made_by)
    teacher = Teacher(store, corpus, ((), ()))
    for query in (True, False):
        chosen = [i for i, one in enumerate(corpus.is_query) if one is query]
        fill(teacher, chosen, partial(_graph, folder / GRAPH, query), folder.name)
    return teacher


def write_head(folder: Path, model: NanoRanker) -> None:
    """Write the model's head into the folder's graph and manifest."""
    import onnx
    from onnx import numpy_helper

    head = model.head
    new = {
        "head.linear.weight": head.linear.weight,
        "head.linear.bias": head.linear.bias,
        "head.weigh.bias": head.weigh.bias,
    }
    graph = onnx.load(folder / GRAPH)
    for entry in graph.graph.initializer:
        if tuple(entry.dims) == tuple(reversed(head.weigh.weight.shape)):
            new[entry.name] = head.weigh.weight.T
        if entry.name in new:
            values = new.pop(entry.name).detach().numpy()
            entry.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), entry.name))
    if new:
        raise SystemExit(f"{folder / GRAPH} has no {', '.join(new)}: export it again")
    onnx.save(graph, folder / GRAPH)
    give_states(folder)


def _graph(file: Path, query: bool) -> Run:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    side, other = ("query", "passage") if query else ("passage", "query")
    output = QUERY_STATES if query else PASSAGE_STATES

    def run(ids: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        if not query:  # the graph reads `passage [SEP]`; a row for [CLS] keeps tokens in place
            ids, mask = ids[:, 1:], mask[:, 1:]
        one = np.ones((1, 1), np.int64)
        feeds: dict[str, Any] = {
            f"{side}_input_ids": ids,
            f"{side}_attention_mask": mask,
            f"{other}_input_ids": one,
            f"{other}_attention_mask": one,
        }
        (states,) = session.run([output], feeds)
        if not query:
            states = np.pad(states, ((0, 0), (1, 0), (0, 0)))
        return {STATES: states}

    return run
