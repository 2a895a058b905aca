"""One hit a document."""

import pytest

from flashrank_lite.errors import InvalidInput
from flashrank_lite.passages import Passage
from flashrank_lite.strategies.grouping import best_of_groups

PASSAGES = [
    Passage("a", id="1#1", meta={"page": "one"}),
    Passage("b", id="2#1", meta={"page": "two"}),
    Passage("c", id="1#2", meta={"page": "one"}),
    Passage("d"),
    Passage("e"),
    Passage("f", id="2#2", meta={"page": "two"}),
]


def test_the_best_passage_of_each_document_stays() -> None:
    assert best_of_groups([5, 4, 2, 0, 3, 1], PASSAGES, "page") == [5, 4, 2, 3]


def test_ids_and_functions_group_too() -> None:
    twice = [*PASSAGES, Passage("again", id="1#1")]
    assert best_of_groups(range(7), twice, "id") == [0, 1, 2, 3, 4, 5]
    assert best_of_groups(range(6), PASSAGES, lambda p: p.text in "abc") == [0, 3]


def test_a_key_that_no_passage_has_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidInput, match="'page'"):
        best_of_groups([0], PASSAGES, "pgae")
    assert best_of_groups([], [], "page") == []


def test_a_value_that_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InvalidInput, match="is a list"):
        best_of_groups([0], [Passage("a", meta={"page": ["one"]})], "page")
