"""Ranking metrics against hand-computed values, and the reader of candidate lists."""

import json
import math

import numpy as np
import pytest

from flashrank_lite.errors import InvalidInput
from flashrank_lite.evaluation import (
    CandidateList,
    kendall_tau,
    mean_ndcg,
    ndcg,
    read_candidate_lists,
)


def test_ndcg_is_what_the_definition_says():
    # Order by score: labels 0, 3, 2 → gains 3/log2(3) + 2/log2(4); ideal 3 + 2/log2(3).
    found = ndcg([0.9, 0.1, 0.5], [0, 2, 3])
    assert found == pytest.approx((3 / math.log2(3) + 2 / 2) / (3 + 2 / math.log2(3)))


def test_ndcg_counts_what_the_first_stage_missed():
    assert ndcg([1.0], [1], ideal=[1]) == 1.0
    assert ndcg([1.0], [1], ideal=[1, 1]) == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_ndcg_keeps_the_input_order_of_ties_and_cuts_at_k():
    assert ndcg([0, 0, 0], [1, 0, 0]) == 1.0
    assert ndcg([3, 2, 1], [0, 0, 1], k=2) == 0.0


def test_a_query_without_a_positive_is_left_out_of_the_mean():
    lists = [CandidateList("a", ("x", "y"), (1, 0)), CandidateList("b", ("x",), (0,))]
    assert mean_ndcg(lists, [[1.0, 0.0], [1.0]]) == 1.0
    assert ndcg([1.0], [0]) == 0.0


def test_kendall_tau_is_one_for_the_same_order_and_minus_one_for_the_reverse():
    assert kendall_tau([1, 2, 3], [10, 20, 40]) == pytest.approx(1.0)
    assert kendall_tau([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert kendall_tau([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    assert kendall_tau([1, 1, 1], [1, 2, 3]) == 0.0
    assert kendall_tau([1, 1], [2, 2]) == kendall_tau([1], [5]) == 1.0
    assert kendall_tau([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / np.sqrt(2 * 3))  # a tie: tau-b


def test_candidates_are_read_with_texts_from_the_line_or_the_corpus(tmp_path):
    row = {
        "query": "q",
        "ideal": [2, 1],
        "candidates": [{"id": "a", "label": 2}, {"id": "b", "text": "here", "label": 0}],
    }
    path = tmp_path / "rerank.jsonl"
    path.write_text(json.dumps(row) + "\n\n", encoding="utf-8")
    (tmp_path / "corpus.all.jsonl").write_text('{"id": "a", "text": "there"}\n', encoding="utf-8")
    assert read_candidate_lists(path) == [CandidateList("q", ("there", "here"), (2, 0), (2, 1))]


@pytest.mark.parametrize(
    "line",
    ["not json", '{"query": "q"}', '{"query": "q", "candidates": [{"id": "z", "label": 1}]}'],
)
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "rerank.jsonl"
    path.write_text('{"query": "q", "candidates": []}\n' + line, encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"rerank\.jsonl:2: not a candidate list"):
        read_candidate_lists(path)


@pytest.mark.parametrize("line", ["not json", '{"id": "a"}', "[]"])
def test_a_bad_line_of_the_corpus_is_named_and_not_the_list_that_needs_it(tmp_path, line):
    path = tmp_path / "rerank.jsonl"
    row = {"query": "q", "candidates": [{"id": "a", "label": 1}]}
    path.write_text(json.dumps(row), encoding="utf-8")
    corpus = tmp_path / "corpus.all.jsonl"
    corpus.write_text('{"id": "a", "text": "there"}\n\n' + line, encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"corpus\.all\.jsonl:3: not a text of") as raised:
        read_candidate_lists(path)
    assert "rerank.jsonl" not in str(raised.value)
    path.write_text('{"query": "q", "candidates": [{"text": "here", "label": 1}]}')
    assert read_candidate_lists(path)[0].texts == ("here",)  # the corpus is not read in vain
