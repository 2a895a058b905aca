import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashrank_lite import InvalidModel, NonFiniteScores
from flashrank_lite.logits import Head, Output, activate, choose_output, read_logits

FINITE = st.floats(-(2.0**100), 2.0**100, width=32)


@pytest.mark.parametrize(
    ("outputs", "head", "chosen"),
    [
        ([Output("logits", (None, 1))], Head(), ("logits", Head("logit"))),
        ([Output("anything", (None,))], Head(), ("anything", Head("logit"))),
        ([Output("logits", (None, 2))], Head(None, 0), ("logits", Head("two_class", 0))),
        ([Output("logits", (None, None))], Head(), ("logits", Head())),
        ([Output("logits", None)], Head("logit"), ("logits", Head("logit"))),
        (
            [Output("last_hidden_state", (None, None, 384)), Output("score", (None, 1))],
            Head(),
            ("score", Head("logit")),
        ),
        (
            [Output("label", (None,), "tensor(int64)"), Output("scores", (None, 2))],
            Head(),
            ("scores", Head("two_class")),
        ),
        ([Output("logits", (None, 1), "tensor(float16)")], Head(), ("logits", Head("logit"))),
        (
            [Output("pooled", (None, 2)), Output("logits", (None, 1))],
            Head(),
            ("logits", Head("logit")),
        ),
    ],
)
def test_the_relevance_output_is_found(
    outputs: list[Output], head: Head, chosen: tuple[str, Head]
) -> None:
    assert choose_output(outputs, head) == chosen


@pytest.mark.parametrize(
    ("outputs", "head"),
    [
        ([Output("last_hidden_state", (None, None, 384))], Head()),
        ([Output("logits", (None, 3))], Head()),
        ([Output("logits", (None, None, 30522))], Head()),
        ([Output("embedding", (None, 384))], Head()),
        ([Output("logits", (None, 1), "tensor(int64)")], Head()),
        ([Output("label", None, "tensor(string)")], Head()),
        ([Output("a", (None, 1)), Output("b", (None, 1))], Head()),
        ([Output("logits", (None, 2))], Head("logit")),
        ([Output("logits", (None, 1))], Head("two_class")),
        ([], Head()),
    ],
)
def test_what_is_no_relevance_head_is_refused_and_said(outputs: list[Output], head: Head) -> None:
    with pytest.raises(InvalidModel, match="outputs are") as raised:
        choose_output(outputs, head)
    for output in outputs:
        assert str(output) in str(raised.value)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_one_logit_comes_in_either_shape_and_any_float_type(dtype: type) -> None:
    for shape in ((3,), (3, 1)):
        array = np.array([0.5, -2, 3], dtype).reshape(shape)
        read = read_logits(array, 3, "logits", Head("logit"))
        assert read.dtype == np.float32
        assert read.tolist() == [0.5, -2, 3]


@given(st.lists(st.tuples(st.floats(-80, 80, width=32), st.floats(-80, 80, width=32)), min_size=1))
def test_the_sigmoid_of_a_two_class_logit_is_the_softmax(rows: list[tuple[float, float]]) -> None:
    array = np.array(rows, np.float32)
    wide = array.astype(np.float64)
    for relevant in (0, 1):
        logits = read_logits(array, len(rows), "logits", Head("two_class", relevant))
        softmax = np.exp(wide[:, relevant]) / np.exp(wide).sum(axis=1)
        np.testing.assert_allclose(activate(logits, "sigmoid"), softmax, atol=1e-6)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3), np.float32),
        np.zeros((2, 4, 1), np.float32),
        np.zeros((3, 1), np.float32),
        np.zeros((2, 1), np.int64),
        np.zeros((2, 2), np.float32),
    ],
)
def test_an_output_that_does_not_fit_is_refused(array: np.ndarray) -> None:
    with pytest.raises(InvalidModel, match=r"logits \("):
        read_logits(array, 2, "logits", Head("logit"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("head", [Head("logit"), Head("two_class")])
def test_logits_that_are_not_finite_raise(bad: float, head: Head) -> None:
    array = np.zeros((4, 1 if head.type == "logit" else 2), np.float32)
    array[2, 0] = bad
    with pytest.raises(NonFiniteScores, match=r"1 of the 4 pairs.*another variant"):
        read_logits(array, 4, "logits", head)


@given(st.lists(FINITE))
def test_scores_are_within_zero_and_one_and_keep_the_order(logits: list[float]) -> None:
    array = np.array(logits, np.float32)
    with np.errstate(all="raise", under="ignore"):
        scores = activate(array, "sigmoid")
    assert scores.dtype == np.float32
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (np.diff(scores[np.argsort(array)]) >= 0).all()


def test_the_sigmoid_is_the_sigmoid() -> None:
    array = np.array([-100, -2, 0, 2, 100], np.float32)
    expected = [3.7200759760208356e-44, 0.11920292202211755, 0.5, 0.8807970779778823, 1.0]
    np.testing.assert_allclose(activate(array, "sigmoid"), expected, rtol=1e-6, atol=1e-45)


def test_raw_scores_are_the_logits_and_a_copy() -> None:
    array = np.array([-3, 0.25], np.float32)
    scores = activate(array, "raw")
    assert scores.tolist() == [-3, 0.25]
    assert not np.shares_memory(scores, array)
