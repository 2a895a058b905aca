"""Batches side by side, in threads that live as long as the work."""

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def run_side_by_side(work: Callable[[T], None], items: Iterable[T], workers: int) -> None:
    """Call `work` for every item, for up to `workers` of them at the same time.

    Items are taken in their order, each by the first worker that is free. Starting a thread takes
    0.05 ms; a pool that is kept would not survive a fork. Where no more threads can be had there
    are fewer workers, the caller's own at the least.

    Raises:
        The first error that `work` raised, or an interrupt of the caller; no item is begun after
        it.
    """
    rest = iter(items)
    taking = threading.Lock()
    stop = threading.Event()
    failed: list[BaseException] = []

    def take_items() -> None:
        try:
            while not stop.is_set():
                with taking:
                    try:
                        item = next(rest)
                    except StopIteration:
                        return
                work(item)
        except BaseException as error:  # also an interrupt: the others must not go on
            failed.append(error)
            stop.set()

    threads: list[threading.Thread] = []
    try:
        for _ in range(workers - 1):
            thread = threading.Thread(target=take_items, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # at a limit of the system, or while the interpreter ends
                break
            threads.append(thread)
        take_items()
        for thread in threads:
            thread.join()
    except BaseException as error:  # an interrupt while others are waited for
        failed.append(error)
        stop.set()
    if failed:
        try:
            raise failed[0]
        finally:
            failed.clear()  # its traceback holds this list, and all that was at work
