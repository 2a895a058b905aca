"""An ONNX file that can be run: what it takes, what it gives, and where it was placed."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.encoding.collate import JOINED_INPUTS, SEPARATE_INPUTS
from flashrank_lite.errors import FlashRankLiteError, InvalidModel, first_line
from flashrank_lite.logits import Output
from flashrank_lite.runtime.sessions import Providers, Sessions

_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
# DynamicQuantizeLinear, DynamicQuantizeMatMul, DynamicQuantizeLSTM: one activation scale for the
# whole batch, padding included (onnxruntime#10111), so a row's result depends on its neighbours
_DYNAMIC_OPERATOR = b"DynamicQuantize"


class Graph:
    """An ONNX file that can be run. Arguments as of `Sessions`, and besides its errors:

    Raises:
        InvalidModel: the file wants inputs that no tokenizer gives.
    """

    def __init__(self, file: Path, threads: int, providers: Providers | None = None) -> None:
        self.file = file
        self._sessions = Sessions(file, threads, providers)
        session = self._sessions.first
        self.lanes = self._sessions.lanes
        self.inputs = _inputs(session, file)
        self.outputs = [
            Output(output.name, _shape(output.shape), output.type)
            for output in session.get_outputs()
        ]
        self.providers: list[str] = session.get_providers()
        self.placed = [] if self._sessions.on_cpu else _placed(session)

    def run(
        self, feeds: Mapping[str, NDArray[Any]], output: str, *, wide: bool = True
    ) -> NDArray[Any]:
        """Run one batch; of `feeds`, what the graph declares is passed, in the type it declares.

        Args:
            feeds: arrays of shape (rows, tokens), by the name of the input.
            output: name of the output wanted.
            wide: on all threads, and not on one of the `lanes`.

        Raises:
            RankerClosed: after `close`.
            ProviderUnavailable: the graph cannot be opened anew, as after a fork.
            InvalidModel: nor on the CPU, or onnxruntime cannot run the graph on this batch.
        """
        wanted = {
            name: feeds[name].astype(dtype, copy=False) for name, dtype in self.inputs.items()
        }
        try:
            array: NDArray[Any] = self._sessions.run(output, wanted, wide=wide)
        except FlashRankLiteError:
            raise
        except Exception as error:
            shape = next(iter(wanted.values())).shape
            raise InvalidModel(
                f"{self.file} failed on a batch of shape {shape}: {first_line(error)}. "
                "A graph must take any number of rows and tokens: export it with dynamic axes"
            ) from error
        return array

    def close(self) -> None:
        """Let go of the sessions; runs already under way finish. Closing twice is fine."""
        self._sessions.close()


def is_dynamic_int8(file: Path) -> bool:
    """Whether the graph quantises activations by what the batch holds.

    Operator names stand in the file as plain bytes. The constants, most of the file, are passed
    over: looking through 91 MB takes 36 ms, and mapping them counts as memory of the process.
    """
    with file.open("rb") as handle:
        parts = _parts(handle, 0, file.stat().st_size)
        return any(_DYNAMIC_OPERATOR in part for part in parts)


# Of the fields of an ONNX file (onnx.proto): a ModelProto's graph, a GraphProto's constants.
_GRAPH, _INITIALIZERS = 7, (5, 15)


def _parts(handle: BinaryIO, start: int, end: int, inside: bool = False) -> Iterator[bytes]:
    """The fields between two places of an ONNX file, those of the graph one by one.

    What is not protobuf ends it: opening the file will say so.
    """
    handle.seek(start)
    while handle.tell() < end:
        key = _varint(handle)
        kind, field = key & 7, key >> 3
        if kind == 0:
            _varint(handle)
            continue
        size = {1: 8, 2: _varint(handle) if kind == 2 else 0, 5: 4}.get(kind, -1)
        after = handle.tell() + size
        if size < 0 or after > end:
            return
        if not inside and field == _GRAPH:
            yield from _parts(handle, handle.tell(), after, inside=True)
        elif not (inside and field in _INITIALIZERS):
            yield handle.read(size)
        handle.seek(after)


def _varint(handle: BinaryIO) -> int:
    value = shift = 0
    while byte := handle.read(1):
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            break
        shift += 7
    return value


def _inputs(session: Any, file: Path) -> dict[str, Any]:
    declared = {entry.name: entry.type for entry in session.get_inputs()}
    known = JOINED_INPUTS if "input_ids" in declared else SEPARATE_INPUTS
    wrong = [name for name, kind in declared.items() if name not in known or kind not in _INTEGERS]
    if wrong or not ({"input_ids"} <= declared.keys() or declared.keys() == {*SEPARATE_INPUTS}):
        listed = ", ".join(f"{name} {kind}" for name, kind in declared.items())
        raise InvalidModel(
            f"{file} is not a text cross-encoder: its inputs are {listed}; it must take input_ids, "
            f"and may take {' and '.join(JOINED_INPUTS[1:])}, as int64 or int32; or else all of "
            f"{', '.join(SEPARATE_INPUTS)}"
        )
    return {name: _INTEGERS[kind] for name, kind in declared.items()}


def _placed(session: Any) -> list[tuple[str, str]]:
    """(provider, operator) of every node; empty before onnxruntime 1.24, which does not say."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return []
    parts = session.get_provider_graph_assignment_info()
    return [(part.ep_name, node.op_type) for part in parts for node in part.get_nodes()]


def _shape(shape: Sequence[object] | None) -> tuple[int | None, ...] | None:
    if shape is None:
        return None
    return tuple(size if isinstance(size, int) else None for size in shape)
