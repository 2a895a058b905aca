"""onnxruntime sessions of one graph: opened once, opened anew in a forked child.

A small graph has two. One runs a batch on a single thread, so that several batches run side by
side, a core each; the other runs a long row on all threads, and is opened when such rows come
again. Side by side is quicker by far where there are two batches or more: operators of a small
model are too short to be shared out (MiniLM-L6 int8, 100 passages, 2 cores: 425 ms side by side,
536 ms one after the other on both; fp32 985 and 1,130).
"""

import ctypes
import logging
import mmap
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from flashrank_lite.errors import (
    InvalidInput,
    InvalidModel,
    ProviderUnavailable,
    RankerClosed,
    first_line,
)
from flashrank_lite.runtime.cpu_features import instruction_sets

logger = logging.getLogger(__name__)

Providers = Sequence[str | tuple[str, Mapping[str, Any]]]

LARGEST_TWICE = 150_000_000  # bytes of a graph and its weights: larger ones are not held twice
_OTHER_NAMES = {"directml": "dml"}  # what people say, where onnxruntime says otherwise
_CPU_ONLY = ["CPUExecutionProvider"]
_QUIET = 4  # onnxruntime's "fatal": its errors reach us as exceptions
_SATURATION_FREE = {"avx512_vnni", "avx_vnni", "amx_int8"}


class Sessions:
    """The sessions of an ONNX file.

    Args:
        file: path of the ONNX file; external data is read from beside it.
        threads: that may be busy at the same time.
        providers: execution providers, preferred first: onnxruntime's names ("CUDA" for
            "CUDAExecutionProvider" will do) or (name, options). None is the CPU.

    Attributes:
        lanes: batches that may be run side by side; 1 where a batch is always run on all threads.
        first: a session, to ask what the graph is.

    Raises:
        InvalidModel: the file cannot be opened.
        ProviderUnavailable: this onnxruntime has no such provider, or cannot start it.
        InvalidInput: `providers` is not a list.
    """

    def __init__(self, file: Path, threads: int, providers: Providers | None = None) -> None:
        self._file, self._threads = file, threads
        self._wanted = resolve(providers)
        self.on_cpu = self._wanted == _CPU_ONLY
        self.lanes = threads if self.on_cpu and _is_small(file) else 1
        self._open: dict[int, Any] = {}  # by the threads of a run
        self._pid = os.getpid()
        self._closed = False
        self._asked = False
        self._seen: object = None  # the file that the sessions are of
        self._count_anew()
        self.first = self._session(1 if self.lanes > 1 else threads)
        _alive.add(self)

    def run(self, output: str, feeds: Mapping[str, Any], *, wide: bool) -> Any:
        """Run a batch on one of the lanes, or on all threads if `wide` and nothing else is running.

        What is in memory at the same time is so bounded, however many call.

        Raises:
            RankerClosed: after `close`.
            InvalidModel, ProviderUnavailable: a session cannot be opened.
        """
        if self.lanes == 1:
            return self._session(self._threads).run([output], feeds)[0]
        with self._slots:  # more callers than threads would only get into each other's way
            counting = self._counting  # a fork replaces it
            with counting:
                self._running += 1
                all_threads = wide and self._widens() and self._running == 1
            try:
                session = self._session(self._threads if all_threads else 1)
                return session.run([output], feeds)[0]
            finally:
                with counting:
                    self._running -= 1

    def close(self) -> None:
        """Let go of the sessions; runs already under way finish. Closing twice is fine."""
        self._closed = True
        self._open = {}
        self.first = None

    def forget(self) -> None:
        """In a forked child: leave the parent's sessions alone and open our own when needed.

        Their threads exist only in the parent, and a destructor would wait for them or crash
        (onnxruntime#31961), so the inherited objects are kept until the process ends.
        """
        for session in self._open.values():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
        self._open = {}
        self.first = None
        self._count_anew()  # the parent's locks may have been taken
        self._pid = os.getpid()

    def _count_anew(self) -> None:
        self._slots = threading.BoundedSemaphore(self.lanes)
        self._counting, self._running = threading.Lock(), 0

    def _session(self, threads: int) -> Any:
        session = self._open.get(threads)
        if session is not None and self._pid == os.getpid():
            return session
        with _opening:
            if self._pid != os.getpid():
                self.forget()
            sessions = self._open  # `close` puts another one in its place
            if self._closed:
                raise RankerClosed("this ranker is closed: make a new Ranker, or close it later")
            if not sessions:
                self._seen = _identity(self._file)
            if threads not in sessions:
                sessions[threads] = self._start(threads)
            return sessions[threads]

    def _widens(self) -> bool:
        """Whether there is a session on all threads, or one may be opened."""
        # a process that has but one question should not open two for it
        if not self._asked or 1 not in self._open:
            self._asked = True
            return False
        if self._threads in self._open:
            return True
        if self._seen is not None and self._seen == _identity(self._file):
            return True
        if self._seen is not None:
            self._seen = None  # so that it is said once
            logger.warning(
                "%s is no longer the file that was opened: single passages stay on one thread, "
                "with the model as it was, until it is opened anew",
                self._file,
            )
        return False

    def _start(self, threads: int) -> Any:
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
        if not self.on_cpu:  # so that nothing is left to the CPU unseen
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            session = onnxruntime.InferenceSession(
                str(self._file),
                options,
                providers=list(self._wanted),
                enable_fallback=0,  # falling back would print, and hide what went wrong
            )
        except Exception as error:
            raise InvalidModel(_explain(self._file, error)) from error
        started = session.get_providers()
        names = [entry if isinstance(entry, str) else entry[0] for entry in self._wanted]
        missing = [name for name in names if name not in started]
        if missing:
            raise ProviderUnavailable(
                f"onnxruntime could not start {', '.join(missing)} (it fell back to "
                f"{', '.join(started)}): install what that provider needs, or leave it out"
            )
        logger.debug("opened %s with %d threads on %s", self._file, threads, started)
        return session


_alive: "weakref.WeakSet[Sessions]" = weakref.WeakSet()
_opening = threading.Lock()


def _after_fork() -> None:
    global _opening
    _opening = threading.Lock()  # another thread of the parent may have held it
    for sessions in list(_alive):
        sessions.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


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


def _is_small(file: Path) -> bool:
    """Whether a graph, with the weights that it keeps beside it, may be held twice."""
    try:
        room = LARGEST_TWICE - file.stat().st_size
        others = [path for path in file.parent.iterdir() if path.suffix != ".onnx"]
        sizes = {path.name: path.stat().st_size for path in others if path.is_file()}
    except OSError:  # opening it will say what is wrong
        return True
    if room < 0 or sum(sizes.values()) <= room:
        return room >= 0
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as view:
        named = [size for name, size in sizes.items() if view.find(name.encode()) >= 0]
    return sum(named) <= room


def _identity(file: Path) -> object:
    """What changes when a file is written anew or replaced; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


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
