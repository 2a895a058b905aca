import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import toy_graph

from flashrank_lite import InvalidInput, InvalidModel, ProviderUnavailable, Ranker, RankerClosed
from flashrank_lite.encoding.collate import SEPARATE_INPUTS
from flashrank_lite.runtime.graph import Graph, is_dynamic_int8
from flashrank_lite.models.packages import bundled_folder
from flashrank_lite.runtime.sessions import resolve

onnx = pytest.importorskip("onnx")

FEEDS = {
    "input_ids": np.array([[5, 7, 9], [1, 2, 0]], np.int64),
    "attention_mask": np.array([[1, 1, 1], [1, 1, 0]], np.int64),
    "token_type_ids": np.array([[0, 1, 1], [0, 1, 0]], np.int64),
}


def saved(graph: Any, folder: Path, **options: Any) -> Path:
    onnx.save(graph, folder / "model.onnx", **options)
    return folder / "model.onnx"


def summing(inputs: dict[str, str]) -> Any:
    """A graph that adds up whatever inputs it declares."""
    steps = []
    for number, name in enumerate(inputs):
        steps.append(("Cast", [name], [f"f{number}"], {"to": onnx.TensorProto.FLOAT}))
    steps.append(("Sum", [f"f{number}" for number in range(len(inputs))], ["all"], {}))
    steps.append(("ReduceSum", ["all", "last"], ["logits"], {"keepdims": 1}))
    return toy_graph(steps, inputs=inputs)


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
    graph = Graph(saved(summing(dict.fromkeys(names, kind)), tmp_path), 1)
    assert graph.run(FEEDS, "logits").ravel().tolist() == sums
    assert list(graph.inputs) == names


@pytest.mark.parametrize(
    "inputs",
    [
        {"input_ids": "INT64", "pixel_values": "INT64"},
        {"input_ids": "FLOAT"},
        {"query_input_ids": "INT64", "passage_input_ids": "INT64"},
        {"input_ids": "INT64", **dict.fromkeys(SEPARATE_INPUTS, "INT64")},
    ],
)
def test_inputs_that_no_tokenizer_gives_are_refused_by_name(
    tmp_path: Path, inputs: dict[str, str]
) -> None:
    file = saved(summing(inputs), tmp_path)
    with pytest.raises(InvalidModel, match="|".join(inputs)):
        Graph(file, 1)


def test_a_graph_without_input_ids_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="must take input_ids"):
        Graph(saved(summing({"attention_mask": "INT64"}), tmp_path), 1)


def test_a_truncated_graph_is_refused_with_advice(tmp_path: Path) -> None:
    bundled = next(bundled_folder().glob("*.onnx"))
    (tmp_path / "model.onnx").write_bytes(bundled.read_bytes()[:10_000])
    with pytest.raises(InvalidModel, match=r"damaged or incomplete.*export it again"):
        Graph(tmp_path / "model.onnx", 1)


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x08" * 300])
def test_a_file_that_is_no_graph_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(InvalidModel, match=r"model\.onnx"):
        Graph(tmp_path / "model.onnx", 1)


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
    assert Graph(file, 1).inputs
    if damage == "gone":
        (tmp_path / "weights.bin").unlink()
    else:
        (tmp_path / "weights.bin").write_bytes(b"short")
    with pytest.raises(InvalidModel, match=r"weights in another file.*beside the graph"):
        Graph(file, 1)


def test_a_graph_with_fixed_axes_says_what_it_needs(tmp_path: Path) -> None:
    graph = toy_graph()
    for entry in graph.graph.input:
        entry.type.tensor_type.shape.dim[1].dim_value = 16
    with pytest.raises(InvalidModel, match=r"shape \(2, 3\).*dynamic axes"):
        Graph(saved(graph, tmp_path), 1).run(FEEDS, "logits")


def test_providers_go_by_their_full_or_short_name(tmp_path: Path) -> None:
    file = saved(toy_graph(), tmp_path)
    for wish in (["CPUExecutionProvider"], ["CPU"], ["cpu"], [("cpu", {})], None):
        assert Graph(file, 1, wish).providers == ["CPUExecutionProvider"]


def test_a_provider_goes_by_the_name_that_people_use(monkeypatch: pytest.MonkeyPatch) -> None:
    known = ["DmlExecutionProvider", "OpenVINOExecutionProvider", "CoreMLExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: known)
    wishes = ["DirectML", ("OpenVINO", {"device_type": "CPU"}), "coreml"]
    assert resolve(wishes) == [known[0], (known[1], {"device_type": "CPU"}), known[2]]


def test_a_provider_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ProviderUnavailable, match=r"no provider 'Quantum'.*CPUExecutionProvider"):
        Graph(saved(toy_graph(), tmp_path), 1, ["Quantum"])


@pytest.mark.parametrize("wish", ["CPU", []])
def test_providers_that_are_no_list_are_refused(tmp_path: Path, wish: Any) -> None:
    with pytest.raises(InvalidInput, match="list of names"):
        Graph(saved(toy_graph(), tmp_path), 1, wish)


def test_a_closed_graph_says_so(tmp_path: Path) -> None:
    graph = Graph(saved(toy_graph(), tmp_path), 1)
    graph.close()
    graph.close()
    with pytest.raises(RankerClosed, match="closed"):
        graph.run(FEEDS, "logits")


def test_loading_and_failing_print_and_log_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        Graph(saved(toy_graph(), tmp_path), 1).run(FEEDS, "logits")
        (tmp_path / "model.onnx").write_bytes(b"not a graph")
        with pytest.raises(InvalidModel):
            Graph(tmp_path / "model.onnx", 1)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


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
    graph = Graph(folder / "model.onnx", 1)
    both, one = (
        graph.run({"input_ids": ids, "attention_mask": np.ones_like(ids)}, "logits")
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
