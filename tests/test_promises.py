"""What the library promises its users, each promise a test, with the bundled model."""

import asyncio
import copy
import json
import os
import pickle
import random
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import PASSAGES, QUERY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashrank_lite import Ranker

RunPython = Callable[..., str]
BOUND = 1e-4  # on scores, for what the order of floating point additions may change
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a Linux interface")
SOME = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


# 1. Pure


def test_inputs_never_change(ranker: Ranker) -> None:
    passages = [
        {"text": text, "id": n, "meta": {"tags": ["a"]}, "score": 0.1, "nested": {"deep": [n]}}
        for n, text in enumerate(PASSAGES)
    ]
    before = copy.deepcopy(passages)
    hits = ranker.rank(QUERY, passages)
    ranker.score(QUERY, passages)
    hits[0].meta["new"] = 1
    assert passages == before


def test_the_same_list_gives_the_same_scores_on_every_call(ranker: Ranker) -> None:
    first = ranker.score(QUERY, PASSAGES)
    for _ in range(3):
        ranker.score("something else in between", PASSAGES[::-1])
        np.testing.assert_array_equal(ranker.score(QUERY, PASSAGES), first)
    with Ranker() as another:
        np.testing.assert_array_equal(another.score(QUERY, PASSAGES), first)


# 2. A score does not depend on its neighbours


@pytest.fixture(scope="module")
def alone(ranker: Ranker) -> dict[str, float]:
    """The score of each passage ranked by itself."""
    texts = [*PASSAGES, "", " ".join(PASSAGES), "flea " * 300]
    return {text: float(ranker.score(QUERY, [text])[0]) for text in texts}


@SOME
@given(data=st.data())
def test_a_score_does_not_depend_on_the_list(
    ranker: Ranker, alone: dict[str, float], data: st.DataObject
) -> None:
    texts = data.draw(st.lists(st.sampled_from(sorted(alone)), min_size=1, max_size=12))
    np.testing.assert_allclose(
        ranker.score(QUERY, texts), [alone[text] for text in texts], atol=BOUND
    )


@pytest.mark.parametrize("batch_tokens", [1, 64, 333, 2048, 16384])
def test_a_score_does_not_depend_on_the_batch(alone: dict[str, float], batch_tokens: int) -> None:
    texts = random.Random(batch_tokens).sample(sorted(alone), len(alone))
    with Ranker(batch_tokens=batch_tokens) as ranker:
        np.testing.assert_allclose(
            ranker.score(QUERY, texts), [alone[text] for text in texts], atol=BOUND
        )


def test_a_score_does_not_depend_on_other_queries(ranker: Ranker, alone: dict[str, float]) -> None:
    queries = ["a much longer question about walls in the north of China", QUERY, "x"]
    hits = ranker.rank_many(queries, [PASSAGES[::-1], PASSAGES, PASSAGES[:4]])[1]
    for hit in hits:
        assert hit.score == pytest.approx(alone[hit.text], abs=BOUND)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_score_does_not_depend_on_the_number_of_threads(
    alone: dict[str, float], threads: int
) -> None:
    with Ranker(threads=threads, batch_tokens=100 * threads) as ranker:
        np.testing.assert_allclose(ranker.score(QUERY, [*alone]), [*alone.values()], atol=BOUND)


# 3. Bounded memory

MEMORY = """
import sys
from flashrank_lite import Ranker

def kilobytes(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))

passages = [f"passage {n} " + "fleas live for a hundred days " * WORDS for n in range(COUNT)]
with Ranker(max_length=64) as ranker:
    ranker.score("how long do fleas live", passages[:20])
    before = kilobytes("VmRSS:")
    assert len(ranker.score("how long do fleas live", passages)) == COUNT
    print((kilobytes("VmHWM:") - before) / 1024)
"""


@linux
@pytest.mark.parametrize(("count", "words"), [(600, 100), (12, 35_000)])
def test_memory_does_not_grow_with_the_number_or_length_of_passages(
    run_python: RunPython, count: int, words: int
) -> None:
    # 600 passages in one batch would take 200 MB in the first feed-forward layer alone, and a
    # megabyte's tokens 30 MB each; loading itself peaks some tens of MB above the working set
    grown = run_python(MEMORY.replace("COUNT", str(count)).replace("WORDS", str(words)))
    assert float(grown) < 128


CALLS = """
import random
from flashrank_lite import Ranker

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096 / 2**20

words = "an adult flea lives for about a hundred days when it has a host to feed on".split()
lengths = random.Random(0)
after = {}
with Ranker(max_length=64, threads=1) as ranker:
    for call in range(1, 1001):
        passages = [" ".join(lengths.choices(words, k=lengths.randint(1, 60)))
                    for _ in range(lengths.choice((1, 1, 1, 4)))]
        ranker.rank(" ".join(lengths.choices(words, k=lengths.randint(1, 9))), passages)
        if call in (100, 1000):
            after[call] = resident()
print(after[1000] - after[100])
"""


@linux
def test_a_thousand_calls_of_varying_lengths_keep_no_memory(run_python: RunPython) -> None:
    # what one call could keep of its arrays at worst, 900 times over, would be hundreds of MB
    assert float(run_python(CALLS)) < 8


# 4. JSON-clean


def test_hits_are_json_whatever_the_metadata(ranker: Ranker) -> None:
    passages = [
        {"text": PASSAGES[0], "id": np.int64(4), "meta": {"when": np.datetime64("2024-01-01")}},
        {
            "text": "odd \ud800 \x00",
            "vector": np.ones(3, np.float32),
            "set": {1},
            "x": float("nan"),
        },
    ]
    hits = ranker.rank(QUERY, passages)
    written = json.dumps([hit.to_dict() for hit in hits], allow_nan=False, ensure_ascii=False)
    read = json.loads(written.encode("utf-8"))
    assert [entry["score"] for entry in read] == [hit.score for hit in hits]
    by_index = {entry["index"]: entry for entry in read}
    assert by_index[0]["id"] == 4
    assert by_index[1]["meta"] == {"vector": [1.0, 1.0, 1.0], "set": [1], "x": None}


# 5. Nothing silent


def test_truncation_is_reported_per_hit(ranker: Ranker) -> None:
    hits = ranker.rank(QUERY, ["short", "flea " * 5000, "short too"])
    assert {hit.index: hit.truncated for hit in hits} == {0: False, 1: True, 2: False}
    assert all(hit.truncated for hit in ranker.rank("flea " * 5000, ["short", "other"]))


ODD_TEXTS = {
    "empty": "",
    "blank": " \n\t ",
    "surrogate": "flea \ud83d jump \udfff",
    "nul": "flea\x00flea",
    "emoji": "👩‍👩‍👧 🇩🇪 \U0001f3fd",
    "right to left": "كم يعيش البرغوث؟ כמה זמן חי פרעוש",
    "marks": "e" + "\u0301" * 500,
    "megabyte of words": "flea " * 200_000,
    "megabyte of nothing": " " * 1_000_000,
    "megabyte in one word": "x" * 1_000_000,
    "special tokens": "[CLS] [SEP] [PAD] [MASK]",
}


@pytest.mark.parametrize("odd", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
def test_any_text_is_scored(ranker: Ranker, odd: str) -> None:
    for query, passage in ((QUERY, odd), (odd, PASSAGES[0]), (odd, odd)):
        hit, *rest = ranker.rank(query, [passage])
        assert rest == []
        assert 0 <= hit.score <= 1
        assert hit.text == passage


# 6. Honest cores

CORES = """
import os, sys
{first}
from flashrank_lite import Ranker
with Ranker() as ranker:
    ranker.score("a", ["b"])
    info = ranker.info()
    print(info["threads"], info["threads_source"], len(os.listdir("/proc/self/task")))
"""


@linux
def test_threads_follow_the_affinity_of_the_process(run_python: RunPython) -> None:
    one = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    count, source = run_python(CORES.format(first=one)).split()[:2]
    assert (count, source) == ("1", "affinity")


@linux
def test_onnxruntime_starts_as_many_threads_as_asked_for(run_python: RunPython) -> None:
    counts = {}
    for threads in ("1", "5"):
        said, source, running = run_python(
            CORES.format(first=""), FLASHRANK_LITE_THREADS=threads, OPENBLAS_NUM_THREADS="1"
        ).split()
        assert (said, source) == (threads, "environment")
        counts[threads] = int(running)
    assert counts["5"] - counts["1"] == 4


# What it needs, and what it leaves alone

BLOCKED = """
import sys
HEAVY = ("torch", "transformers", "huggingface_hub", "sentence_transformers", "onnx")

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
from flashrank_lite import Ranker
print(Ranker().rank("how long do fleas live", ["a", "b"])[0].score)
assert not any(name.partition(".")[0] in HEAVY for name in sys.modules)
"""


def test_it_ranks_without_torch_transformers_and_the_hub(run_python: RunPython) -> None:
    assert 0 <= float(run_python(BLOCKED)) <= 1


def test_importing_the_package_imports_nothing_heavy(run_python: RunPython) -> None:
    code = "import flashrank_lite, sys; print(*sys.modules); flashrank_lite.InvalidInput"
    loaded = {name.partition(".")[0] for name in run_python(code).split()}
    assert "flashrank_lite" in loaded
    assert loaded.isdisjoint({"numpy", "onnxruntime", "tokenizers", "asyncio", "typing"})


AUDIT = """
import os, sys
touched = []

def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        if flags & writes and path != os.devnull:
            touched.append((event, path))
    elif event.startswith("socket.") or event in (
        "os.mkdir", "os.remove", "os.rename", "os.truncate", "os.chmod", "shutil.rmtree",
        "tempfile.mkstemp", "tempfile.mkdtemp", "subprocess.Popen", "os.system", "urllib.Request",
    ):
        touched.append((event, arguments))

sys.addaudithook(watch)
from flashrank_lite import Ranker
with Ranker() as ranker:
    ranker.rank("how long do fleas live", ["a", "b"])
print(touched, os.listdir("."))
"""


def test_it_writes_nothing_and_calls_no_one(run_python: RunPython) -> None:
    assert run_python(AUDIT).strip() == "[] []"


# Threads, processes, event loops


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
def test_a_ranker_works_after_a_fork(run_python: RunPython) -> None:
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


def test_a_ranker_can_be_sent_to_a_spawned_process(run_python: RunPython) -> None:
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
