"""Models as they are opened: folders, graphs and heads of other kinds than the bundled one."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import PASSAGES, QUERY, toy_graph

from flashrank_lite import NonFiniteScores, Ranker


def test_a_folder_with_hugging_face_files_alone_ranks(toy_folder: Callable[..., Path]) -> None:
    folder = toy_folder(toy_graph(), {"num_labels": 1}, graph_name="onnx/model.onnx")
    with Ranker(str(folder), activation="raw") as ranker:
        assert ranker.info()["variant"] == "onnx/model.onnx"
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
    assert Ranker(folder).info()["variant"] == "model_int8.onnx"
    with pickle.loads(sent) as again:
        assert again.info() == info
