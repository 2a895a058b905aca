"""Two sessions of one graph: which of them runs a batch, and when the second is opened."""

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import toy_graph

from flashrank_lite import InvalidModel, Ranker, RankerClosed
from flashrank_lite.runtime import sessions as session
from flashrank_lite.runtime.graph import Graph
from flashrank_lite.models.packages import bundled_folder
from flashrank_lite.runtime.sessions import Sessions

onnx = pytest.importorskip("onnx")

IDS = np.array([[5, 7, 9], [1, 2, 0]], np.int64)
FEEDS = {"input_ids": IDS, "attention_mask": (IDS > 0).astype(np.int64)}
SUMS = [[0.021], [0.003]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    onnx.save(toy_graph(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads of each session, as they are opened."""
    found: list[int] = []
    start = Sessions._start

    def started(self: Sessions, threads: int) -> Any:
        found.append(threads)
        return start(self, threads)

    monkeypatch.setattr(Sessions, "_start", started)
    return found


def run(sessions: Sessions, *, wide: bool) -> None:
    np.testing.assert_allclose(sessions.run("logits", FEEDS, wide=wide), SUMS, rtol=1e-6)


def test_the_wide_session_is_opened_when_single_batches_come_again(
    file: Path, opened: list[int]
) -> None:
    sessions = Sessions(file, 3)
    assert (sessions.lanes, opened) == (3, [1])
    for wide in (False, False, True, False):
        run(sessions, wide=wide)
    assert opened == [1]
    for wide in (True, True, False):
        run(sessions, wide=wide)
    assert opened == [1, 3]


def test_one_thread_is_one_session(file: Path, opened: list[int]) -> None:
    sessions = Sessions(file, 1)
    for wide in (True, True, False, True):
        run(sessions, wide=wide)
    assert (sessions.lanes, opened) == (1, [1])


def test_a_large_graph_is_opened_once_on_all_threads(
    file: Path, opened: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LARGEST_TWICE", file.stat().st_size - 1)
    sessions = Sessions(file, 3)
    for wide in (True, True, False):
        run(sessions, wide=wide)
    assert (sessions.lanes, opened) == (1, [3])


@pytest.mark.parametrize("name", ["model.onnx", "model[1].onnx"])
@pytest.mark.parametrize("location", ["model.onnx.data", "weights.bin"])
def test_weights_beside_the_graph_count_under_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, location: str
) -> None:
    steps = [
        ("Gather", ["table", "input_ids"], ["logit"], {}),
        ("ReduceSum", ["logit", "last"], ["logits"], {"keepdims": 1}),
    ]
    table = {"table": np.ones(4096, np.float32)}
    graph = toy_graph(steps, inputs={"input_ids": "INT64"}, constants=table)
    onnx.save(graph, tmp_path / name, save_as_external_data=True, location=location)
    monkeypatch.setattr(session, "LARGEST_TWICE", 4096 * 4)  # the graph's own bytes come on top
    assert Sessions(tmp_path / name, 2).lanes == 1
    monkeypatch.setattr(session, "LARGEST_TWICE", 4096 * 8)
    assert Sessions(tmp_path / name, 2).lanes == 2


def test_other_files_beside_the_graph_do_not_count(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LARGEST_TWICE", 10_000)
    for name in ("model.onnx_of_before", "pytorch_model.bin", "other.onnx"):
        (file.parent / name).write_bytes(bytes(20_000))
    assert Sessions(file, 2).lanes == 2


def test_what_is_not_the_plain_cpu_has_one_session(file: Path, opened: list[int]) -> None:
    sessions = Sessions(file, 2, [("CPU", {})])  # as a GPU would be
    assert (sessions.lanes, opened) == (1, [2])


class Watched:
    """A session that counts how many of its kind run at the same time."""

    def __init__(self, real: Any, threads: int, log: "Log") -> None:
        self._real, self._threads, self._log = real, threads, log

    def run(self, *arguments: Any) -> Any:
        log = self._log
        with log.changing:
            log.running.append(self._threads)
            log.most = max(log.most, sum(1 for _ in log.running))
            log.wide = max(log.wide, log.running.count(4))
        time.sleep(0.01)
        try:
            return self._real.run(*arguments)
        finally:
            with log.changing:
                log.running.remove(self._threads)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class Log:
    def __init__(self) -> None:
        self.changing = threading.Lock()
        self.running: list[int] = []
        self.most = self.wide = 0


@pytest.mark.parametrize("wide", [False, True])
def test_what_runs_at_the_same_time_does_not_grow_with_the_callers(
    file: Path, monkeypatch: pytest.MonkeyPatch, wide: bool
) -> None:
    log, start = Log(), Sessions._start
    monkeypatch.setattr(
        Sessions, "_start", lambda self, threads: Watched(start(self, threads), threads, log)
    )
    sessions = Sessions(file, 4)
    run(sessions, wide=True)
    with ThreadPoolExecutor(24) as pool:
        list(pool.map(lambda _: run(sessions, wide=wide), range(96)))
    assert log.wide == int(wide)
    assert log.most == 4  # all of them, and no more


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_a_closed_one_says_so_whichever_session_is_asked_for(file: Path, asked: int) -> None:
    sessions = Sessions(file, 2)
    for _ in range(asked):
        run(sessions, wide=True)
    sessions.close()
    sessions.close()
    for wide in (False, True, True):
        with pytest.raises(RankerClosed, match="closed"):
            sessions.run("logits", FEEDS, wide=wide)


def test_a_session_that_is_being_opened_while_it_is_closed_does_not_stay(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = Sessions(file, 2)
    run(sessions, wide=True)
    start = Sessions._start

    def slow(self: Sessions, threads: int) -> Any:
        found = start(self, threads)
        self.close()  # by another thread, say
        return found

    monkeypatch.setattr(Sessions, "_start", slow)
    run(sessions, wide=True)  # was under way
    assert sessions._open == {}


def test_a_run_that_fails_gives_its_place_back(file: Path) -> None:
    graph = Graph(file, 2)
    wrong = {name: array[:, :, None] for name, array in FEEDS.items()}
    for wide in [True] * 4 + [False] * 4:
        with pytest.raises(InvalidModel, match=r"shape \(2, 3, 1\)"):
            graph.run(wrong, "logits", wide=wide)
    done: list[Any] = []
    for wide in (True, False):
        threads = [
            threading.Thread(target=lambda w=wide: done.append(graph.run(FEEDS, "logits", wide=w)))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert len(done) == 6


@pytest.mark.parametrize("change", ["replaced", "gone"])
def test_a_file_that_changed_is_not_opened_beside_the_one_before(
    toy_folder: Callable[..., Path], caplog: pytest.LogCaptureFixture, change: str
) -> None:
    folder = toy_folder(toy_graph(), {"max_position_embeddings": 512})
    long = ["lives " * 400]  # else one thread does
    with Ranker(folder, threads=2, activation="raw") as ranker:
        before = ranker.score("fleas", long)
        if change == "replaced":
            toy_folder(toy_graph(constants={"thousand": np.array(10, np.float32)}))
        else:
            shutil.rmtree(folder)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                np.testing.assert_array_equal(ranker.score("fleas", long), before)
    assert [record.message.split(": ")[0] for record in caplog.records] == [
        f"{folder / 'model.onnx'} is no longer the file that was opened"
    ]


FORK = """
import os, sys, threading
import numpy as np
from flashrank_lite import Ranker
from flashrank_lite.runtime.sessions import Sessions

long = "Fleas live for a hundred days. " * 60
passages = [long, "The wall is long.", "Butter melts."] + [long] * 3
ranker = Ranker(threads=2, batch_tokens=20)
query = "how long do fleas live"
expected = ranker.score(query, passages)
for _ in range(2):
    ranker.score(query, passages[:1])
sessions = ranker._model._graph._sessions
assert sorted(sessions._open) == [1, 2]

# as other threads of the parent may have them at that moment
held = [sessions._slots.acquire() for _ in range(2)] + [sessions._counting.acquire()]
child = os.fork()
if child == 0:
    for _ in range(2):
        for texts in (passages[:1], passages):
            got = ranker.score(query, texts)
            assert np.allclose(got, expected[: len(texts)], atol=1e-6), got
    assert sorted(sessions._open) == [1, 2]
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
sessions._slots.release(2)
sessions._counting.release()

# and while they really run
going = threading.Event()
def work():
    while not going.is_set():
        ranker.score(query, passages)
        ranker.score(query, passages[:1])
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for _ in range(5):
    child = os.fork()
    if child == 0:
        assert np.allclose(ranker.score(query, passages), expected, atol=1e-6)
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
going.set()
for thread in threads:
    thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_child_forked_while_everything_is_taken_opens_its_own(
    run_python: Callable[..., str],
) -> None:
    assert run_python(FORK).split() == ["7"] * 6


GONE = """
import os, shutil, sys
from flashrank_lite import InvalidModel, Ranker

ranker = Ranker(sys.argv[1], threads=2)
ranker.score("a", ["b"])
shutil.rmtree(sys.argv[1])
child = os.fork()
if child == 0:
    try:
        ranker.score("a", ["b"])
    except InvalidModel as error:
        print(error, flush=True)
        os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_child_whose_model_is_gone_says_so(
    run_python: Callable[..., str], tmp_path: Path
) -> None:
    shutil.copytree(bundled_folder(), tmp_path / "model")
    said, status = run_python(GONE, arguments=(str(tmp_path / "model"),)).splitlines()
    assert status == "7"
    assert "cannot load" in said
    assert "batch of shape" not in said
