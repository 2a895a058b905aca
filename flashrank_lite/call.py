"""One call of a user: it can be cancelled, reports its progress, and says what it took.

A context variable carries it from the front (`Ranker.arank`, a server's request, a progress bar) to
the loop that runs batches, past scorers that need not know of it. Whatever works in threads of its
own takes `current()` in the caller's thread and hands it on.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
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

    Attributes:
        tokens: that a `Ranker` read for each list of the call, in their order, once it is ranked
            (`flashrank_lite.scorer.Scores.tokens`).
        tokenizing_seconds: spent on making token ids of texts, in all threads together.
    """

    def __init__(self, progress: Progress | None = None, parent: "Call | None" = None) -> None:
        self._parent = parent
        self._cancelled = threading.Event()
        self._progress = progress
        self._reporting = threading.Lock()
        self._done = self._total = 0
        self.tokens: list[int] = []
        self.tokenizing_seconds = 0.0

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

    def read(self, tokens: Sequence[int]) -> None:
        """Lists were ranked, for which so many tokens each were read."""
        with self._reporting:
            self.tokens += tokens
        if self._parent is not None:
            self._parent.read(tokens)

    @contextmanager
    def tokenizing(self) -> Iterator[None]:
        """The code within makes token ids of texts."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._tokenized(time.perf_counter() - began)

    def _tokenized(self, seconds: float) -> None:
        with self._reporting:
            self.tokenizing_seconds += seconds
        if self._parent is not None:
            self._parent._tokenized(seconds)


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
