"""What the library promises its users, each promise a test, with the bundled model."""

import copy
import json
import random
import sys
from collections.abc import Callable

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
    for long, text in (("truncate", "flea " * 5000), ("windows", "flea " * 50_000)):
        hits = ranker.rank(QUERY, ["short", text, "short too"], long=long)
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
    info = ranker.info()
    counts = []
    long = "b " * 400
    for passages in ([], [long], [long]):
        ranker.score("a", passages)
        counts.append(len(os.listdir("/proc/self/task")))
    print(info["threads"], info["threads_source"], *counts)
"""


@linux
def test_threads_follow_the_affinity_of_the_process(run_python: RunPython) -> None:
    one = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    count, source = run_python(CORES.format(first=one)).split()[:2]
    assert (count, source) == ("1", "affinity")


LARGE = "from flashrank_lite.runtime import sessions; sessions.LARGEST_TWICE = 0"


@linux
@pytest.mark.parametrize(
    ("first", "extra"),
    [("", [0, 0, 4]), (LARGE, [4, 4, 4])],  # a large graph has no session of one thread
    ids=["small graph", "large graph"],
)
def test_onnxruntime_starts_as_many_threads_as_asked_for_when_long_passages_come_again(
    run_python: RunPython, first: str, extra: list[int]
) -> None:
    counts = {}
    for threads in ("1", "5"):
        said, source, *running = run_python(
            CORES.format(first=first), FLASHRANK_LITE_THREADS=threads, OPENBLAS_NUM_THREADS="1"
        ).split()
        assert (said, source) == (threads, "FLASHRANK_LITE_THREADS")
        counts[threads] = [int(count) for count in running]
    assert [five - one for one, five in zip(counts["1"], counts["5"], strict=True)] == extra
