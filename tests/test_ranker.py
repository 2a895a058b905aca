import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import PASSAGES, QUERY

import flashrank_lite
from flashrank_lite import (
    InvalidInput,
    ModelNotFound,
    ProviderUnavailable,
    RankedPassage,
    Ranker,
    RankerClosed,
)


def test_rank_sorts_and_score_does_not(ranker: Ranker) -> None:
    hits = ranker.rank(QUERY, PASSAGES)
    scores = ranker.score(QUERY, PASSAGES)
    assert scores.dtype == np.float32
    assert scores.shape == (len(PASSAGES),)
    assert [hit.index for hit in hits] == np.argsort(-scores, kind="stable").tolist()
    assert [hit.score for hit in hits] == sorted((float(score) for score in scores), reverse=True)
    assert len(set(scores.tolist())) == len(PASSAGES)
    for hit in hits:
        assert isinstance(hit, RankedPassage)
        assert hit.text == PASSAGES[hit.index]
        assert type(hit.score) is type(hit.logit) is float
        assert hit.score == float(scores[hit.index])
        assert hit.score == pytest.approx(1 / (1 + np.exp(-hit.logit)), abs=1e-6)


def test_a_passage_that_answers_beats_those_on_other_things(ranker: Ranker) -> None:
    others = [PASSAGES[2], PASSAGES[3], PASSAGES[7], PASSAGES[8]]
    assert ranker.rank(QUERY, [*others, PASSAGES[0]])[0].index == len(others)


def test_scores_depend_on_the_query(ranker: Ranker) -> None:
    about_walls = ranker.score("great wall of china", PASSAGES)
    assert int(np.argmax(about_walls)) == 2
    assert int(np.argmax(ranker.score(QUERY, PASSAGES))) != 2


@pytest.mark.parametrize("top_k", [1, 3, len(PASSAGES), 1000])
def test_top_k_is_the_head_of_the_whole(ranker: Ranker, top_k: int) -> None:
    assert ranker.rank(QUERY, PASSAGES, top_k=top_k) == ranker.rank(QUERY, PASSAGES)[:top_k]


@pytest.mark.parametrize("top_k", [0, -1, True, 1.0, "3"])
def test_a_top_k_that_is_no_positive_number_is_refused(ranker: Ranker, top_k: Any) -> None:
    with pytest.raises(InvalidInput, match="top_k must be a positive whole number or None"):
        ranker.rank(QUERY, PASSAGES, top_k=top_k)
    with pytest.raises(InvalidInput, match="top_k"):
        ranker.rank_many([], [], top_k=top_k)


def test_nothing_in_nothing_out(ranker: Ranker) -> None:
    assert ranker.rank(QUERY, []) == []
    assert ranker.rank_many([], []) == []
    assert ranker.rank_many([QUERY, "b"], [[], iter(())]) == [[], []]
    for scores in (ranker.score(QUERY, []), ranker.score_pairs([])):
        assert scores.shape == (0,)
        assert scores.dtype == np.float32


def test_all_ways_to_ask_give_the_same_scores(ranker: Ranker) -> None:
    scores = ranker.score(QUERY, PASSAGES)
    pairs = ranker.score_pairs((QUERY, passage) for passage in PASSAGES)
    many = ranker.rank_many([QUERY], [PASSAGES])[0]
    np.testing.assert_array_equal(scores, pairs)
    assert many == ranker.rank(QUERY, PASSAGES)
    assert [float(scores[hit.index]) for hit in many] == [hit.score for hit in many]


def test_rank_many_is_rank_for_each(ranker: Ranker) -> None:
    queries = [QUERY, "great wall of china", "", QUERY]
    lists = [PASSAGES[:5], PASSAGES, [], ["only one"]]
    together = ranker.rank_many(queries, lists, top_k=3)
    for hits, query, passages in zip(together, queries, lists, strict=True):
        alone = ranker.rank(query, passages, top_k=3)
        assert [hit.index for hit in hits] == [hit.index for hit in alone]
        np.testing.assert_allclose([h.logit for h in hits], [h.logit for h in alone], atol=1e-4)


def test_equal_passages_tie_and_keep_their_order(ranker: Ranker) -> None:
    passages = [PASSAGES[1], PASSAGES[0], PASSAGES[2], PASSAGES[1], PASSAGES[0]] * 3
    hits = ranker.rank(QUERY, [{"text": text, "id": n} for n, text in enumerate(passages)])
    for text in set(passages):
        places = [hit.index for hit in hits if hit.text == text]
        assert places == sorted(places)
        assert len({hit.score for hit in hits if hit.text == text}) == 1
        assert [hit.id for hit in hits if hit.text == text] == places


def test_ids_and_metadata_come_back_with_the_hits(ranker: Ranker) -> None:
    passages = [
        {"text": PASSAGES[2], "id": "wall", "title": "Wall", "meta": {"page": 4}},
        SimpleNamespace(page_content=PASSAGES[0], id=17, metadata={"source": "fleas.txt"}),
        PASSAGES[3],
    ]
    hits = {hit.index: hit for hit in ranker.rank(QUERY, passages)}
    assert (hits[0].id, hits[0].meta) == ("wall", {"title": "Wall", "page": 4})
    assert (hits[1].id, hits[1].meta, hits[1].text) == (17, {"source": "fleas.txt"}, PASSAGES[0])
    assert (hits[2].id, hits[2].meta) == (None, {})


@pytest.mark.parametrize("wrong", [None, 5, b"q", ["q"]])
def test_a_query_that_is_no_str_is_refused(ranker: Ranker, wrong: Any) -> None:
    for ask in (ranker.rank, ranker.score):
        with pytest.raises(InvalidInput, match="the query must be a str"):
            ask(wrong, PASSAGES)
    with pytest.raises(InvalidInput, match="query 1 must be a str"):
        ranker.rank_many(["a", wrong], [[], []])
    with pytest.raises(InvalidInput, match="query of pair 1 must be a str"):
        ranker.score_pairs([("a", "b"), (wrong, "b")])


@pytest.mark.parametrize("wrong", ["ab", ("a",), ("a", "b", "c"), {"a": 1, "b": 2}, None])
def test_a_pair_that_is_no_pair_is_refused(ranker: Ranker, wrong: Any) -> None:
    with pytest.raises(InvalidInput, match=r"pair 1 is not a \(query, passage\)"):
        ranker.score_pairs([("a", "b"), wrong])


def test_bad_passages_are_refused_before_anything_runs(ranker: Ranker) -> None:
    with pytest.raises(InvalidInput, match="wrap it in a list"):
        ranker.rank(QUERY, "one passage")
    with pytest.raises(InvalidInput, match="passage 1 is None"):
        ranker.score(QUERY, ["fine", None])


def test_rank_many_needs_a_list_per_query(ranker: Ranker) -> None:
    with pytest.raises(InvalidInput, match="2 queries but 1 lists"):
        ranker.rank_many(["a", "b"], [["x"]])
    with pytest.raises(InvalidInput, match="single str"):
        ranker.rank_many("ab", [["x"], ["y"]])  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="wrap it in a list"):
        ranker.rank_many(["a"], ["x"])


def test_raw_scores_are_logits() -> None:
    with Ranker(activation="raw") as raw, Ranker(activation="sigmoid") as squashed:
        hits = raw.rank(QUERY, PASSAGES)
        assert [hit.score for hit in hits] == [hit.logit for hit in hits]
        expected = 1 / (1 + np.exp(-raw.score(QUERY, PASSAGES).astype(np.float64)))
        np.testing.assert_allclose(squashed.score(QUERY, PASSAGES), expected, atol=1e-6)
        assert raw.info()["activation"] == "raw"
        assert squashed.info()["activation"] == "sigmoid"


def test_a_shorter_max_length_truncates_more() -> None:
    with Ranker(max_length=16) as short:
        truncated = {hit.index: hit.truncated for hit in short.rank(QUERY, ["dog", PASSAGES[7]])}
        assert truncated == {0: False, 1: True}
        assert short.info()["max_length"] == 16


def test_a_length_beyond_the_model_is_refused_with_its_limit() -> None:
    with Ranker() as default:
        limit = default.info()["max_length"]
    with pytest.raises(InvalidInput, match=r"max_length=100000 .* tokens that the model") as raised:
        Ranker(max_length=100_000)
    said = int(str(raised.value).rsplit("pass ", 1)[1].split()[0])
    assert said >= limit
    with Ranker(max_length=said) as longest:
        assert longest.rank(QUERY, ["flea " * 5000])[0].truncated


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"max_length": 4}, "max_length=4 is too small"),
        ({"max_length": 0}, "max_length must be a positive whole number"),
        ({"max_length": True}, "max_length must be"),
        ({"batch_tokens": 0}, "batch_tokens must be a positive whole number"),
        ({"batch_tokens": 1.5}, "batch_tokens must be"),
        ({"threads": 0}, "threads must be"),
        ({"activation": "softmax"}, "activation must be 'sigmoid', 'raw' or a file"),
        ({"providers": "CPU"}, "providers must be a list"),
        ({"model": 5}, "model must be None, a name, or the path"),
    ],
)
def test_a_bad_argument_is_refused_by_name(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        Ranker(**arguments)


def test_a_model_or_provider_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no-such"):
        Ranker(tmp_path / "no-such")
    with pytest.raises(ProviderUnavailable, match="Quantum"):
        Ranker(providers=["Quantum"])


def test_info_is_json_and_complete() -> None:
    with Ranker(threads=1, batch_tokens=64) as ranker:
        info = ranker.info()
    assert json.loads(json.dumps(info)) == info
    assert (Path(info["path"]) / info["graph"]).is_file()
    assert (info["threads"], info["threads_source"]) == (1, "argument")
    assert info["batch_tokens"] == 64
    assert info["providers"] == ["CPUExecutionProvider"]
    assert info["version"] == flashrank_lite.__version__
    assert info["model"] == "nano"
    assert info["head"] == "logit"
    assert {"precision", "max_length", "activation", "batch_invariant"} <= set(info)


def test_a_closed_ranker_says_so() -> None:
    with Ranker() as ranker:
        ranker.score(QUERY, PASSAGES[:1])
    ranker.close()
    for ask in (ranker.rank, ranker.score):
        with pytest.raises(RankerClosed, match="make a new Ranker"):
            ask(QUERY, PASSAGES)
    with pytest.raises(RankerClosed, match="pickle"):
        pickle.dumps(ranker)
    assert ranker.info()["model"] == "nano"
