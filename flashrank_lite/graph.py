"""The onnxruntime session: opened once, run by many threads, opened anew in a forked child."""

import ctypes
import logging
import mmap
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from flashrank_lite.encoding import JOINED_INPUTS, SEPARATE_INPUTS
from flashrank_lite.errors import (
    InvalidInput,
    InvalidModel,
    ProviderUnavailable,
    RankerClosed,
    first_line,
)
from flashrank_lite.heads import Output

logger = logging.getLogger(__name__)

Providers = Sequence[str | tuple[str, Mapping[str, Any]]]

_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
# DynamicQuantizeLinear, DynamicQuantizeMatMul, DynamicQuantizeLSTM: one activation scale for the
# whole batch, padding included (onnxruntime#10111), so a row's result depends on its neighbours
_DYNAMIC_OPERATOR = b"DynamicQuantize"
_OTHER_NAMES = {"directml": "dml"}  # what people say, where onnxruntime says otherwise
_CPU_ONLY = ["CPUExecutionProvider"]
_QUIET = 4  # onnxruntime's "fatal": its errors reach us as exceptions


class Graph:
    """An ONNX file that can be run.

    Args:
        file: path of the ONNX file; external data is read from beside it.
        threads: threads of one run.
        providers: execution providers, preferred first: onnxruntime's names ("CUDA" for
            "CUDAExecutionProvider" will do) or (name, options). None is the CPU.

    Raises:
        InvalidModel: the file cannot be opened, or it wants inputs that no tokenizer gives.
        ProviderUnavailable: this onnxruntime has no such provider, or cannot start it.
        InvalidInput: `providers` is not a list.
    """

    def __init__(self, file: Path, threads: int, providers: Providers | None = None) -> None:
        self.file = file
        self._threads = threads
        self._wanted = resolve(providers)
        self._session: Any = None
        self._pid = os.getpid()
        self._closed = False
        session = self._open()
        self.inputs = _inputs(session, file)
        self.outputs = [
            Output(output.name, _shape(output.shape), output.type)
            for output in session.get_outputs()
        ]
        self.providers: list[str] = session.get_providers()
        self.placed = _placed(session) if self._wanted != _CPU_ONLY else []
        _alive.add(self)

    def run(self, feeds: Mapping[str, NDArray[Any]], output: str) -> NDArray[Any]:
        """Run one batch; of `feeds`, what the graph declares is passed, in the type it declares.

        Raises:
            RankerClosed: after `close`.
            InvalidModel: onnxruntime cannot run the graph on this batch.
        """
        wanted = {
            name: feeds[name].astype(dtype, copy=False) for name, dtype in self.inputs.items()
        }
        session = self._live()
        try:
            array: NDArray[Any] = session.run([output], wanted)[0]
        except Exception as error:
            shape = next(iter(wanted.values())).shape
            raise InvalidModel(
                f"{self.file} failed on a batch of shape {shape}: {first_line(error)}. "
                "A graph must take any number of rows and tokens: export it with dynamic axes"
            ) from error
        return array

    def close(self) -> None:
        """Let go of the session; runs already under way finish. Closing twice is fine."""
        self._closed = True
        self._session = None

    def forget(self) -> None:
        """In a forked child: leave the parent's session alone and open our own when needed.

        Its threads exist only in the parent, and its destructor would wait for them or crash
        (onnxruntime#31961), so the inherited object is kept until the process ends.
        """
        if self._session is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
        self._session = None
        self._pid = os.getpid()

    def _live(self) -> Any:
        session = self._session
        if session is not None and self._pid == os.getpid():
            return session
        with _opening:
            if self._closed:
                raise RankerClosed("this ranker is closed: make a new Ranker, or close it later")
            if self._pid != os.getpid():
                self.forget()
            return self._open() if self._session is None else self._session

    def _open(self) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _QUIET
        # waiting threads that spin win nothing (best of 100 passages on 2 cores: 1,614 ms, without
        # 1,635 ms) and cost much on a shared core (median 4,383 ms, without 2,377 ms)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # every batch has its own shape: the pattern planner would keep one plan per shape
        options.enable_mem_pattern = False
        # on AVX2 and AVX-512 without VNNI, u8 x s8 products saturate at 16 bits and scores go
        # wrong; this has onnxruntime use u8 x u8 there, and changes nothing elsewhere
        options.add_session_config_entry("session.x64quantprecision", "1")
        if self._wanted != _CPU_ONLY:  # so that nothing is left to the CPU unseen
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            session = onnxruntime.InferenceSession(
                str(self.file),
                options,
                providers=list(self._wanted),
                enable_fallback=0,  # falling back would print, and hide what went wrong
            )
        except Exception as error:
            raise InvalidModel(_explain(self.file, error)) from error
        started = session.get_providers()
        names = [entry if isinstance(entry, str) else entry[0] for entry in self._wanted]
        missing = [name for name in names if name not in started]
        if missing:
            raise ProviderUnavailable(
                f"onnxruntime could not start {', '.join(missing)} (it fell back to "
                f"{', '.join(started)}): install what that provider needs, or leave it out"
            )
        self._session = session
        logger.debug("opened %s with %d threads on %s", self.file, self._threads, started)
        return session


_alive: "weakref.WeakSet[Graph]" = weakref.WeakSet()
_opening = threading.Lock()


def _after_fork() -> None:
    global _opening
    _opening = threading.Lock()  # another thread of the parent may have held it
    for graph in list(_alive):
        graph.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def is_dynamic_int8(file: Path) -> bool:
    """Whether the graph quantises activations by what the batch holds.

    Operator names stand in the file as plain bytes; external data holds only weights.
    """
    if file.stat().st_size == 0:
        return False
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return view.find(_DYNAMIC_OPERATOR) >= 0


def resolve(providers: Providers | None) -> list[str | tuple[str, dict[str, Any]]]:
    """Providers under onnxruntime's own names. Errors as of `Graph`."""
    if providers is None:
        return list(_CPU_ONLY)
    if isinstance(providers, str) or not providers:
        raise InvalidInput(
            f"providers must be a list of names, not {providers!r}: "
            "pass for instance ['CPUExecutionProvider'], or None for the CPU"
        )
    available = {name.lower(): name for name in onnxruntime.get_available_providers()}
    resolved: list[str | tuple[str, dict[str, Any]]] = []
    for entry in providers:
        name, options = (entry, None) if isinstance(entry, str) else entry
        short = str(name).lower().removesuffix("executionprovider")
        short = _OTHER_NAMES.get(short, short)
        if f"{short}executionprovider" not in available:
            get = "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
            if short != "cuda":
                get = "choose one of these, or install the build of onnxruntime that has it"
            raise ProviderUnavailable(
                f"no provider {name!r} in this onnxruntime {onnxruntime.__version__} (it has "
                f"{', '.join(available.values())}): {get}"
            )
        full = available[f"{short}executionprovider"]
        resolved.append(full if options is None else (full, dict(options)))
    return resolved


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


def _explain(file: Path, error: Exception) -> str:
    said = str(error).lower()
    if "external" in said or "file_size" in said or "filesystem error" in said:
        return (
            f"{file} keeps its weights in another file that is missing or incomplete "
            f"({first_line(error)}): put it beside the graph, under the name it was exported with"
        )
    return (
        f"onnxruntime {onnxruntime.__version__} cannot load {file} ({first_line(error)}): "
        "the file is damaged or incomplete, so fetch or export it again; or it needs a newer "
        "onnxruntime"
    )
