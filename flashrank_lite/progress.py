"""How far a long call is, on standard error: rich's bar where it is installed, else a count."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

from flashrank_lite.call import Call, Progress, current, running

Doing = Literal["ranking", "encoding"]

_DONE = {"ranking": "ranked", "encoding": "encoded"}
_PATIENCE = 0.5  # seconds before anything is shown: a short ranking should not flicker
_BETWEEN = 0.2  # seconds between two counts on a terminal
_BETWEEN_LINES = 5.0  # and in a file, where each is a line


@contextmanager
def reporting(wanted: bool | Progress, doing: Doing = "ranking") -> Iterator[None]:
    """Report the progress of the call that the code within is.

    Args:
        wanted: True for a bar on standard error, a function of (pairs done, pairs in all), or False
            for neither.
        doing: what is shown.
    """
    if wanted is False:
        yield
        return
    shown = progress(True, doing) if wanted is True else nullcontext(wanted)
    with shown as report, running(Call(report, parent=current())):
        yield


@contextmanager
def progress(wanted: bool | None, doing: Doing = "ranking") -> Iterator[Progress | None]:
    """Show progress while the code within runs.

    Args:
        wanted: None for yes, if standard error is a terminal.
        doing: what is shown.

    Yields:
        What is to be called with the passages done and the passages in all, from any thread, one
        at a time; None if nothing is to be shown.
    """
    terminal = sys.stderr is not None and sys.stderr.isatty()
    if sys.stderr is None or not (terminal if wanted is None else wanted):
        yield None
        return
    try:
        from rich import progress as rich_progress
        from rich.console import Console
    except ImportError:
        terminal_bar = False
    else:
        terminal_bar = terminal
    if not terminal_bar:
        with _counting(terminal, doing) as report:
            yield report
        return
    bar = rich_progress.Progress(
        rich_progress.TextColumn(doing),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("passages"),
        rich_progress.TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
    )
    task = bar.add_task("", total=None)
    begun = time.monotonic()
    started = False

    def update(done: int, total: int) -> None:
        nonlocal started
        bar.update(task, completed=done, total=total)
        if not started and time.monotonic() - begun > _PATIENCE:
            started = True
            bar.start()

    try:
        yield update
    finally:
        bar.stop()


@contextmanager
def _counting(terminal: bool, doing: Doing) -> Iterator[Progress]:
    stream = sys.stderr
    begun = shown = time.monotonic()
    length = 0

    def report(done: int, total: int) -> None:
        nonlocal shown, length
        now = time.monotonic()
        if now - begun < _PATIENCE or now - shown < (_BETWEEN if terminal else _BETWEEN_LINES):
            return
        shown = now
        line = f"{_DONE[doing]} {done} of {total} passages"
        stream.write(f"\r{line:<{length}}" if terminal else f"{line}\n")
        stream.flush()
        length = max(length, len(line))

    try:
        yield report
    finally:
        if terminal and length:
            stream.write(f"\r{'':<{length}}\r")
            stream.flush()
