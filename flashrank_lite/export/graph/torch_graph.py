"""torch module → fp32 ONNX graph, fused as onnxruntime runs it best."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from flashrank_lite.encoding.collate import JOINED_INPUTS
from flashrank_lite.errors import FlashRankLiteError, InvalidInput, InvalidModel, first_line
from flashrank_lite.export.graph.weights import SMALLEST_OUTSIDE, data_file, read_graph

OPSET = 18  # the first with BitwiseAnd, for tables of 4 bits
# From LayerNormalization on, to the last that the tracer writes. What is fused later may raise the
# version of an int8 graph (`attention.py`).
OPSETS = range(17, 21)
# Without it MiniLM-L6 int8 takes 312 ms for 100 passages instead of 367.
UNWANTED_FUSIONS = ["SkipLayerNormFusion"]


def check_opset(opset: int) -> None:
    """Refuse a version of the operators that cannot be written, before anything is loaded.

    Raises:
        InvalidInput: it is none of `OPSETS`.
    """
    if opset not in OPSETS:
        raise InvalidInput(f"opset must be from {OPSETS[0]} to {OPSETS[-1]}, not {opset}")


def to_onnx(
    module: torch.nn.Module,
    folder: Path,
    inputs: tuple[str, ...] = JOINED_INPUTS,
    opset: int = OPSET,
    outputs: tuple[str, ...] = ("logits",),
) -> onnx.ModelProto:
    """Trace `module` with any number of rows and tokens, then fuse.

    Args:
        module: takes the tensors `inputs` names, in that order, and returns those that `outputs`
            names: logits (n, classes), or states (n, tokens, columns).
        folder: where the weights stay that one ONNX file cannot hold (`weights.py`).
        inputs: names of its inputs.
        opset: version of the ONNX operators, one of `OPSETS`.
        outputs: names of its outputs.

    Returns:
        An fp32 graph; onnxruntime's own fused operators in it.
    """
    example = {name: _example(name) for name in inputs}
    try:
        return _trace(module, folder, example, opset, outputs)
    except FlashRankLiteError:
        raise
    except Exception as error:  # an operator that ONNX lacks; onnxruntime refuses what was traced
        raise InvalidModel(
            f"this architecture does not turn into ONNX ({first_line(error)}): export a model of "
            "another one"
        ) from error


def _trace(
    module: torch.nn.Module,
    folder: Path,
    example: Mapping[str, torch.Tensor],
    opset: int,
    outputs: tuple[str, ...],
) -> onnx.ModelProto:
    inputs = tuple(example)
    with tempfile.TemporaryDirectory(dir=folder) as traced, warnings.catch_warnings():
        # The TorchScript exporter emits the patterns that onnxruntime's fusions look for.
        warnings.simplefilter("ignore")
        path = Path(traced) / "traced.onnx"  # and beyond 2 GB a file for each constant
        torch.onnx.export(
            module.eval(),
            tuple(example[name] for name in inputs),
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={
                **{name: _axes(name) for name in inputs},
                **{name: _output_axes(name) for name in outputs},
            },
            opset_version=opset,
            dynamo=False,
        )
        return _fuse(path, folder / "fused.onnx")


def run_torch(
    module: torch.nn.Module, feeds: Mapping[str, NDArray[np.int64]], inputs: tuple[str, ...]
) -> list[NDArray[np.float32]]:
    """What the torch module returns for one batch; logits are of shape (n, classes)."""
    with torch.inference_mode():
        out = module(*(torch.from_numpy(feeds[name]) for name in inputs))
    found: Sequence[torch.Tensor] = (out,) if isinstance(out, torch.Tensor) else out
    return [tensor.float().numpy() for tensor in found]


def _example(name: str) -> torch.Tensor:
    """Odd and unequal sizes, so that no axis is taken for a constant or for another."""
    rows, tokens = (1, 5) if name.startswith("query_") else (3, 13)
    ids = torch.arange(rows * tokens).view(rows, tokens) % 89 + 1
    if name.endswith("attention_mask"):
        return torch.ones_like(ids)
    if name == "token_type_ids":
        return (torch.arange(tokens) > 4).long().expand(rows, tokens).contiguous()
    return ids


def _axes(name: str) -> dict[int, str]:
    if name.startswith("query_"):
        return {0: "queries", 1: "query_sequence"}
    return {0: "batch", 1: "sequence"}


def _output_axes(name: str) -> dict[int, str]:
    if name == "logits":
        return {0: "batch"}
    # an embedding is the one state of its text, so that these are not always the text's tokens
    if name.startswith("query_"):
        return {0: "queries", 1: "query_states"}
    return {0: "batch", 1: "states"}


def _fuse(path: Path, fused: Path) -> onnx.ModelProto:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(fused)
    entries = {
        "session.optimized_model_external_initializers_file_name": data_file(fused).name,
        "session.optimized_model_external_initializers_min_size_in_bytes": str(SMALLEST_OUTSIDE),
        "session.disable_prepacking": "1",  # never run, so skip the prepacked copy
    }
    for key, entry in entries.items():
        options.add_session_config_entry(key, entry)
    onnxruntime.InferenceSession(
        str(path),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=UNWANTED_FUSIONS,
    )
    model = read_graph(fused)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    return model
