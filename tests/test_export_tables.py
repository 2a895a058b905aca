"""Embedding tables in 4 and 8 bits."""

import numpy as np
import onnx
import onnxruntime
import pytest
from export_support import require_export
from onnx import TensorProto, helper, numpy_helper

require_export()

from flashrank_lite.export.graph.tables import BLOCK, four_bit_codes, quantise_tables  # noqa: E402


def lookup(table: np.ndarray) -> onnx.ModelProto:
    rows = helper.make_tensor_value_info("rows", TensorProto.INT64, ["n", "tokens"])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", "tokens", table.shape[1]])
    node = helper.make_node("Gather", ["table", "rows"], ["out"], name="look_up")
    graph = helper.make_graph([node], "g", [rows], [out], [numpy_helper.from_array(table, "table")])
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def run(model: onnx.ModelProto, rows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"rows": rows[None]})[0][0]


@pytest.mark.parametrize(
    ("rows", "bits", "worst"), [(9000, 4, 0.15), (9000, 8, 0.01), (300, 4, 0.01)]
)
def test_looked_up_rows_are_close_and_the_table_is_small(rows, bits, worst):
    table = np.random.default_rng(0).normal(size=(rows, 2 * BLOCK)).astype(np.float32)
    model = lookup(table)
    full = model.ByteSize()
    wanted = np.array([0, 1, rows - 1, 7], np.int64)
    small = quantise_tables(model, bits=bits)
    found = run(small, wanted)
    error = np.linalg.norm(found - table[wanted]) / np.linalg.norm(table[wanted])
    assert 0 < error < worst
    assert small.ByteSize() < full * (0.15 if worst > 0.1 else 0.28)


def test_a_table_trained_on_the_four_bit_grid_stays_exact():
    rng = np.random.default_rng(1)
    codes = rng.integers(-7, 8, size=(9000, BLOCK)).astype(np.float32)
    codes[:, 0] = 7  # a block reaches the end of its range
    scales = (rng.uniform(0.01, 0.1, size=(9000, 1))).astype(np.float16)
    table = codes * scales.astype(np.float32)
    found, kept = four_bit_codes(table)
    np.testing.assert_array_equal(found, codes)
    np.testing.assert_allclose(kept, scales, rtol=1e-3)
    np.testing.assert_allclose(
        run(quantise_tables(lookup(table), bits=4), np.arange(50)), table[:50], rtol=2e-3
    )


def test_a_table_of_zeros_stays_zero():
    table = np.zeros((9000, BLOCK), np.float32)
    assert not run(quantise_tables(lookup(table), bits=4), np.arange(9)).any()
