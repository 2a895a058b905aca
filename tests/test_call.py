"""Calls that are cancelled, watched, or cut off: they stop within a batch, and lose nothing."""

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from conftest import PASSAGES, QUERY

from flashrank_lite import CallCancelled, Ranker, RankerClosed
from flashrank_lite.call import Call, running

MANY = [f"{number} {passage}" for number in range(100) for passage in PASSAGES]
WAIT = 60.0  # seconds, for what should come soon


class Stopwatch:
    """Counts the pairs that were scored, and says when the first batch is done."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.done = self.total = 0

    def __call__(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        self.begun.set()


def test_progress_reaches_the_number_of_pairs_and_never_falls(ranker: Ranker) -> None:
    seen: list[tuple[int, int]] = []
    with running(Call(lambda done, total: seen.append((done, total)))):
        ranker.rank(QUERY, MANY[:40])
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (40, 40)
    assert len(seen) > 3


def test_a_cancelled_call_stops_before_its_next_batch() -> None:
    watch = Stopwatch()
    call = Call(watch)
    with Ranker(threads=2) as ranker:

        def work() -> None:
            with running(call), pytest.raises(CallCancelled):
                ranker.rank(QUERY, MANY)

        thread = threading.Thread(target=work)
        thread.start()
        assert watch.begun.wait(WAIT)
        call.cancel()
        at_most = watch.done + 2 * 10  # a batch on each thread; these hold ten rows at the most
        thread.join(WAIT)
        assert not thread.is_alive()
        assert watch.done <= at_most < len(MANY)
        assert ranker.rank(QUERY, PASSAGES)  # and the ranker goes on


@pytest.mark.parametrize("end", ["cancel", "timeout"])
def test_a_cancelled_task_does_not_compute_on(end: str) -> None:
    watch = Stopwatch()

    async def main(ranker: Ranker) -> None:
        with running(Call(watch)):  # the task's own call reports to this one
            task = asyncio.create_task(ranker.arank(QUERY, MANY))
        await asyncio.to_thread(watch.begun.wait, WAIT)
        if end == "cancel":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(task, 0.01)

    with Ranker(threads=2) as ranker:
        asyncio.run(main(ranker))  # waits for the thread, which has to stop
        stopped = watch.done
        assert stopped < len(MANY) / 2
        time.sleep(0.3)
        assert watch.done == stopped


def test_closing_lets_calls_in_flight_finish_and_refuses_later_ones(ranker: Ranker) -> None:
    expected = ranker.score(QUERY, MANY[:60])
    watch = Stopwatch()
    closing = Ranker()
    found: list[Any] = []

    def work() -> None:
        with running(Call(watch)):
            found.append(closing.score(QUERY, MANY[:60]))

    thread = threading.Thread(target=work)
    thread.start()
    assert watch.begun.wait(WAIT)
    closing.close()
    with pytest.raises(RankerClosed):
        closing.score(QUERY, PASSAGES)
    thread.join(WAIT)
    assert found[0].tolist() == expected.tolist()


INTERRUPTED = """
import os, signal, sys, threading, time
from flashrank_lite import Ranker
from flashrank_lite.call import Call, running

passages = [f"{n} fleas live for a hundred days on a dog" for n in range(20000)]
done = 0

def progress(so_far, total):
    global done
    if not done:
        os.kill(os.getpid(), signal.SIGINT)
    done = so_far

signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with Ranker(threads=int(sys.argv[1])) as ranker, running(Call(progress)):
        ranker.rank("how long do fleas live", passages)
except KeyboardInterrupt:
    print("interrupted", done < 1000)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("threads", ["1", "2"])
def test_an_interrupt_stops_a_call_within_a_batch(
    run_python: Callable[..., str], threads: str
) -> None:
    assert signal.SIGINT  # the platform has it
    assert run_python(INTERRUPTED, arguments=(threads,)).split() == ["interrupted", "True"]


AT_EXIT = """
import sys, threading
from flashrank_lite import Ranker
from flashrank_lite.call import Call, running

begun = threading.Event()

def work():
    ranker = Ranker(threads=int(sys.argv[1]))
    with running(Call(lambda done, total: begun.set())):
        while True:
            ranker.rank("how long do fleas live", ["Fleas live for a hundred days. " * 30] * 64)

for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
assert begun.wait(60)
print("main is done", flush=True)
"""


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("_again", range(3))
def test_a_daemon_thread_that_ranks_does_not_abort_the_end_of_the_interpreter(
    run_python: Callable[..., str], threads: str, _again: int
) -> None:
    # run_python wants exit status 0: it was 134
    assert run_python(AT_EXIT, arguments=(threads,)) == "main is done\n"


FINISHES = """
import threading
from flashrank_lite import Ranker

ranker = Ranker()

def work():
    hits = ranker.rank("how long do fleas live", ["Fleas live a hundred days."] * 3 + ["no"] * 300)
    print(len(hits), flush=True)

threading.Thread(target=work).start()  # no daemon: the interpreter waits for it
"""


def test_a_thread_that_is_no_daemon_finishes_its_ranking(run_python: Callable[..., str]) -> None:
    assert run_python(FINISHES) == "303\n"
