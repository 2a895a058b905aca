"""Where the weights of a graph are: in it, or in a file beside it, where one cannot hold them.

An ONNX file is one protobuf message, and those end at 2 GiB. The weights of a larger graph are
"external data". While such a graph is worked on they stay on disk, named by absolute path, and are
mapped where they are read: what 0.6 B parameters take in fp32, 2.4 GB, is never copied into memory.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

# Bytes of weights that one file may hold: protobuf's 2 GiB, less what the graph itself takes.
LARGEST_FILE = (1 << 31) - (16 << 20)
# Bytes from which a constant goes outside, as onnxruntime and onnx have it: shapes and the like are
# read before the weights, and have to be in the graph.
SMALLEST_OUTSIDE = 1024
ALIGNMENT = 4096  # bytes: only what begins on a page can be mapped into memory as it lies
SUFFIX = "_data"  # of the file beside a graph, as the Hub's repositories call it


def data_file(graph: Path) -> Path:
    """The file that holds the weights of `graph`, if the graph does not."""
    return graph.with_name(graph.name + SUFFIX)


def read_graph(file: Path) -> onnx.ModelProto:
    """Read a graph that has its weights beside it.

    They are taken into the graph where one file can hold all, and stay where they are otherwise:
    the file must then outlive the graph.
    """
    model = onnx.load(str(file), load_external_data=False)
    for tensor in _outside(model):
        _place(tensor, file.parent / _entries(tensor)["location"])
    if _size(model) <= LARGEST_FILE:
        _take_in(model)
    return model


def value(tensor: onnx.TensorProto) -> NDArray[Any]:
    """What a constant of a graph holds; from outside it is mapped, so that no memory is taken."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return np.asarray(numpy_helper.to_array(tensor))
    entries = _entries(tensor)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    mapped = np.memmap(
        *(entries["location"], dtype, "r"),
        offset=int(entries.get("offset", 0)),
        shape=tuple(tensor.dims),
    )
    return np.asarray(mapped)


def for_session(model: onnx.ModelProto) -> tuple[bytes, dict[str, str]]:
    """What onnxruntime opens: the serialised graph, and the session's settings that it needs."""
    if not _outside(model):
        return model.SerializeToString(), {}
    structure = onnx.ModelProto()
    structure.CopyFrom(model)
    (folder,) = {Path(_entries(tensor)["location"]).parent for tensor in _outside(model)}
    for tensor in _outside(structure):  # onnxruntime takes no absolute paths
        _place(tensor, Path(Path(_entries(tensor)["location"]).name))
    key = "session.model_external_initializers_file_folder_path"
    return structure.SerializeToString(), {key: str(folder)}


def save_graph(model: onnx.ModelProto, file: Path) -> list[Path]:
    """Write a graph into one file, or, where that cannot hold the weights, with a second beside it.

    What goes outside is let go of in memory: the graph then refers to the second file.

    Returns:
        The files written, the graph first.
    """
    if _size(model) <= LARGEST_FILE:
        _take_in(model)
        file.write_bytes(model.SerializeToString())
        return [file]
    data = data_file(file)
    with data.open("wb") as handle:
        for tensor in model.graph.initializer:
            if _bytes_of(tensor) < SMALLEST_OUTSIDE:
                _take_in_one(tensor)
                continue
            handle.write(b"\0" * (-handle.tell() % ALIGNMENT))
            start = handle.tell()
            handle.write(np.ascontiguousarray(value(tensor)).reshape(-1).view(np.uint8).data)
            _place(tensor, Path(data.name), start, handle.tell() - start)
    file.write_bytes(model.SerializeToString())
    for tensor in _outside(model):
        _place(tensor, data)
    return [file, data]


def _size(model: onnx.ModelProto) -> int:
    return sum(_bytes_of(tensor) for tensor in model.graph.initializer)


def _bytes_of(tensor: onnx.TensorProto) -> int:
    count: int = prod(tensor.dims)
    return count * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _outside(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    return [t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL]


def _take_in(model: onnx.ModelProto) -> None:
    for tensor in _outside(model):
        _take_in_one(tensor)


def _take_in_one(tensor: onnx.TensorProto) -> None:
    if tensor.data_location == TensorProto.EXTERNAL:
        found = value(tensor).tobytes()
        tensor.ClearField("external_data")
        tensor.data_location = TensorProto.DEFAULT
        tensor.raw_data = found


def _entries(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _place(
    tensor: onnx.TensorProto, file: Path, offset: int | None = None, length: int | None = None
) -> None:
    """Say where the bytes of a tensor are; without `offset` only the file is another one."""
    entries = _entries(tensor) | {"location": str(file)}
    if offset is not None:
        entries = {"location": str(file), "offset": str(offset), "length": str(length)}
    for field in ("external_data", "raw_data", "float_data", "int32_data", "int64_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    for key, entry in entries.items():
        tensor.external_data.add(key=key, value=entry)
