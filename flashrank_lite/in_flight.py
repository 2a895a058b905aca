"""Calls in flight: what is closed meanwhile is freed when the last of them ends.

A ranker counts its calls, because a window or a second stage may come after a model's run; the
sessions of a model count theirs, because a scorer may be used without a ranker.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flashrank_lite.errors import RankerClosed


class InFlight:
    """Counts calls, and puts off closing until none is left."""

    def __init__(self) -> None:
        self._closed = False
        self._close: Callable[[], None] | None = None
        self._reset()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def freed(self) -> bool:
        """Whether it was closed, and no call is left."""
        return self._closed and self._close is None

    @contextmanager
    def one(self) -> Iterator[None]:
        """A call.

        Raises:
            RankerClosed: after `close`.
        """
        if self._pid != os.getpid():  # the parent's calls are not ours, and its lock may be taken
            self._reset()
        lock = self._lock
        with lock:
            if self._closed:
                raise RankerClosed("this ranker is closed: make a new Ranker, or close it later")
            self._calls += 1
        try:
            yield
        finally:
            with lock:
                self._calls -= 1
            self._close_if_idle()

    def close(self, close: Callable[[], None]) -> None:
        """Refuse later calls, and call `close` when those in flight are done."""
        if self._pid != os.getpid():
            self._reset()
        with self._lock:
            self._closed = True
            self._close = close
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        with self._lock:
            if self._calls > 0:
                return
            close, self._close = self._close, None
        if close is not None:
            close()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._pid = os.getpid()

    def __reduce__(self) -> tuple[type["InFlight"], tuple[()]]:
        if self._closed:
            raise RankerClosed("a closed ranker cannot be pickled: pickle it before it is closed")
        return InFlight, ()
