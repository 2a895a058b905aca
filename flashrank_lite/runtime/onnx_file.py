"""What an ONNX file says of itself, read from its bytes: operators, and where its weights lie.

onnxruntime does not tell, and the onnx package is no dependency. Constants are passed over: looking
through 91 MB takes 36 ms, and mapping them counts as memory of the process.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

# Fields of the messages in onnx.proto.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE_INITIALIZER = 1, 5, 15
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR = 1, 2, 4
_TENSOR_EXTERNAL_DATA = 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_NO_NUMBER = 1 << 70  # larger than any size and any key

# DynamicQuantizeLinear, DynamicQuantizeMatMul, DynamicQuantizeLSTM: one activation scale for the
# whole batch, padding included (onnxruntime#10111), so a row's result depends on its neighbours
_DYNAMIC_OPERATOR = b"DynamicQuantize"
# Operators that change the shape or the type of a value, not what it means.
_RESHAPING = frozenset(
    {"Cast", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Unsqueeze"}
)


def is_dynamic_int8(file: Path) -> bool:
    """Whether the graph quantises activations by what the batch holds.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as handle:
        # the name may stand deeper, in a subgraph or a function
        return any(_DYNAMIC_OPERATOR in _read(handle, part) for part in _without_constants(handle))


def external_files(file: Path) -> tuple[str, ...]:
    """The files beside the graph that hold its weights, as the graph names them; sorted.

    Raises:
        OSError: the file cannot be read.
    """
    found = set()
    with file.open("rb") as handle:
        for graph in _graphs(handle):
            for part in _fields(handle, graph.start, graph.end):
                if part.number == _GRAPH_INITIALIZER:
                    found |= set(_locations(handle, part))
    return tuple(sorted(found))


def last_operator(file: Path, output: str) -> str | None:
    """The operator whose result an output is, changes of shape and type aside.

    Returns:
        Its type, as in "Sigmoid"; None if the file does not tell.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as handle:
        for graph in _graphs(handle):
            wanted = output.encode()
            nodes = [p for p in _fields(handle, graph.start, graph.end) if p.number == _GRAPH_NODE]
            for node in reversed(nodes):  # a graph is sorted: producers come before consumers
                texts = _texts(handle, node)
                if wanted not in texts[_NODE_OUTPUT]:
                    continue
                operator = b"".join(texts[_NODE_OPERATOR]).decode("utf-8", "replace")
                if operator not in _RESHAPING or not texts[_NODE_INPUT]:
                    return operator
                wanted = texts[_NODE_INPUT][0]
    return None


class _Field(NamedTuple):
    """A field of a message: its number, and where its content lies in the file."""

    number: int
    wire: int
    start: int
    end: int


def _fields(handle: BinaryIO, start: int, end: int) -> Iterator[_Field]:
    """The fields between two places of the file; what is not protobuf ends it.

    The reader may be moved in between.
    """
    while start < end:
        handle.seek(start)
        key = _varint(handle)
        if key == _NO_NUMBER:
            return
        wire = key & 7
        content = handle.tell()
        if wire == _VARINT:
            _varint(handle)
            after = handle.tell()
        elif wire == _BYTES:
            size = _varint(handle)
            content = handle.tell()
            after = content + size
        elif wire in (_FIXED64, _FIXED32):
            after = content + (8 if wire == _FIXED64 else 4)
        else:
            return
        if after > end or after <= start:
            return
        yield _Field(key >> 3, wire, content, after)
        start = after


def _graphs(handle: BinaryIO) -> Iterator[_Field]:
    size = handle.seek(0, 2)
    for part in _fields(handle, 0, size):
        if part.number == _MODEL_GRAPH and part.wire == _BYTES:
            yield part


def _without_constants(handle: BinaryIO) -> Iterator[_Field]:
    size = handle.seek(0, 2)
    for part in _fields(handle, 0, size):
        if part.number != _MODEL_GRAPH:
            yield part
            continue
        for inner in _fields(handle, part.start, part.end):
            if inner.number not in (_GRAPH_INITIALIZER, _GRAPH_SPARSE_INITIALIZER):
                yield inner


def _locations(handle: BinaryIO, tensor: _Field) -> Iterator[str]:
    for part in _fields(handle, tensor.start, tensor.end):
        if part.number == _TENSOR_EXTERNAL_DATA:
            texts = _texts(handle, part)
            if texts[_ENTRY_KEY] == [b"location"]:
                yield from (value.decode("utf-8", "replace") for value in texts[_ENTRY_VALUE])


def _texts(handle: BinaryIO, message: _Field) -> dict[int, list[bytes]]:
    """The byte fields of a small message, by number; those asked for elsewhere are there, empty."""
    found: dict[int, list[bytes]] = {number: [] for number in (1, 2, 4)}
    for part in _fields(handle, message.start, message.end):
        if part.wire == _BYTES and part.number in found:
            found[part.number].append(_read(handle, part))
    return found


def _read(handle: BinaryIO, part: _Field) -> bytes:
    handle.seek(part.start)
    return handle.read(part.end - part.start)


def _varint(handle: BinaryIO) -> int:
    """A number of at most 64 bits; one past the end of any file if there is none."""
    value = 0
    for shift in range(0, 70, 7):
        byte = handle.read(1)
        if not byte:
            break
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    return _NO_NUMBER
