"""One ranker for threads, processes and event loops."""

import asyncio
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import PASSAGES, QUERY

from flashrank_lite import Ranker


def test_many_threads_share_one_ranker(ranker: Ranker) -> None:
    lists = [PASSAGES[n:] + PASSAGES[:n] for n in range(8)]
    alone = [ranker.score(QUERY, passages) for passages in lists]
    start = threading.Barrier(8)

    def work(n: int) -> list[np.ndarray]:
        start.wait(30)
        return [ranker.score(QUERY, lists[n]) for _ in range(2)]

    with ThreadPoolExecutor(8) as pool:
        for n, results in enumerate(pool.map(work, range(8))):
            for result in results:
                np.testing.assert_array_equal(result, alone[n])


def test_a_ranker_can_be_pickled(ranker: Ranker) -> None:
    with Ranker(threads=1, max_length=40, activation="raw", batch_tokens=99) as made:
        again = pickle.loads(pickle.dumps(made))
        assert again.info() == made.info()
        np.testing.assert_array_equal(again.score(QUERY, PASSAGES), made.score(QUERY, PASSAGES))
        again.close()
        assert made.score(QUERY, PASSAGES[:1]).shape == (1,)


FORK = """
import os, sys
import numpy as np
from flashrank_lite import Ranker, RankerClosed

passages = ["Fleas live for a hundred days.", "The wall is long.", "Butter melts."]
ranker = Ranker(threads=2)
untouched = Ranker(threads=2)
expected = ranker.score("how long do fleas live", passages)
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        for _ in range(2):
            scores = ranker.score("how long do fleas live", passages)
            assert np.array_equal(scores, expected), scores
        grandchild = os.fork()
        if grandchild == 0:
            assert np.array_equal(ranker.score("how long do fleas live", passages), expected)
            sys.exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) == 0
        ranker.close()
        try:
            ranker.score("a", ["b"])
        except RankerClosed:
            del untouched
            sys.exit(7)  # through the interpreter's own end, where sessions are destroyed
        sys.exit(1)
    children.append(child)
statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
assert np.array_equal(ranker.score("how long do fleas live", passages), expected)
print(statuses)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_ranker_works_after_a_fork(run_python: Callable[..., str]) -> None:
    assert run_python(FORK).splitlines()[-1] == "[7, 7]"


SPAWN = """
import multiprocessing
from functools import partial
from flashrank_lite import Ranker

PASSAGES = ["Fleas live for a hundred days.", "The wall is long."]

def work(ranker, query):
    return ranker.score(query, PASSAGES).tolist()

if __name__ == "__main__":
    with Ranker(threads=1) as ranker:
        queries = ["how long do fleas live", "walls"]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            there = pool.map(partial(work, ranker), queries)
        assert there == [work(ranker, query) for query in queries], there
    print("same")
"""


def test_a_ranker_can_be_sent_to_a_spawned_process(run_python: Callable[..., str]) -> None:
    assert run_python(SPAWN).strip() == "same"


def test_the_async_twins_give_the_same_and_leave_the_event_loop_free(ranker: Ranker) -> None:
    async def scenario() -> None:
        turned = threading.Event()

        def slow() -> Iterator[str]:
            assert turned.wait(20), "the event loop did not turn while a list was being ranked"
            yield from PASSAGES

        ranking = asyncio.create_task(ranker.arank(QUERY, slow(), top_k=3))
        await asyncio.sleep(0.01)
        turned.set()
        assert await ranking == ranker.rank(QUERY, PASSAGES, top_k=3)
        np.testing.assert_array_equal(
            await ranker.ascore(QUERY, PASSAGES), ranker.score(QUERY, PASSAGES)
        )
        pairs = [(QUERY, passage) for passage in PASSAGES]
        np.testing.assert_array_equal(
            await ranker.ascore_pairs(pairs), ranker.score(QUERY, PASSAGES)
        )
        assert await ranker.arank_many([QUERY], [PASSAGES], 2) == [ranker.rank(QUERY, PASSAGES, 2)]

    asyncio.run(scenario())
