"""One call of a user: it can be cancelled, and it reports its progress.

A context variable carries it from the front (`Ranker.arank`, a server's request, a progress bar) to
the loop that runs batches, past scorers that need not know of it. Whatever works in threads of its
own takes `current()` in the caller's thread and hands it on.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from flashrank_lite.errors import CallCancelled

Progress = Callable[[int, int], None]


class Call:
    """A call in progress.

    Args:
        progress: called with (pairs done, pairs known of so far) after every batch, by one thread
            at a time; an error that it raises ends the call.
        parent: the call that this one is a part of: it is cancelled with it, and reports to it.
    """

    def __init__(self, progress: Progress | None = None, parent: "Call | None" = None) -> None:
        self._parent = parent
        self._cancelled = threading.Event()
        self._progress = progress
        self._reporting = threading.Lock()
        self._done = self._total = 0

    def cancel(self) -> None:
        """Stop the call before its next batch; from any thread."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called, here or of the call that this is a part of."""
        return self._cancelled.is_set() or (self._parent is not None and self._parent.cancelled)

    def check(self) -> None:
        """Raises CallCancelled if the call was cancelled; called before every batch."""
        if self.cancelled:
            raise CallCancelled("the call was cancelled before all passages were scored")

    def expect(self, pairs: int) -> None:
        """A scorer is going to score so many pairs more."""
        with self._reporting:
            self._total += pairs
        if self._parent is not None:
            self._parent.expect(pairs)

    def advance(self, pairs: int) -> None:
        """So many pairs more are done."""
        if self._progress is not None:
            with self._reporting:
                self._done += pairs
                self._progress(self._done, self._total)
        if self._parent is not None:
            self._parent.advance(pairs)


_current: ContextVar[Call | None] = ContextVar("flashrank_lite_call", default=None)


def current() -> Call:
    """The call that this code works for; one that nobody can cancel, if there is none."""
    return _current.get() or Call()


@contextmanager
def running(call: Call) -> Iterator[Call]:
    """Make it the current call of the code within."""
    token = _current.set(call)
    try:
        yield call
    finally:
        _current.reset(token)
