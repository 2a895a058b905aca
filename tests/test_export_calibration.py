"""What the rounding of a graph is fitted on."""

import numpy as np
import pytest
from export_support import require_export

require_export()

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from flashrank_lite.export.graph import calibration  # noqa: E402


def widened():
    """A graph in which the tensor "wide" holds the ids, as numbers, in two columns."""
    ids, mask = (
        helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "tokens"])
        for name in ("input_ids", "attention_mask")
    )
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [-1])
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["number", "axis"], ["column"]),
        helper.make_node("Concat", ["column", "column"], ["wide"], axis=-1),
        helper.make_node("ReduceSum", ["wide", "axis"], ["logits"]),
    ]
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [ids, mask], [out], [axis])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def batch(first, rows, tokens, real):
    """Ids from `first` on, of which each row's first `real` tokens are text."""
    ids = first + np.arange(rows * tokens).reshape(rows, tokens)
    mask = np.broadcast_to(np.arange(tokens) < real, ids.shape).astype(np.int64)
    return {"input_ids": np.where(mask == 1, ids, -1), "attention_mask": mask}


@pytest.mark.parametrize("most", [20, 1000])
def test_rows_are_drawn_from_all_text_and_never_from_padding(monkeypatch, most):
    monkeypatch.setattr(calibration, "ROWS", most)
    feeds = [batch(1000 * number, 5, 10, 7) for number in range(6)]
    rows = calibration.sample(widened(), ["wide"], feeds)["wide"]
    text = {float(i) for f in feeds for i in f["input_ids"][f["attention_mask"] == 1]}
    drawn = rows[:, 0].tolist()
    assert rows.shape == (min(most, 6 * 5 * 7), 2)
    assert len({*drawn}) == len(drawn)
    assert {*drawn} <= text
    assert len({value // 1000 for value in drawn}) > 3  # of many batches, not of the last one


def streams():
    """Two texts in, a matrix for both, another for the second alone, a third for its sum."""
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 8]) for n in "abc"]
    nodes = [
        helper.make_node("MatMul", ["a", "shared"], ["as"]),
        helper.make_node("MatMul", ["b", "shared"], ["bs"]),
        helper.make_node("MatMul", ["b", "own"], ["bo"]),
        helper.make_node("MatMul", ["c", "other"], ["co"]),
        helper.make_node("Sum", ["as", "bs", "bo", "co"], ["logits"]),
    ]
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    rng = np.random.default_rng(0)
    matrices = [
        numpy_helper.from_array(rng.normal(size=(8, 6)).astype(np.float32), name)
        for name in ("shared", "own", "other")
    ]
    graph = helper.make_graph(nodes, "g", inputs, [out], matrices)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_products_that_share_a_source_or_a_matrix_share_their_divisors():
    rng = np.random.default_rng(1)
    feeds = [{name: rng.normal(size=(40, 8)).astype(np.float32) for name in "abc"}]
    pairs = (("a", "shared"), ("b", "shared"), ("b", "own"), ("c", "other"))
    plan = [calibration.Product(source, weight) for source, weight in pairs]
    found = calibration.calibrate(streams(), plan, [], feeds)
    assert found["a"] is found["b"]
    assert {*found["a"].matrices} == {"shared", "own"}
    assert {*found["c"].matrices} == {"other"}
    assert np.abs(found["a"].divisors - found["c"].divisors).max() > 1e-3
