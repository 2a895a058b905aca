"""The bundled model read apart: what the graph itself says, whoever asks and in what order."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PASSAGES, QUERY

from flashrank_lite import InvalidInput, InvalidModel, Ranker
from flashrank_lite.cross_encoder import CrossEncoder
from flashrank_lite.late_interaction import LateInteraction
from flashrank_lite.models.packages import bundled_folder
from flashrank_lite.opening import open_scorer
from flashrank_lite.options import ModelOptions
from flashrank_lite.scorer import Candidates

LONG = " ".join(PASSAGES)
TEXTS = [*PASSAGES, "", "flea", LONG]


def test_states_that_are_compared_give_the_logits_of_the_graph(ranker: Ranker) -> None:
    whole = CrossEncoder(options=ModelOptions())  # the graph compares
    try:
        for query in (QUERY, "", "[SEP] flea", "how tall is Mount Everest in metres"):
            (expected,) = whole.score([Candidates(query, TEXTS)])
            found = ranker.score(query, TEXTS, activation="raw", long="truncate")
            np.testing.assert_allclose(found, expected.logits, atol=2e-5)
    finally:
        whole.close()


def test_the_manifest_decides_the_family(ranker: Ranker) -> None:
    assert isinstance(ranker.passage_reader(), LateInteraction)
    scorer = open_scorer(None, ModelOptions())
    assert isinstance(scorer, LateInteraction)
    scorer.close()


def test_many_queries_over_one_list_score_as_one_by_one(ranker: Ranker) -> None:
    queries = [QUERY, "what is Rust", QUERY, "melting point of butter"]
    lists = [TEXTS, PASSAGES[::-1], PASSAGES[:3], []]
    many = ranker.rank_many(queries, lists)
    for query, texts, hits in zip(queries, lists, many, strict=True):
        alone = {hit.index: hit.logit for hit in ranker.rank(query, texts)}
        assert {hit.index: hit.logit for hit in hits} == pytest.approx(alone, abs=2e-5)


def test_a_text_that_a_long_query_cuts_shorter_is_read_for_each_query(ranker: Ranker) -> None:
    words = "Fleas live in warm carpets, and the eggs hatch there. " * 60
    queries = ["flea", "how long does a flea live in a carpet, when it is warm and damp " * 6]
    many = ranker.rank_many(queries, [[words], [words]], long="truncate")
    for query, (hit,) in zip(queries, many, strict=True):
        (alone,) = ranker.rank(query, [words], long="truncate")
        assert hit.truncated
        assert hit.logit == pytest.approx(alone.logit, abs=2e-5)


def test_an_unpickled_ranker_scores_the_same_with_its_cache() -> None:
    with Ranker(passage_cache="1MB") as first:
        scores = first.score(QUERY, PASSAGES)
        with pickle.loads(pickle.dumps(first)) as second:
            np.testing.assert_array_equal(second.score(QUERY, PASSAGES), scores)
            assert second.info()["passage_cache"]["limit"] == 1_000_000


# The cache


def test_a_cached_passage_scores_the_same_as_when_it_was_new() -> None:
    with Ranker(passage_cache="8MB") as ranker:
        new = ranker.score(QUERY, TEXTS)
        again = ranker.score(QUERY, TEXTS[::-1])[::-1]
        np.testing.assert_allclose(again, new, atol=1e-6)
        info = ranker.info()["passage_cache"]
    assert info["hits"] >= len(TEXTS)
    assert info["passages"] >= len(TEXTS)
    json.dumps(info)


def test_the_order_with_a_cache_is_that_without(ranker: Ranker) -> None:
    with Ranker(passage_cache="8MB") as cached:
        found = cached.score(QUERY, TEXTS, activation="raw")
    np.testing.assert_allclose(found, ranker.score(QUERY, TEXTS, activation="raw"), atol=0.05)


def test_a_cache_keeps_to_its_bytes_and_drops_what_was_used_longest_ago() -> None:
    with Ranker(passage_cache=40_000) as ranker:
        for text in PASSAGES:
            ranker.score(QUERY, [text])
            assert ranker.info()["passage_cache"]["bytes"] <= 40_000
        kept = ranker.info()["passage_cache"]["passages"]
        assert 0 < kept < len(PASSAGES)
        before = ranker.info()["passage_cache"]["hits"]
        ranker.score(QUERY, [PASSAGES[-1]])
        assert ranker.info()["passage_cache"]["hits"] == before + 1
        ranker.score(QUERY, [PASSAGES[0]])
        assert ranker.info()["passage_cache"]["hits"] == before + 1


@pytest.mark.parametrize("size", ["64", "MB", "64 apples", 0, -1, 1.5, True])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(InvalidInput, match="passage_cache must be a number of bytes"):
        Ranker(passage_cache=size)


# Models that read query and passage together


def test_a_model_that_reads_pairs_keeps_nothing(toy_folder: Any, tmp_path: Path) -> None:
    from conftest import toy_graph

    folder = toy_folder(toy_graph(), {"num_labels": 1})
    with Ranker(folder) as ranker, pytest.raises(InvalidInput, match="reads query and passage tog"):
        ranker.encode_passages(PASSAGES, tmp_path / "a.store")
    with pytest.raises(InvalidInput, match="passage_cache"):
        Ranker(folder, passage_cache="1MB")


@pytest.mark.parametrize(
    ("stated", "said"), [([], "no object"), ({"maxsim": "much"}, "must be a number")]
)
def test_a_manifest_that_states_no_head_is_refused(tmp_path: Path, stated: Any, said: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in bundled_folder().iterdir():
        (folder / file.name).symlink_to(file)
    manifest = json.loads((bundled_folder() / "reranker.json").read_text())
    manifest["late_interaction"] = stated
    (folder / "reranker.json").unlink()
    (folder / "reranker.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidModel, match=said):
        Ranker(folder)
