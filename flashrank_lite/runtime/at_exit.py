"""The interpreter ends while daemon threads are in onnxruntime: wait for them, let no other enter.

A thread that comes back from onnxruntime when the interpreter is gone aborts the process (exit
status 134). Threads that are no daemons are joined before this matters.
"""

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flashrank_lite.errors import CallCancelled

LONGEST_WAIT = 60.0  # seconds: a batch of the largest models takes some

_ending = False
_idle = threading.Condition()
_runs = 0


@contextmanager
def running() -> Iterator[None]:
    """onnxruntime is at work; at the end of the interpreter it is waited for.

    Raises:
        CallCancelled: the interpreter is ending. A daemon thread waits for the end instead, as
            the interpreter does with every daemon thread, so that it does not print a traceback.
    """
    global _runs
    with _idle:
        ending = _ending
        if not ending:
            _runs += 1
    if ending:
        if threading.current_thread().daemon:
            threading.Event().wait()
        raise CallCancelled("the interpreter is ending: no further passages are scored")
    try:
        yield
    finally:
        with _idle:
            _runs -= 1
            _idle.notify_all()


def _finish() -> None:
    global _ending
    with _idle:
        _ending = True
        _idle.wait_for(lambda: _runs == 0, LONGEST_WAIT)


def _after_fork() -> None:
    global _idle, _runs
    _idle = threading.Condition()  # another thread of the parent may have held it
    _runs = 0


atexit.register(_finish)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
