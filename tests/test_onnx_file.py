"""What is read from the bytes of an ONNX file, on graphs that the onnx package makes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import toy_graph
from toy_models import saved, summing

from flashrank_lite import Ranker
from flashrank_lite.models.packages import bundled_folder
from flashrank_lite.runtime.onnx_file import external_files, is_dynamic_int8, last_operator
from flashrank_lite.runtime.sessions import Sessions

onnx = pytest.importorskip("onnx")


def dynamic_int8() -> Any:
    """Sums ids that are quantised under one scale for the whole batch."""
    return toy_graph(
        [
            ("Mul", ["input_ids", "attention_mask"], ["shown"], {}),
            ("Cast", ["shown"], ["floats"], {"to": onnx.TensorProto.FLOAT}),
            ("DynamicQuantizeLinear", ["floats"], ["q", "scale", "zero"], {}),
            ("DequantizeLinear", ["q", "scale", "zero"], ["again"], {}),
            ("ReduceSum", ["again", "last"], ["sum"], {"keepdims": 1}),
            ("Div", ["sum", "thousand"], ["logits"], {}),
        ]
    )


@pytest.mark.parametrize("external", [False, True])
def test_dynamic_int8_is_seen_in_the_file(tmp_path: Path, external: bool) -> None:
    options = {"save_as_external_data": True, "location": "weights.bin"} if external else {}
    assert is_dynamic_int8(saved(dynamic_int8(), tmp_path, **options))
    assert not is_dynamic_int8(saved(toy_graph(), tmp_path))


def test_a_dynamic_int8_score_does_not_depend_on_its_neighbours(
    toy_folder: Callable[..., Path],
) -> None:
    folder = toy_folder(dynamic_int8())
    passages = ["lives", "vacuum warmth without", "Rust", "adult flea lives for about 100 days"]
    with Ranker(folder, activation="raw") as ranker:
        together = ranker.score("how long", passages)
        alone = [ranker.score("how long", [passage])[0] for passage in passages]
        assert together.tolist() == alone
        assert ranker.info()["batch_invariant"] is False
        assert ranker.info()["one_at_a_time"] is True
    # and it is the care that we take, not the graph, that makes it so
    pairs = [[2, 10, 3, 90, 3], [2, 10, 3, 11, 3]]
    sessions = Sessions(folder / "model.onnx", 1)
    both, one = (
        sessions.run({"input_ids": ids, "attention_mask": np.ones_like(ids)}, "logits")
        for ids in (np.array(pairs, np.int64), np.array(pairs[1:], np.int64))
    )
    assert both[1] != one[0]


def test_a_graph_without_a_mask_is_run_without_padding(toy_folder: Callable[..., Path]) -> None:
    folder = toy_folder(summing({"input_ids": "INT64"}), {"pad_token_id": 1})
    with Ranker(folder, activation="raw") as ranker:
        together = ranker.score("flea", ["flea lives for about", "flea", ""])
        alone = [ranker.score("flea", [p])[0] for p in ("flea lives for about", "flea", "")]
        assert together.tolist() == alone
        assert ranker.info()["one_at_a_time"] is True


def ending(operators: list[str], columns: int = 1) -> Any:
    """The toy graph's logits through further operators."""
    steps: list[Any] = [
        ("Mul", ["input_ids", "attention_mask"], ["shown"], {}),
        ("Cast", ["shown"], ["floats"], {"to": onnx.TensorProto.FLOAT}),
        ("ReduceSum", ["floats", "last"], ["sum"], {"keepdims": 1}),
        ("Div", ["sum", "thousand"], ["one"], {}),
        ("Mul", ["one", "weights"], ["v0"], {}),
    ]
    extra: dict[str, dict[str, Any]] = {
        "Cast": {"to": onnx.TensorProto.FLOAT},
        "Softmax": {"axis": 1},
        "Gather": {"axis": 1},
    }
    for number, operator in enumerate(operators):
        inputs = [f"v{number}", *(["second"] if operator == "Gather" else [])]
        steps.append((operator, inputs, [f"v{number + 1}"], extra.get(operator, {})))
    steps.append(("Identity", [f"v{len(operators)}"], ["logits"], {}))
    weights = np.array([[-20.0, 10.0]] if columns == 2 else [[10.0]], np.float32)
    shape = ("batch", 1 if "Gather" in operators else columns)
    constants = {"weights": weights, "second": np.array([1], np.int64)}
    return toy_graph(steps, output_shape=shape, constants=constants)


@pytest.mark.parametrize(
    ("operators", "found"),
    [([], "Mul"), (["Sigmoid"], "Sigmoid"), (["Sigmoid", "Cast"], "Sigmoid"), (["Cast"], "Mul")],
)
def test_the_last_operator_is_seen_through_changes_of_shape_and_type(
    tmp_path: Path, operators: list[str], found: str
) -> None:
    file = saved(ending(operators), tmp_path)
    assert last_operator(file, "logits") == found
    assert last_operator(file, "no such output") is None


@pytest.mark.parametrize(
    ("operators", "columns", "said"),
    [
        (["Sigmoid"], 1, "sigmoid"),
        (["Sigmoid", "Cast"], 1, "sigmoid"),
        (["Softmax"], 2, "softmax"),
        (["Softmax", "Gather"], 2, "softmax"),
        (["Sigmoid"], 2, "sigmoid"),
    ],
)
def test_a_probability_that_the_graph_gives_is_the_score_and_not_squeezed_again(
    toy_folder: Callable[..., Path], operators: list[str], columns: int, said: str
) -> None:
    words = ["lives", "An", "years.", "flea"]
    with Ranker(toy_folder(ending([], columns)), activation="raw") as plain:
        logits = plain.score("flea", words)
        probabilities = Ranker(plain.info()["path"], activation="sigmoid").score("flea", words)
    # a config that says Identity does not make logits of probabilities
    identity = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}
    folder = toy_folder(ending(operators, columns), identity)
    with Ranker(folder) as ranker, Ranker(folder, activation="raw") as raw:
        assert ranker.info()["graph_activation"] == said
        assert ranker.info()["activation"] == "sigmoid"
        np.testing.assert_allclose(ranker.score("flea", words), probabilities, rtol=1e-4)
        np.testing.assert_allclose(raw.score("flea", words), logits, rtol=1e-3)


def test_probabilities_of_nought_and_one_have_finite_logits_in_the_same_order(
    toy_folder: Callable[..., Path],
) -> None:
    graph = ending(["Sigmoid"])
    weights = next(entry for entry in graph.graph.initializer if entry.name == "weights")
    weights.CopyFrom(onnx.numpy_helper.from_array(np.array([[-1e6]], np.float32), "weights"))
    with Ranker(toy_folder(graph)) as ranker:
        hits = ranker.rank("flea", ["", "lives", "years."])
    assert np.isfinite([hit.logit for hit in hits]).all()


@pytest.mark.parametrize("location", ["model.onnx.data", "weights.bin"])
def test_the_files_that_hold_the_weights_are_those_that_the_graph_names(
    tmp_path: Path, location: str
) -> None:
    steps = [
        ("Gather", ["table", "input_ids"], ["logit"], {}),
        ("ReduceSum", ["logit", "last"], ["logits"], {"keepdims": 1}),
    ]
    table = {"table": np.ones(4096, np.float32)}
    graph = toy_graph(steps, inputs={"input_ids": "INT64"}, constants=table)
    # the name alone, as text of the graph, makes no weights
    graph.doc_string = graph.graph.doc_string = "other.bin"
    file = saved(graph, tmp_path, save_as_external_data=True, location=location)
    assert external_files(file) == (location,)
    assert external_files(bundled_folder() / "model_int8.onnx") == ()


@pytest.mark.parametrize(
    "content", [b"", b"not a graph", b"\x08\x08" * 300, b"\x3a\xff\xff\x7f", b"\xff" * 10_000_000]
)
def test_what_is_no_graph_says_nothing(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    assert is_dynamic_int8(file) is False
    assert external_files(file) == ()
    assert last_operator(file, "logits") is None
