"""A ranker's strategies: its arguments, and the promises that hold for every one of them."""

import asyncio
import json
import multiprocessing
import pickle
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import PASSAGES, QUERY
from scorers import Given, SharedWords, SharedWordsInWindows

from flashrank_lite import InvalidInput, Ranker, RankerClosed
from flashrank_lite.cross_encoder import CrossEncoder
from flashrank_lite.options import ModelOptions
from flashrank_lite.scorer import Candidates, Scores
from flashrank_lite.strategies import EarlyPruning

LONG = " ".join(PASSAGES[:9] * 3)
TEXTS = [*PASSAGES, LONG, "", LONG[::-1]]
BOUND = 1e-4  # as in test_promises.py

STACKS: dict[str, Any] = {
    "windows": lambda: Ranker(long="windows"),
    "truncate": lambda: Ranker(long="truncate"),
    "cascade": lambda: Ranker(then=CrossEncoder(None, ModelOptions(max_length=64)), keep=4),
    "pruning": lambda: Ranker(scorer=EarlyPruning(CrossEncoder(), top_k=3), long="truncate"),
    "rrf": lambda: Ranker(fusion="rrf"),
    "linear": lambda: Ranker(fusion="linear", weight=0.6),
    "z, of a cascade": lambda: Ranker(fusion="z", then=CrossEncoder(), keep=4),
}


@pytest.fixture(params=STACKS.values(), ids=STACKS.keys())
def stacked(request: pytest.FixtureRequest) -> Iterator[Ranker]:
    with request.param() as ranker:
        yield ranker


# The promises


def test_info_shows_the_whole_stack_as_json(stacked: Ranker) -> None:
    info = stacked.info()
    assert json.loads(json.dumps(info, allow_nan=False)) == info
    assert info["model"] == "nano"


def test_a_pickled_ranker_ranks_the_same(stacked: Ranker) -> None:
    hits = stacked.rank(QUERY, TEXTS)
    with pickle.loads(pickle.dumps(stacked)) as again:
        assert again.info() == stacked.info()
        assert [hit.to_dict() for hit in again.rank(QUERY, TEXTS)] == [h.to_dict() for h in hits]


def _rank_in_child(ranker: Ranker, answers: Any) -> None:
    answers.put([hit.index for hit in ranker.rank(QUERY, TEXTS)])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="fork")
def test_a_forked_process_ranks_the_same(stacked: Ranker) -> None:
    order = [hit.index for hit in stacked.rank(QUERY, TEXTS)]
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_rank_in_child, args=(stacked, answers))
    child.start()
    assert answers.get(timeout=60) == order
    child.join(60)
    assert child.exitcode == 0


def test_a_closed_ranker_says_so(stacked: Ranker) -> None:
    stacked.close()
    stacked.close()
    with pytest.raises(RankerClosed):
        stacked.rank(QUERY, TEXTS)
    with pytest.raises(RankerClosed):
        stacked.rank(QUERY, TEXTS, long="truncate")
    with pytest.raises(RankerClosed):
        pickle.dumps(stacked)


def test_logits_do_not_depend_on_the_other_passages(stacked: Ranker) -> None:
    # of a cascade those do that the second model reads: alone, every passage is
    alone = {}
    for text in TEXTS:
        alone[text] = stacked.rank(QUERY, [text])[0].logit
    hits = stacked.rank(QUERY, TEXTS)
    cut = 4 if "then" in stacked.info() else 3 if "early_pruning" in stacked.info() else None
    for hit in hits[:cut]:
        assert hit.logit == pytest.approx(alone[hit.text], abs=10 * BOUND)  # that is on scores
    assert sorted(hit.index for hit in hits) == list(range(len(TEXTS)))


def test_an_empty_list_has_no_hits(stacked: Ranker) -> None:
    assert stacked.rank(QUERY, []) == []
    assert stacked.rank_many([], []) == []
    assert stacked.score(QUERY, []).tolist() == []


def test_many_lists_are_ranked_as_each_alone(stacked: Ranker) -> None:
    lists = [TEXTS, TEXTS[::-1], [LONG]]
    together = stacked.rank_many([QUERY, "the great wall", QUERY], lists, top_k=3)
    for query, texts, hits in zip([QUERY, "the great wall", QUERY], lists, together, strict=True):
        assert [h.index for h in stacked.rank(query, texts, top_k=3)] == [h.index for h in hits]


def test_closing_waits_for_the_second_stage() -> None:
    reached, go_on = threading.Event(), threading.Event()

    class Slow(SharedWords):
        def score(self, lists: Any, **options: Any) -> list[Scores]:
            reached.set()
            assert go_on.wait(30)
            return super().score(lists, **options)

    ranker = Ranker(scorer=Slow(), then=SharedWords())
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(ranker.rank("flea", ["a", "flea"])))
    thread.start()
    assert reached.wait(30)
    ranker.close()
    with pytest.raises(RankerClosed):
        ranker.rank("flea", ["a"])
    go_on.set()
    thread.join(30)
    assert [hit.text for hit in answers[0]] == ["flea", "a"]


# The arguments


def test_a_ranker_of_two_models_sorts_by_both() -> None:
    texts = ["a", "b", "c", "d"]
    cheap = Given({"a": 4.0, "b": 3.0, "c": 2.0, "d": 9.0})
    strong = Given({"a": -3.0, "b": -1.0, "d": -2.0})
    with Ranker(scorer=cheap, then=strong, keep=3) as ranker:
        hits = ranker.rank("q", texts)
        assert [hit.text for hit in hits] == ["b", "d", "a", "c"]
        assert [hit.logit for hit in hits] == [-1.0, -2.0, -3.0, 2.0]
        assert [hit.text for hit in ranker.rank("q", texts, top_k=2)] == ["b", "d"]
    assert cheap.closed
    assert strong.closed


def test_the_second_model_is_opened_by_name(ranker: Ranker) -> None:
    with Ranker(then="nano", keep=2, max_length=64, threads=1) as both:
        info = both.info()
        assert info["max_length"] == 64
        assert info["then"][0]["max_length"] == 512  # its own
        assert info["then"][0]["threads"] == 1
        assert info["then"][0]["keep"] == 2
        hits = both.rank(QUERY, PASSAGES)
        best = both.rank(QUERY, PASSAGES, top_k=2)
        assert best == hits[:2]


def test_scores_that_passages_carry_are_blended() -> None:
    model = Given({"a": 1.0, "b": 2.0, "c": 3.0})
    passages = [
        {"text": "a", "score": 30.0},
        {"text": "b", "score": 20.0},
        {"text": "c", "score": 10.0},
    ]
    with Ranker(scorer=model, fusion="linear", weight=0.2) as ranker:
        hits = ranker.rank("q", passages)
        assert [hit.text for hit in hits] == ["a", "b", "c"]
        assert [hit.score for hit in hits] == pytest.approx([0.8, 0.5, 0.2])
        assert ranker.score("q", passages).tolist() == pytest.approx([0.8, 0.5, 0.2])
        assert [hit.logit for hit in hits] == [1.0, 2.0, 3.0]
        # without scores, the order they are in
        assert ranker.rank("q", ["b", "c", "a"])[0].text == "b"
        with pytest.raises(InvalidInput, match="every passage of the list a score"):
            ranker.rank("q", [*passages, "b"])
    with Ranker(scorer=model) as ranker:
        assert ranker.rank("q", [*passages, "b"])[0].text == "c"


def test_the_best_passage_of_each_document_is_a_hit(ranker: Ranker) -> None:
    passages = [
        {"text": text, "id": number, "page": "fleas" if "flea" in text.lower() else number}
        for number, text in enumerate(PASSAGES)
    ]
    everything = ranker.rank(QUERY, passages)
    hits = ranker.rank(QUERY, passages, group_by="page")
    assert hits[0] == everything[0]
    pages = [hit.meta["page"] for hit in hits]
    assert len(pages) == len(set(pages)) == len({p["page"] for p in passages})
    assert ranker.rank(QUERY, passages, top_k=2, group_by="page") == hits[:2]
    many = ranker.rank_many([QUERY, QUERY], [passages, passages[:3]], group_by="page")
    assert many[0] == hits
    assert len(many[1]) == 2
    assert asyncio.run(ranker.arank(QUERY, passages, group_by="page")) == hits


def test_long_holds_for_a_call_or_for_the_ranker() -> None:
    last = "dog " * 20 + "flea"
    with Ranker(scorer=SharedWordsInWindows(room=8)) as ranker:
        assert ranker.score("flea", [last])[0] > 0.5
        assert ranker.score("flea", [last], long="truncate").tolist() == [0.5]
        assert ranker.score_pairs([("flea", last)], long="truncate").tolist() == [0.5]
        assert asyncio.run(ranker.ascore("flea", [last], long="truncate")).tolist() == [0.5]
        assert ranker.rank("flea", [last], long="truncate")[0].truncated
    with Ranker(scorer=SharedWordsInWindows(room=8), long="truncate") as ranker:
        assert ranker.rank("flea", [last])[0].truncated
        assert not ranker.rank("flea", [last], long="windows")[0].truncated


def test_a_scorer_without_windows_truncates_unless_told_otherwise() -> None:
    with Ranker(scorer=SharedWords()) as ranker:
        assert ranker.rank("flea", ["dog " * 20])[0].truncated
        with pytest.raises(InvalidInput, match="cannot be asked for windows"):
            ranker.rank("flea", ["dog"], long="windows")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"long": "chunks"}, "'truncate' or 'windows'"),
        ({"keep": 10}, "pass then="),
        ({"keep": 0, "then": SharedWords()}, "keep"),
        ({"then": 5}, "then must be"),
        ({"fusion": "sum"}, "'rrf', 'linear' or 'z'"),
        ({"weight": 0.5}, "pass fusion="),
        ({"first_stage": "bm25"}, "pass fusion="),
        ({"fusion": "z", "weight": -1}, "weight"),
    ],
)
def test_arguments_that_go_wrong_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Ranker(scorer=SharedWords(), **options)


def test_strategies_see_the_first_stage_scores() -> None:
    scorer = SharedWords()
    with Ranker(scorer=scorer) as ranker:
        ranker.rank("q", [("a", 0.5), ("b", np.float32(0.25))])
    (one,) = scorer.asked[0]
    assert isinstance(one, Candidates)
    np.testing.assert_array_equal(one.first_stage, np.array([0.5, 0.25], np.float32))


def test_a_length_that_is_given_says_how_much_is_read() -> None:
    with Ranker(max_length=64) as ranker:
        assert "windows" not in ranker.info()
        assert ranker.rank(QUERY, [LONG])[0].truncated
        assert not ranker.rank(QUERY, [LONG], long="windows")[0].truncated
    with Ranker(max_length=64, long="windows") as ranker:
        assert not ranker.rank(QUERY, [LONG])[0].truncated
