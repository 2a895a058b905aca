"""Model files in memory: toy graphs that run, with a tokenizer, for repositories and archives."""

import hashlib
import json
from pathlib import Path
from typing import Any

from conftest import toy_graph, toy_tokenizer


def model_files(*graphs: str, **config: Any) -> dict[str, bytes]:
    """The files of a model by name: a graph that runs under each of these names."""
    import onnx

    content = onnx.ModelProto.SerializeToString(toy_graph())
    settings = {"model_type": "bert", "max_position_embeddings": 64, "pad_token_id": 0} | config
    return {
        "tokenizer.json": toy_tokenizer().to_str().encode(),
        "config.json": json.dumps(settings).encode(),
        **dict.fromkeys(graphs or ("onnx/model.onnx",), content),
    }


def with_manifest(files: dict[str, bytes], *graphs: str, **changes: Any) -> dict[str, bytes]:
    """The files with a reranker.json that lists these graphs, preferred first."""
    others = [name for name in files if not name.endswith(".onnx")]
    manifest = {
        "format": 1,
        "name": "toy",
        "head": {"type": "logit"},
        "activation": "raw",
        "max_length": 48,
        "variants": [{"file": name, "precision": "int8", **facts(files[name])} for name in graphs],
        "files": {name: facts(files[name]) for name in others},
    }
    return {**files, "reranker.json": json.dumps(manifest | changes).encode()}


def facts(content: bytes) -> dict[str, Any]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def external_data(files: dict[str, bytes], graph: str = "onnx/model.onnx") -> dict[str, bytes]:
    """The files with the constants of a graph moved into a file beside it."""
    import onnx
    from onnx import numpy_helper

    model = onnx.ModelProto.FromString(files[graph])
    data = b""
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue  # shapes have to stay: they are read before the weights
        raw = numpy_helper.to_array(tensor).tobytes()
        place = {"location": f"{graph.rpartition('/')[2]}_data", "offset": len(data)}
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {**place, "length": len(raw)}.items():
            tensor.external_data.add(key=key, value=str(value))
        data += raw
    return {**files, graph: model.SerializeToString(), f"{graph}_data": data}


def pad_to_lfs(content: str) -> bytes:
    """Bytes long enough for large file storage."""
    return (content * 2000).encode()


def summing(inputs: dict[str, str]) -> Any:
    """A graph that adds up whatever inputs it declares."""
    import onnx

    steps: list[Any] = []
    for number, name in enumerate(inputs):
        steps.append(("Cast", [name], [f"f{number}"], {"to": onnx.TensorProto.FLOAT}))
    steps.append(("Sum", [f"f{number}" for number in range(len(inputs))], ["all"], {}))
    steps.append(("ReduceSum", ["all", "last"], ["logits"], {"keepdims": 1}))
    return toy_graph(steps, inputs=inputs)


def saved(graph: Any, folder: Path, **options: Any) -> Path:
    """The graph as model.onnx in the folder."""
    import onnx

    onnx.save(graph, folder / "model.onnx", **options)
    return folder / "model.onnx"
