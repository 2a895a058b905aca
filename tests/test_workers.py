"""Batches side by side: order, errors, interrupts, and processes that fork."""

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from flashrank_lite.runtime.workers import run_side_by_side

WAIT = 20.0  # seconds, for what should come at once


@pytest.mark.parametrize("workers", [0, 1, 2, 5, 16])
def test_every_item_is_done_once_and_all_are_done_at_the_end(workers: int) -> None:
    done: list[int] = []
    run_side_by_side(done.append, range(11), workers)
    assert sorted(done) == list(range(11))


def test_one_worker_goes_in_order_in_the_thread_of_the_caller() -> None:
    done: list[tuple[int, int]] = []
    run_side_by_side(lambda item: done.append((item, threading.get_ident())), range(5), 1)
    assert done == [(item, threading.get_ident()) for item in range(5)]


def test_no_items_are_no_work() -> None:
    run_side_by_side(pytest.fail, [], 3)


def test_as_many_items_as_lanes_are_under_way_at_the_same_time() -> None:
    everyone = threading.Barrier(3)
    run_side_by_side(lambda _: everyone.wait(WAIT) and None, range(3), 3)  # alone, one would wait


def test_never_more_items_than_lanes_are_under_way() -> None:
    running, most, changing = 0, 0, threading.Lock()

    def work(_: int) -> None:
        nonlocal running, most
        with changing:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with changing:
            running -= 1

    run_side_by_side(work, range(20), 3)
    assert most == 3


def test_items_are_taken_in_order_by_the_worker_that_is_free() -> None:
    begun: list[int] = []
    others = threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        if item == 0:  # the longest: the other worker does all the rest meanwhile
            assert others.wait(WAIT)
        if item == 9:
            others.set()

    run_side_by_side(work, range(10), 2)
    assert begun[2:] == list(range(2, 10))
    assert sorted(begun[:2]) == [0, 1]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_first_error_is_raised_and_nothing_is_begun_after_it(workers: int) -> None:
    begun: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        if item == 3:
            raise ValueError("item 3")
        time.sleep(0.05 if item > 3 else 0)

    with pytest.raises(ValueError, match="item 3"):
        run_side_by_side(work, range(1000), workers)
    assert len(begun) <= 4 + workers  # those that were under way, and what each took just then


def test_of_two_errors_the_first_is_raised() -> None:
    second = threading.Event()

    def work(item: int) -> None:
        if item == 0:
            second.set()
            raise ValueError("the first")
        assert second.wait(WAIT)
        time.sleep(0.05)
        raise KeyError("the second")

    with pytest.raises(ValueError, match="the first"):
        run_side_by_side(work, range(2), 2)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_of_the_items_themselves_is_raised(workers: int) -> None:
    def items():
        yield from range(5)
        raise OSError("no more to be had")

    done: list[int] = []
    with pytest.raises(OSError, match="no more"):
        run_side_by_side(done.append, items(), workers)
    assert sorted(done) == list(range(5))


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals go to no thread here")
def test_an_interrupt_while_others_are_waited_for_stops_them() -> None:
    caller = threading.main_thread().ident
    assert caller == threading.get_ident()
    begun: list[int] = []
    interrupted, ended = threading.Event(), threading.Event()

    class Items:
        """Fifty, for all but the caller."""

        def __iter__(self) -> "Items":
            return self

        def __next__(self) -> int:
            if threading.get_ident() == caller or len(begun) == 50:
                raise StopIteration
            return len(begun)

    def work(item: int) -> None:
        begun.append(item)
        time.sleep(0.1)  # the caller waits by now
        for _ in range(int(WAIT * 10)):  # a signal that meets Python code waits with it
            signal.pthread_kill(caller, signal.SIGINT)
            if interrupted.wait(0.1):
                break
        ended.set()

    # a process that was started in the background ignores interrupts, and hands that down
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_side_by_side(work, Items(), 2)
    finally:
        interrupted.set()
        signal.signal(signal.SIGINT, before)
    assert ended.wait(WAIT)
    time.sleep(0.05)
    assert begun == [0]


def test_fewer_threads_than_lanes_do_all_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    done: list[int] = []
    run_side_by_side(done.append, range(30), 8)
    assert sorted(done) == list(range(30))
    assert len(started) == 1


def test_work_may_itself_go_run_side_by_side() -> None:
    done: list[tuple[int, int]] = []

    def outer(item: int) -> None:
        run_side_by_side(lambda inner: done.append((item, inner)), range(4), 3)

    run_side_by_side(outer, range(5), 3)
    assert sorted(done) == [(item, inner) for item in range(5) for inner in range(4)]


FORK = """
import os, sys, threading
from flashrank_lite.runtime.workers import run_side_by_side

def both_at_once():
    everyone = threading.Barrier(2)
    run_side_by_side(lambda _: everyone.wait(20), range(2), 2)

both_at_once()
child = os.fork()
if child == 0:
    both_at_once()
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_forked_child_has_lanes_of_its_own(run_python: Callable[..., str]) -> None:
    assert run_python(FORK).strip() == "7"
