"""How many tokens a call reads, exactly; and the bound that a caller may set for a passage."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PASSAGES, QUERY
from scorers import SharedWords
from tokenizers import Tokenizer

from flashrank_lite import InvalidInput, Ranker
from flashrank_lite.call import Call, running
from flashrank_lite.cross_encoder import CrossEncoder
from flashrank_lite.models.packages import bundled_folder
from flashrank_lite.opening import open_scorer
from flashrank_lite.options import ModelOptions
from flashrank_lite.strategies.cascade import Cascade

LONG = " ".join(f"{n} {text}" for n in range(8) for text in PASSAGES)  # no window is like another


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """The bundled model's own."""
    tokenizer = Tokenizer.from_file(str(bundled_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    return tokenizer


def tokens_of(ranker: Ranker, query: str, passages: Any, **options: Any) -> int:
    with running(Call()) as call:
        ranker.rank(query, passages, **options)
    (tokens,) = call.tokens
    return tokens


def pair(tokenizer: Tokenizer, query: str, text: str) -> int:
    return len(tokenizer.encode(query, text).ids)


def apart(tokenizer: Tokenizer, query: str, texts: list[str]) -> int:
    """Of a model that reads them apart: together the ids of the pair, but the query's once."""
    head = pair(tokenizer, query, "") - 1
    return head + sum(pair(tokenizer, query, text) - head for text in texts)


def test_a_pair_counts_as_the_tokenizer_encodes_it(tokenizer: Tokenizer) -> None:
    with Ranker(scorer=CrossEncoder()) as together:
        expected = sum(pair(tokenizer, QUERY, text) for text in PASSAGES)
        assert tokens_of(together, QUERY, PASSAGES) == expected
        assert tokens_of(together, QUERY, [*PASSAGES, PASSAGES[0]]) == expected  # read once
        limit = together.info()["max_length"]
        assert tokens_of(together, QUERY, [LONG], long="truncate") == limit


def test_a_model_that_reads_apart_counts_the_query_once(
    ranker: Ranker, tokenizer: Tokenizer
) -> None:
    assert tokens_of(ranker, QUERY, PASSAGES) == apart(tokenizer, QUERY, PASSAGES)
    assert tokens_of(ranker, QUERY, []) == 0


def test_each_list_of_a_call_has_its_own_count(ranker: Ranker, tokenizer: Tokenizer) -> None:
    queries = [QUERY, "what is Rust", QUERY]
    lists = [PASSAGES, PASSAGES[:3], []]
    with running(Call()) as call:
        ranker.rank_many(queries, lists)
    expected = [
        apart(tokenizer, query, texts) if texts else 0
        for query, texts in zip(queries, lists, strict=True)
    ]
    assert call.tokens == expected


def test_windows_add_up(ranker: Ranker, tokenizer: Tokenizer) -> None:
    at_once = tokens_of(ranker, QUERY, [LONG], long="truncate")
    with running(Call()) as call:
        (hit,) = ranker.rank(QUERY, [LONG], long="windows")
    assert not hit.truncated
    # those that lie in two windows are read twice
    assert call.tokens[0] > pair(tokenizer, "", LONG) > 4 * at_once


def test_the_stages_of_a_cascade_add_up(ranker: Ranker) -> None:
    together = CrossEncoder()
    cascade = Cascade([open_scorer(None, ModelOptions()), together], keep=[2])
    with Ranker(scorer=cascade) as both:
        first, second = both.rank(QUERY, PASSAGES, top_k=2)
        expected = tokens_of(ranker, QUERY, PASSAGES)
        alone = Ranker(scorer=together)
        expected += tokens_of(alone, QUERY, [first.text, second.text])
        assert tokens_of(both, QUERY, PASSAGES) == expected


def test_what_was_read_before_counts_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    query = apart(tokenizer, QUERY, [])
    with Ranker(passage_cache="10MB") as caching:
        whole = apart(tokenizer, QUERY, PASSAGES)
        assert tokens_of(caching, QUERY, PASSAGES) == whole
        assert tokens_of(caching, QUERY, PASSAGES) == query
        one_more = [*PASSAGES, "a text of its own"]
        assert tokens_of(caching, QUERY, one_more) == apart(tokenizer, QUERY, one_more[-1:])
        store = caching.encode_passages(PASSAGES, tmp_path / "store")
        assert tokens_of(caching, QUERY, store) == query


def test_a_part_of_a_call_counts_in_the_whole_and_tokenising_is_timed(ranker: Ranker) -> None:
    with running(Call()) as call:
        ranker.rank(QUERY, PASSAGES, progress=lambda done, total: None)  # a call of its own
        ranker.rank(QUERY, [LONG])
    assert len(call.tokens) == 2
    assert call.tokenizing_seconds > 0


@pytest.mark.parametrize("long", ["truncate", "windows"])
def test_a_passage_is_read_up_to_the_tokens_of_the_call(
    ranker: Ranker, tokenizer: Tokenizer, long: Any
) -> None:
    short, limit = PASSAGES[8], 600 if long == "windows" else 20
    texts = [LONG, short]
    hits = {hit.index: hit for hit in ranker.rank(QUERY, texts, passage_tokens=limit, long=long)}
    assert hits[0].truncated
    assert hits[0].text == LONG
    assert not hits[1].truncated
    own = tokenizer.encode(LONG, add_special_tokens=False)
    beginning = LONG[: own.offsets[limit - 1][1]]
    (alone,) = ranker.rank(QUERY, [beginning], long=long)
    assert hits[0].logit == pytest.approx(alone.logit, abs=2e-5)
    if long == "truncate":
        read = tokens_of(ranker, QUERY, [LONG], passage_tokens=limit, long=long)
        assert read == apart(tokenizer, QUERY, [beginning])
        assert len(tokenizer.encode(beginning, add_special_tokens=False).ids) == limit


@pytest.mark.parametrize("limit", range(1, 40))
def test_a_word_that_is_cut_has_no_more_tokens_than_it_may(
    ranker: Ranker, tokenizer: Tokenizer, limit: int
) -> None:
    text = "unaffable Lebensdauer ノミの寿命 antidisestablishmentarianism 8,849 " * 3
    read = tokens_of(ranker, QUERY, [text], passage_tokens=limit)
    around = apart(tokenizer, QUERY, [""])
    assert around < read <= around + limit


def test_the_bound_holds_for_every_way_to_rank(ranker: Ranker) -> None:
    texts = [*PASSAGES, LONG]
    hits = ranker.rank(QUERY, texts, passage_tokens=12)
    expected = {hit.index: hit.score for hit in hits}
    found = ranker.score(QUERY, texts, passage_tokens=12)
    np.testing.assert_allclose(found, [expected[n] for n in range(len(texts))], atol=2e-5)
    pairs = ranker.score_pairs([(QUERY, text) for text in texts], passage_tokens=12)
    np.testing.assert_allclose(pairs, found, atol=2e-5)
    (many,) = ranker.rank_many([QUERY], [texts], passage_tokens=12)
    assert [hit.index for hit in many] == [hit.index for hit in hits]


def test_a_bound_that_cannot_be_kept_is_refused(ranker: Ranker, tmp_path: Path) -> None:
    store = ranker.encode_passages(PASSAGES, tmp_path / "store")
    with pytest.raises(InvalidInput, match="those of a store were read before"):
        ranker.rank(QUERY, store, passage_tokens=10)
    with Ranker(scorer=SharedWords()) as words, pytest.raises(InvalidInput, match="token_spans"):
        words.rank(QUERY, PASSAGES, passage_tokens=10)
    with pytest.raises(InvalidInput, match="passage_tokens must be a positive whole number"):
        ranker.rank(QUERY, PASSAGES, passage_tokens=0)
