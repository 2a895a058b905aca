"""The sessions of a graph: what they take, which of them runs a batch, when they are closed."""

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
import onnxruntime
import pytest
from conftest import toy_graph
from toy_models import saved, summing

from flashrank_lite import InvalidInput, InvalidModel, ProviderUnavailable, Ranker, RankerClosed
from flashrank_lite.models.packages import bundled_folder
from flashrank_lite.runtime import sessions as module
from flashrank_lite.runtime.sessions import Sessions

onnx = pytest.importorskip("onnx")

IDS = np.array([[5, 7, 9], [1, 2, 0]], np.int64)
FEEDS = {
    "input_ids": IDS,
    "attention_mask": (IDS > 0).astype(np.int64),
    "token_type_ids": np.array([[0, 1, 1], [0, 1, 0]], np.int64),
}
SUMS = [[0.021], [0.003]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    onnx.save(toy_graph(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads of each session of onnxruntime, as they are opened."""
    found: list[int] = []

    def counted(session: Any, threads: int) -> Any:
        found.append(threads)
        return session

    watch(monkeypatch, counted)
    return found


def watch(monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Any, int], Any]) -> None:
    """Give every session that onnxruntime opens to `wrap`, with its threads."""
    real = onnxruntime.InferenceSession

    def opening(file: str, options: Any, **more: Any) -> Any:
        return wrap(real(file, options, **more), options.intra_op_num_threads)

    monkeypatch.setattr(onnxruntime, "InferenceSession", opening)


def run(sessions: Sessions, *, all_threads: bool) -> None:
    found = sessions.run(FEEDS, "logits", all_threads=all_threads)
    np.testing.assert_allclose(found, SUMS, rtol=1e-6)


def test_the_session_on_all_threads_is_opened_when_single_batches_come_again(
    file: Path, opened: list[int]
) -> None:
    sessions = Sessions(file, 3)
    assert (sessions.workers, opened) == (3, [1])
    for wide in (False, False, True, False):
        run(sessions, all_threads=wide)
    assert opened == [1]
    for wide in (True, True, False):
        run(sessions, all_threads=wide)
    assert opened == [1, 3]


def test_one_thread_is_one_session(file: Path, opened: list[int]) -> None:
    sessions = Sessions(file, 1)
    for wide in (True, True, False, True):
        run(sessions, all_threads=wide)
    assert (sessions.workers, opened) == (1, [1])


def test_a_large_graph_is_opened_once_on_all_threads(
    file: Path, opened: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST_TWICE", file.stat().st_size - 1)
    sessions = Sessions(file, 3)
    for wide in (True, True, False):
        run(sessions, all_threads=wide)
    assert (sessions.workers, opened) == (1, [3])


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
    monkeypatch.setattr(module, "LARGEST_TWICE", 4096 * 4)  # the graph's own bytes come on top
    assert Sessions(tmp_path / name, 2).workers == 1
    monkeypatch.setattr(module, "LARGEST_TWICE", 4096 * 8)
    assert Sessions(tmp_path / name, 2).workers == 2


def test_other_files_beside_the_graph_do_not_count(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST_TWICE", 10_000)
    for name in ("model.onnx_of_before", "pytorch_model.bin", "other.onnx"):
        (file.parent / name).write_bytes(bytes(20_000))
    assert Sessions(file, 2).workers == 2


def test_what_is_not_the_plain_cpu_has_one_session(file: Path, opened: list[int]) -> None:
    sessions = Sessions(file, 2, [("CPU", {})])  # as a GPU would be
    assert (sessions.workers, opened) == (1, [2])


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
    log = Log()
    watch(monkeypatch, lambda session, threads: Watched(session, threads, log))
    sessions = Sessions(file, 4)
    run(sessions, all_threads=True)
    with ThreadPoolExecutor(24) as pool:
        list(pool.map(lambda _: run(sessions, all_threads=wide), range(96)))
    assert log.wide == int(wide)
    assert log.most == 4  # all of them, and no more


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_a_closed_one_says_so_whichever_session_is_asked_for(file: Path, asked: int) -> None:
    sessions = Sessions(file, 2)
    for _ in range(asked):
        run(sessions, all_threads=True)
    sessions.close()
    sessions.close()
    for wide in (False, True, True):
        with pytest.raises(RankerClosed, match="closed"):
            sessions.run(FEEDS, "logits", all_threads=wide)


def test_a_call_in_flight_finishes_when_the_sessions_are_closed_and_frees_them(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[Any] = []

    class Freed:
        def __init__(self, real: Any) -> None:
            self._real = real
            alive.append(self)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def __del__(self) -> None:
            freed.append(1)

    freed: list[int] = []
    watch(monkeypatch, lambda session, threads: Freed(session))
    sessions = Sessions(file, 2)
    alive.clear()
    with sessions.in_use():
        sessions.close()
        for wide in (False, True, True):  # the last one opens a session
            run(sessions, all_threads=wide)
        alive.clear()
        assert freed == []
    assert freed == [1, 1]
    with pytest.raises(RankerClosed, match="closed"), sessions.in_use():
        pass


def test_a_run_that_fails_gives_its_place_back(file: Path) -> None:
    sessions = Sessions(file, 2)
    wrong = {name: array[:, :, None] for name, array in FEEDS.items()}
    for wide in [True] * 4 + [False] * 4:
        with pytest.raises(InvalidModel, match=r"shape \(2, 3, 1\)"):
            sessions.run(wrong, "logits", all_threads=wide)
    done: list[Any] = []
    for wide in (True, False):
        threads = [
            threading.Thread(target=lambda w=wide: done.append(run(sessions, all_threads=w)))
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

long = "Fleas live for a hundred days. " * 60
passages = [long, "The wall is long.", "Butter melts."] + [long] * 3
ranker = Ranker(threads=2, batch_tokens=20)
query = "how long do fleas live"
expected = ranker.score(query, passages)
for _ in range(2):
    ranker.score(query, passages[:1])
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
        for texts in (passages[:1], passages, passages[:1]):
            got = ranker.score(query, texts)
            assert np.allclose(got, expected[: len(texts)], atol=1e-6), got
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
going.set()
for thread in threads:
    thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_child_forked_while_threads_of_the_parent_rank_opens_sessions_of_its_own(
    run_python: Callable[..., str],
) -> None:
    assert run_python(FORK).split() == ["7"] * 5


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


@pytest.mark.parametrize("kind", ["INT64", "INT32"])
@pytest.mark.parametrize(
    ("names", "sums"),
    [
        (["input_ids"], [21, 3]),
        (["input_ids", "attention_mask"], [24, 5]),
        (["input_ids", "attention_mask", "token_type_ids"], [26, 6]),
    ],
)
def test_the_inputs_that_are_declared_are_fed_in_the_declared_type(
    tmp_path: Path, names: list[str], sums: list[int], kind: str
) -> None:
    sessions = Sessions(saved(summing(dict.fromkeys(names, kind)), tmp_path), 1)
    assert sessions.run(FEEDS, "logits").ravel().tolist() == sums
    assert list(sessions.inputs) == names


def test_a_truncated_graph_is_refused_with_advice(tmp_path: Path) -> None:
    bundled = next(bundled_folder().glob("*.onnx"))
    (tmp_path / "model.onnx").write_bytes(bundled.read_bytes()[:10_000])
    with pytest.raises(InvalidModel, match=r"damaged or incomplete.*export it again"):
        Sessions(tmp_path / "model.onnx", 1)


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x08" * 300])
def test_a_file_that_is_no_graph_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(InvalidModel, match=r"model\.onnx"):
        Sessions(tmp_path / "model.onnx", 1)


@pytest.mark.parametrize("damage", ["gone", "short"])
def test_missing_external_data_is_said(tmp_path: Path, damage: str) -> None:
    steps = [
        ("Gather", ["table", "input_ids"], ["logit"], {}),
        ("ReduceSum", ["logit", "last"], ["logits"], {"keepdims": 1}),
    ]
    graph = toy_graph(
        steps, inputs={"input_ids": "INT64"}, constants={"table": np.ones(4096, np.float32)}
    )
    file = saved(graph, tmp_path, save_as_external_data=True, location="weights.bin")
    assert Sessions(file, 1).inputs
    if damage == "gone":
        (tmp_path / "weights.bin").unlink()
    else:
        (tmp_path / "weights.bin").write_bytes(b"short")
    with pytest.raises(InvalidModel, match=r"weights in another file.*beside the graph"):
        Sessions(file, 1)


def test_a_graph_with_fixed_axes_says_what_it_needs(tmp_path: Path) -> None:
    graph = toy_graph()
    for entry in graph.graph.input:
        entry.type.tensor_type.shape.dim[1].dim_value = 16
    with pytest.raises(InvalidModel, match=r"shape \(2, 3\).*dynamic axes"):
        Sessions(saved(graph, tmp_path), 1).run(FEEDS, "logits")


def test_providers_go_by_their_full_or_short_name(tmp_path: Path) -> None:
    file = saved(toy_graph(), tmp_path)
    for wish in (["CPUExecutionProvider"], ["CPU"], ["cpu"], [("cpu", {})], None):
        assert Sessions(file, 1, wish).providers == ["CPUExecutionProvider"]


def test_a_provider_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ProviderUnavailable, match=r"no provider 'Quantum'.*CPUExecutionProvider"):
        Sessions(saved(toy_graph(), tmp_path), 1, ["Quantum"])


@pytest.mark.parametrize("wish", ["CPU", []])
def test_providers_that_are_no_list_are_refused(tmp_path: Path, wish: Any) -> None:
    with pytest.raises(InvalidInput, match="list of names"):
        Sessions(saved(toy_graph(), tmp_path), 1, wish)


def test_a_closed_graph_says_so(tmp_path: Path) -> None:
    sessions = Sessions(saved(toy_graph(), tmp_path), 1)
    sessions.close()
    sessions.close()
    with pytest.raises(RankerClosed, match="closed"):
        sessions.run(FEEDS, "logits")


def test_loading_and_failing_print_and_log_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        Sessions(saved(toy_graph(), tmp_path), 1).run(FEEDS, "logits")
        (tmp_path / "model.onnx").write_bytes(b"not a graph")
        with pytest.raises(InvalidModel):
            Sessions(tmp_path / "model.onnx", 1)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
