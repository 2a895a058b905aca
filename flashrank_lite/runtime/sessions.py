"""The sessions of one graph: opened once, opened anew in a forked child, closed when nobody runs.

A small graph has two. One runs a batch on a single thread, so that several batches run side by
side, a core each; the other runs a long row on all threads, and is opened when such rows come
again. Side by side is quicker by far where there are two batches or more: operators of a small
model are too short to be shared out (MiniLM-L6 int8, 100 passages, 2 cores: 425 ms side by side,
536 ms one after the other on both; fp32 985 and 1,130).
"""

import ctypes
import logging
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from flashrank_lite.errors import (
    CallCancelled,
    FlashRankLiteError,
    InvalidModel,
    ProviderUnavailable,
    RankerClosed,
    first_line,
)
from flashrank_lite.in_flight import InFlight
from flashrank_lite.logits import Output
from flashrank_lite.options import Providers
from flashrank_lite.runtime import at_exit
from flashrank_lite.runtime.cpu_features import instruction_sets
from flashrank_lite.runtime.onnx_file import external_files
from flashrank_lite.runtime.providers import CPU, names, resolve

logger = logging.getLogger(__name__)

LARGEST_TWICE = 150_000_000  # bytes of a graph and its weights: larger ones are not held twice
_QUIET = 4  # onnxruntime's "fatal": its errors reach us as exceptions
_SATURATION_FREE = {"avx512_vnni", "avx_vnni", "amx_int8"}
_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


class Sessions:
    """The sessions of an ONNX file.

    Args:
        file: path of the ONNX file; external data is read from beside it.
        threads: that may be busy at the same time.
        providers: execution providers, preferred first; None for the CPU.

    Attributes:
        file: as given.
        inputs: numpy's integer type of every input, by name; None for inputs of another type.
        outputs: what the graph declares to give.
        providers: onnxruntime's names of the providers in use.
        placed: (provider, operator) of every node; empty where onnxruntime does not tell.
        workers: batches that may run side by side; 1 where a batch always has all threads.

    Raises:
        InvalidModel: the file cannot be opened.
        ProviderUnavailable: this onnxruntime has no such provider, or cannot start it.
        InvalidInput: `providers` is not a list.
    """

    def __init__(self, file: Path, threads: int, providers: Providers | None = None) -> None:
        self.file = file
        self._threads = threads
        self._wanted = resolve(providers)
        on_cpu = self._wanted == [CPU]
        self.workers = threads if on_cpu and _is_small(file) else 1
        self._open: dict[int, Any] = {}  # by the threads of a run
        self._pid = os.getpid()
        self._in_flight = InFlight()
        self._had_long_row = False
        self._opened_file: object = None  # what identifies the file that the sessions are of
        self._reset_locks()
        session = self._session(1 if self.workers > 1 else threads)
        self.inputs = {entry.name: _INTEGERS.get(entry.type) for entry in session.get_inputs()}
        self.outputs = [
            Output(output.name, _shape(output.shape), output.type)
            for output in session.get_outputs()
        ]
        self.providers: list[str] = session.get_providers()
        self.placed = [] if on_cpu else _placed(session)
        _alive.add(self)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._in_flight.closed

    def in_use(self) -> AbstractContextManager[None]:
        """A call: its runs finish even if the sessions are closed meanwhile.

        Raises:
            RankerClosed: they are closed already.
        """
        return self._in_flight.one()

    def run(
        self, feeds: Mapping[str, NDArray[Any]], output: str, *, all_threads: bool = True
    ) -> NDArray[Any]:
        """Run one batch for one output; arguments and errors as `run_for`."""
        (array,) = self.run_for(feeds, [output], all_threads=all_threads)
        return array

    def run_for(
        self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str], *, all_threads: bool = True
    ) -> list[NDArray[Any]]:
        """Run one batch; of `feeds`, what the graph declares is passed, in the type it declares.

        At most `workers` batches run at the same time, and this bounds memory, whatever the number
        of callers.

        Args:
            feeds: arrays of shape (rows, tokens), by the name of the input.
            outputs: names of the outputs wanted; what no other output needs is not computed.
            all_threads: run on all threads if nothing else is running, instead of on one.

        Raises:
            RankerClosed: after `close`, unless within `in_use`.
            InvalidModel: onnxruntime cannot run the graph on this batch.
            InvalidModel, ProviderUnavailable: the graph cannot be opened anew, as after a fork.
            CallCancelled: the interpreter is ending.
        """
        wanted = {name: feeds[name].astype(kind, copy=False) for name, kind in self.inputs.items()}
        try:
            if self.workers == 1:
                return self._run(self._threads, wanted, outputs)
            with self._slots:  # more callers than threads would only get into each other's way
                counting = self._counting  # a fork replaces it
                with counting:
                    self._running += 1
                    alone = all_threads and self._may_open_all_threads() and self._running == 1
                try:
                    return self._run(self._threads if alone else 1, wanted, outputs)
                finally:
                    with counting:
                        self._running -= 1
        except FlashRankLiteError:
            raise
        except Exception as error:
            shape = next(iter(wanted.values())).shape
            raise InvalidModel(
                f"{self.file} failed on a batch of shape {shape}: {first_line(error)}. "
                "A graph must take any number of rows and tokens: export it with dynamic axes"
            ) from error

    def close(self) -> None:
        """Let go of the sessions; calls in flight finish first. Closing twice is fine."""
        self._in_flight.close(self._free)

    def reset_after_fork(self) -> None:
        """In a forked child: leave the parent's sessions alone and open our own when needed.

        Their threads exist only in the parent, and a destructor would wait for them or crash
        (onnxruntime#31961), so the inherited objects are kept until the process ends.
        """
        for session in self._open.values():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
        self._open = {}
        self._reset_locks()  # the parent's may have been taken
        self._pid = os.getpid()

    def _free(self) -> None:
        self._open = {}

    def _reset_locks(self) -> None:
        self._slots = threading.BoundedSemaphore(self.workers)
        self._counting = threading.Lock()
        self._running = 0

    def _run(
        self, threads: int, feeds: Mapping[str, Any], outputs: Sequence[str]
    ) -> list[NDArray[Any]]:
        session = self._session(threads)
        options = []
        if len(outputs) < len(self.outputs):
            options = [onnxruntime.RunOptions()]
            options[0].only_execute_path_to_fetches = True
        with at_exit.running():
            arrays: list[NDArray[Any]] = session.run(list(outputs), feeds, *options)
        return arrays

    def _session(self, threads: int) -> Any:
        session = self._open.get(threads)
        if session is not None and self._pid == os.getpid():
            return session
        with _opening:
            if self._pid != os.getpid():
                self.reset_after_fork()
            sessions = self._open  # `close` puts another one in its place
            if self._in_flight.freed:
                raise RankerClosed("this ranker is closed: make a new Ranker, or close it later")
            if not sessions:
                self._opened_file = _identity(self.file)
            if threads not in sessions:
                sessions[threads] = self._start(threads)
            return sessions[threads]

    def _may_open_all_threads(self) -> bool:
        """Whether there is a session on all threads, or one may be opened."""
        # a process that has but one question should not open two for it
        if not self._had_long_row or 1 not in self._open:
            self._had_long_row = True
            return False
        if self._threads in self._open:
            return True
        if self._opened_file is not None and self._opened_file == _identity(self.file):
            return True
        if self._opened_file is not None:
            self._opened_file = None  # so that it is said once
            logger.warning(
                "%s is no longer the file that was opened: single passages stay on one thread, "
                "with the model as it was, until it is opened anew",
                self.file,
            )
        return False

    def _start(self, threads: int) -> Any:
        try:
            with at_exit.running():
                session = onnxruntime.InferenceSession(
                    str(self.file),
                    _session_options(threads, on_cpu=self._wanted == [CPU]),
                    providers=list(self._wanted),
                    enable_fallback=0,  # falling back would print, and hide what went wrong
                )
        except CallCancelled:
            raise
        except Exception as error:
            raise InvalidModel(_explain(self.file, error)) from error
        started = session.get_providers()
        missing = [name for name in names(self._wanted) if name not in started]
        if missing:
            raise ProviderUnavailable(
                f"onnxruntime could not start {', '.join(missing)} (it fell back to "
                f"{', '.join(started)}): install what that provider needs, or leave it out"
            )
        logger.debug("opened %s with %d threads on %s", self.file, threads, started)
        return session


_alive: "weakref.WeakSet[Sessions]" = weakref.WeakSet()
_opening = threading.Lock()


def _after_fork() -> None:
    global _opening
    _opening = threading.Lock()  # another thread of the parent may have held it
    for sessions in list(_alive):
        sessions.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _session_options(threads: int, *, on_cpu: bool) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    # waiting threads that spin win nothing (best of 100 passages on 2 cores: 1,614 ms, without
    # 1,635 ms) and cost much on a shared core (median 4,383 ms, without 2,377 ms)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # every batch has its own shape: the pattern planner would keep one plan per shape
    options.enable_mem_pattern = False
    if not _SATURATION_FREE & instruction_sets():
        # On AVX2 and AVX-512 without VNNI, u8 x s8 products saturate at 16 bits and scores go
        # wrong; this has onnxruntime use u8 x u8. It does so on every processor: with VNNI a
        # dynamic int8 graph took 1,304 ms instead of 710.
        options.add_session_config_entry("session.x64quantprecision", "1")
    if not on_cpu:  # so that nothing is left to the CPU unseen
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _is_small(file: Path) -> bool:
    """Whether a graph, with the weights that it keeps beside it, may be held twice."""
    try:
        size = file.stat().st_size
        beside = (file.parent / name for name in external_files(file))
        return size + sum(path.stat().st_size for path in beside) <= LARGEST_TWICE
    except OSError:  # opening it will say what is wrong
        return True


def _identity(file: Path) -> object:
    """What changes when a file is written anew or replaced; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _placed(session: Any) -> list[tuple[str, str]]:
    """(provider, operator) of every node; empty before onnxruntime 1.24, which does not tell."""
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
