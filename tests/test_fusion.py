"""Blends of a model with a first stage, over scorers of the tests' own."""

import builtins
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scorers import Given

from flashrank_lite.errors import InvalidInput, MissingExtra
from flashrank_lite.scorer import Candidates, Scores
from flashrank_lite.strategies import Cascade, Fusion

KINDS = ["rrf", "linear", "z"]
PAIRS = st.lists(st.tuples(st.integers(-9, 9), st.integers(0, 30)), max_size=15)


def fused(pairs: list[tuple[int, int]], scored: bool = True, **options: Any) -> Scores:
    texts = [f"passage {number}" for number in range(len(pairs))]
    model = Given({text: float(pair[0]) for text, pair in zip(texts, pairs, strict=True)})
    first = np.array([pair[1] for pair in pairs], np.float32) if scored else None
    (scores,) = Fusion(model, **options).score([Candidates("q", texts, first)])
    return scores


def best_first(values: list[int]) -> list[int]:
    return sorted(range(len(values)), key=lambda number: -values[number])


@pytest.mark.parametrize("kind", KINDS)
@given(pairs=PAIRS)
def test_the_ends_of_the_weight_are_the_model_and_the_first_stage(
    kind: str, pairs: list[tuple[int, int]]
) -> None:
    for weight, column in ((1.0, 0), (0.0, 1)):
        order = fused(pairs, kind=kind, weight=weight).order().tolist()
        assert order == best_first([pair[column] for pair in pairs])


@pytest.mark.parametrize("kind", KINDS)
@given(pairs=PAIRS)
def test_what_both_find_better_is_not_ranked_worse(kind: str, pairs: list[tuple[int, int]]) -> None:
    scores = fused(pairs, kind=kind, weight=0.5).fused
    assert ((scores >= 0) & (scores <= 1)).all()
    for one, (model, first) in enumerate(pairs):
        for other, (model_too, first_too) in enumerate(pairs):
            if model >= model_too and first >= first_too:
                assert scores[one] >= scores[other] - 1e-6


@pytest.mark.parametrize("kind", KINDS)
@given(pairs=PAIRS)
def test_the_scale_of_the_first_stage_does_not_matter(
    kind: str, pairs: list[tuple[int, int]]
) -> None:
    scaled = [(model, 1000 + 8 * first) for model, first in pairs]
    np.testing.assert_allclose(
        fused(scaled, kind=kind).fused, fused(pairs, kind=kind).fused, atol=1e-4
    )


@pytest.mark.parametrize("kind", KINDS)
def test_without_scores_the_order_given_is_the_first_stage(kind: str) -> None:
    pairs = [(0, 0)] * 4  # the model finds all alike
    assert fused(pairs, scored=False, kind=kind).order().tolist() == [0, 1, 2, 3]
    pairs = [(0, 0), (0, 0), (9, 0), (0, 0)]
    assert fused(pairs, scored=False, kind=kind, weight=0.9).order().tolist() == [2, 0, 1, 3]


def test_reciprocal_ranks_are_those_of_the_paper() -> None:
    # 1 / (60 + rank), as in Cormack et al., over what is best in both
    pairs = [(3, 1), (2, 3), (1, 2)]
    expected = [(1 / 61 + 1 / 63) / 2, (1 / 62 + 1 / 61) / 2, (1 / 63 + 1 / 62) / 2]
    scores = fused(pairs, kind="rrf", weight=0.5).fused
    np.testing.assert_allclose(scores, np.array(expected) * 61, rtol=1e-6)


def test_logits_stay_the_model_s_own() -> None:
    pairs = [(3, 1), (2, 3), (1, 2)]
    np.testing.assert_array_equal(fused(pairs).logits, [3, 2, 1])


def test_in_a_cascade_each_stage_is_blended_by_itself() -> None:
    texts = ["a", "b", "c", "d"]
    cheap = Given({"a": 100.0, "b": 101.0, "c": 102.0, "d": 103.0})
    strong = Given({"c": -1.0, "d": -2.0})
    cascade = Cascade([cheap, strong], keep=[2])
    first = np.array([9, 1, 1, 2], np.float32)
    (scores,) = Fusion(cascade, "linear", 0.4).score([Candidates("q", texts, first)])
    assert scores.order().tolist() == [3, 2, 0, 1]  # what was read by the strong one stays above


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_first_stage_score_that_is_no_number_is_refused(wrong: float) -> None:
    first = np.array([1.0, wrong], np.float32)
    with pytest.raises(InvalidInput, match="first-stage score"):
        Fusion(Given({"a": 0.0, "b": 0.0})).score([Candidates("q", ["a", "b"], first)])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "sum"}, "'rrf', 'linear' or 'z'"),
        ({"weight": 1.5}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"first_stage": "tf-idf"}, "'given' or 'bm25'"),
    ],
)
def test_arguments_out_of_range_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Fusion(Given({}), **options)


def test_bm25_orders_by_the_words_that_the_query_shares() -> None:
    pytest.importorskip("bm25s")
    texts = [
        "Dogs sleep twelve hours a day.",
        "Fleas are small insects.",
        "How long do fleas live? Fleas live a hundred days.",
        "",
    ]
    model = Given(dict.fromkeys(texts, 0.0))
    fusion = Fusion(model, "linear", first_stage="bm25")
    # whatever scores the passages carry
    first = np.array([9, 0, 0, 0], np.float32)
    scored = fusion.score(
        [Candidates("how long do fleas live", texts, first), Candidates("zebra", texts)]
    )
    assert scored[0].order().tolist() == [2, 1, 0, 3]
    assert scored[1].order().tolist() == [0, 1, 2, 3]  # nothing shared, nothing said
    assert fusion.score([Candidates("q", [])])[0].order().tolist() == []


def test_without_bm25s_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "bm25s":
            raise ImportError(name)
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"flashrank-lite\[bm25\]"):
        Fusion(Given({}), first_stage="bm25")
