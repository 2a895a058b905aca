"""Models as they are opened: folders, graphs and heads of other kinds than the bundled one."""

import pickle
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from conftest import PASSAGES, QUERY, toy_graph, toy_tokenizer
from toy_models import summing

from flashrank_lite import InvalidModel, NonFiniteScores, Ranker
from flashrank_lite.encoding.collate import SEPARATE_INPUTS

onnx = pytest.importorskip("onnx")

MIXED = [
    *PASSAGES,
    "",
    " ".join(PASSAGES),
    "flea " * 300,
    *(f"{n} {p}" for n, p in enumerate(PASSAGES)),
]


def test_a_folder_with_hugging_face_files_alone_ranks(toy_folder: Callable[..., Path]) -> None:
    folder = toy_folder(toy_graph(), {"num_labels": 1}, graph_name="onnx/model.onnx")
    with Ranker(str(folder), activation="raw") as ranker:
        assert ranker.info()["graph"] == "onnx/model.onnx"
        assert ranker.info()["max_length"] == 64
        words = ["lives", "An", "years."]
        logits = ranker.score("fleas", words)
        assert np.argsort(logits).tolist() == [1, 0, 2]  # ids follow the alphabet


def test_a_manifest_decides_over_the_config(toy_folder: Callable[..., Path]) -> None:
    manifest = {
        "format": 1,
        "name": "toy",
        "head": {"type": "logit"},
        "activation": "raw",
        "max_length": 20,
        "variants": [{"file": "model.onnx", "batch_invariant": False}],
        "files": {},
    }
    with Ranker(toy_folder(toy_graph(), manifest=manifest)) as ranker:
        info = ranker.info()
    assert (info["model"], info["max_length"], info["activation"]) == ("toy", 20, "raw")
    assert info["batch_invariant"] is False
    assert info["one_at_a_time"] is True


@pytest.mark.parametrize("divisor", [0.0, np.nan])
def test_infinite_and_nan_logits_raise_and_are_not_sorted(
    toy_folder: Callable[..., Path], divisor: float
) -> None:
    folder = toy_folder(toy_graph(constants={"thousand": np.array(divisor, np.float32)}))
    with Ranker(folder) as ranker, pytest.raises(NonFiniteScores, match="NaN or infinite"):
        ranker.rank(QUERY, PASSAGES)


def test_a_float16_graph_ranks(toy_folder: Callable[..., Path]) -> None:
    steps = [
        ("Mul", ["input_ids", "attention_mask"], ["shown"], {}),
        ("Cast", ["shown"], ["floats"], {"to": 1}),
        ("ReduceSum", ["floats", "last"], ["sum"], {"keepdims": 0}),
        ("Div", ["sum", "thousand"], ["wide"], {}),
        ("Cast", ["wide"], ["logits"], {"to": 10}),
    ]
    graph = toy_graph(steps, output_shape=("batch",), output_type="FLOAT16")
    with Ranker(toy_folder(graph), activation="raw") as ranker:
        scores = ranker.score("fleas", ["lives", "An", "years."])
    assert scores.dtype == np.float32
    assert np.argsort(scores).tolist() == [1, 0, 2]


def test_a_graph_whose_output_is_no_float_is_refused_as_it_is_opened(
    toy_folder: Callable[..., Path],
) -> None:
    steps = [("ReduceSum", ["input_ids", "last"], ["logits"], {"keepdims": 1})]
    graph = toy_graph(steps, inputs={"input_ids": "INT64"}, output_type="INT64")
    with pytest.raises(InvalidModel, match=r"as floats.*logits \(\?, 1\) of tensor\(int64\)"):
        Ranker(toy_folder(graph))


def test_the_graph_that_was_asked_for_is_the_one_that_is_unpickled(
    toy_folder: Callable[..., Path],
) -> None:
    folder = toy_folder(toy_graph(constants={"thousand": np.array(10, np.float32)}))
    shutil.copy(folder / "model.onnx", folder / "b.onnx")
    toy_folder(toy_graph())
    with Ranker(folder) as other, Ranker(folder, file="b.onnx") as made:
        again = pickle.loads(pickle.dumps(made))
        twice = pickle.loads(pickle.dumps(again))
        expected = made.score(QUERY, PASSAGES).tolist()
        assert other.score(QUERY, PASSAGES).tolist() != expected
        for copied in (again, twice):
            with copied:
                assert copied.info() == made.info()
                assert copied.score(QUERY, PASSAGES).tolist() == expected


def test_the_graph_that_was_chosen_is_the_one_that_is_unpickled_whatever_came_since(
    toy_folder: Callable[..., Path],
) -> None:
    folder = toy_folder(toy_graph())
    with Ranker(folder) as made:
        sent, info = pickle.dumps(made), made.info()
    # it would be preferred by now, as another graph would be by another processor
    shutil.copy(folder / "model.onnx", folder / "model_int8.onnx")
    assert Ranker(folder).info()["graph"] == "model_int8.onnx"
    with pickle.loads(sent) as again:
        assert again.info() == info


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | None]:
    """The bundled model, int8, and a toy in fp32."""
    folder = tmp_path_factory.mktemp("toy")
    table = np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32)
    column = np.random.default_rng(1).normal(size=(64, 1)).astype(np.float32)
    steps: list[Any] = [
        ("Gather", ["table", "input_ids"], ["states"], {}),
        ("MatMul", ["states", "square"], ["mixed"], {}),
        ("Cast", ["attention_mask"], ["mask"], {"to": onnx.TensorProto.FLOAT}),
        ("Unsqueeze", ["mask", "end"], ["shown"], {}),
        ("Mul", ["mixed", "shown"], ["left"], {}),
        ("ReduceSum", ["left", "last"], ["pooled"], {"keepdims": 0}),
        ("Tanh", ["pooled"], ["bent"], {}),
        ("MatMul", ["bent", "column"], ["logits"], {}),
    ]
    square = np.random.default_rng(2).normal(size=(64, 64)).astype(np.float32) / 64
    constants = {"table": table, "square": square, "column": column, "end": np.array([-1])}
    onnx.save(toy_graph(steps, constants=constants), folder / "model.onnx")
    toy_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text('{"model_type": "bert", "max_position_embeddings": 400}')
    return {"bundled": None, "toy": folder}


@pytest.mark.parametrize("model", ["bundled", "toy"])
@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_scores_are_the_same_on_any_number_of_threads_and_in_any_batches(
    folders: dict[str, Path | None], model: str, threads: int
) -> None:
    with Ranker(folders[model], threads=1, batch_tokens=1, activation="sigmoid") as ranker:
        expected = ranker.score(QUERY, MIXED)
    assert np.ptp(expected) > 0.01
    for batch_tokens in (1, 40, 100, 512, 5000):
        with Ranker(
            folders[model], threads=threads, batch_tokens=batch_tokens, activation="sigmoid"
        ) as ranker:
            for _ in range(2):  # side by side
                np.testing.assert_allclose(ranker.score(QUERY, MIXED), expected, atol=1e-6)
            for number in (0, 0, 13, 14):  # on one thread, then on all
                alone = ranker.score(QUERY, [MIXED[number]])
                np.testing.assert_allclose(alone, expected[[number]], atol=1e-6)
            uneven = ranker.score(QUERY, MIXED[13:16])  # fewer than there may be workers
            np.testing.assert_allclose(uneven, expected[13:16], atol=1e-6)


def test_eight_callers_at_once_get_the_scores_of_one(folders: dict[str, Path | None]) -> None:
    with Ranker(threads=3) as ranker:
        lists = [
            MIXED[n:] if n % 2 else MIXED[n : n + 1] for n in range(8)
        ]  # side by side, and alone
        expected = [ranker.score(QUERY, texts) for texts in lists]
        start = threading.Barrier(8)

        def work(n: int) -> list[Any]:
            start.wait(30)
            return [ranker.score(QUERY, lists[n]) for _ in range(4)]

        with ThreadPoolExecutor(8) as pool:
            for n, found in enumerate(pool.map(work, range(8))):
                for scores in found:
                    np.testing.assert_allclose(scores, expected[n], atol=1e-6)


def test_info_says_how_many_batches_run_at_once() -> None:
    for threads in (1, 3):
        with Ranker(threads=threads) as ranker:
            before = ranker.info()
            for texts in (MIXED[:1], MIXED[:1], MIXED):
                ranker.score(QUERY, texts)
            assert (before["threads"], before["workers"]) == (threads, threads)
            assert ranker.info() == before  # whatever was opened since
    with Ranker(threads=3, providers=[("CPU", {})]) as ranker:
        assert ranker.info()["workers"] == 1


def test_batches_that_run_at_once_keep_to_the_budget_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, seen = onnxruntime.InferenceSession, []

    def opening(file: str, options: Any, **more: Any) -> Any:
        session, threads = real(file, options, **more), options.intra_op_num_threads
        run = session.run

        def watched(names: Any, feeds: Any, *more: Any) -> Any:
            if "passage_states" in names:
                seen.append((feeds["passage_input_ids"].size, threads))
            return run(names, feeds, *more)

        session.run = watched
        return session

    monkeypatch.setattr(onnxruntime, "InferenceSession", opening)
    with Ranker(threads=2, batch_tokens=400) as ranker:
        ranker.score(QUERY, ["flea " * n for n in range(2, 30)])
        assert len(seen) > 3
        assert all(size <= 200 and threads == 1 for size, threads in seen)
        for _ in range(2):  # the session on all threads is opened when such rows come again
            seen.clear()
            ranker.score(QUERY, ["flea " * 400, "flea"])  # one of them is nearly all of the work
        assert {threads for _, threads in seen} == {2}


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"input_ids": "INT64", "pixel_values": "INT64"}, "pixel_values"),
        ({"input_ids": "FLOAT"}, "input_ids"),
        ({"query_input_ids": "INT64", "passage_input_ids": "INT64"}, "passage_attention_mask"),
        ({"input_ids": "INT64", **dict.fromkeys(SEPARATE_INPUTS, "INT64")}, "query_input_ids"),
        ({"attention_mask": "INT64"}, "must take input_ids"),
    ],
)
def test_a_graph_whose_inputs_no_tokenizer_gives_is_refused_by_name(
    toy_folder: Callable[..., Path], inputs: dict[str, str], said: str
) -> None:
    with pytest.raises(InvalidModel, match=said):
        Ranker(toy_folder(summing(inputs)))
