"""Each client's dialect: what a body means, and the JSON that it is answered with."""

from typing import Any

import pytest
from conftest import PASSAGES, QUERY
from server_support import Server, needs, serving

needs("pydantic")

from flashrank_lite import Ranker  # noqa: E402
from flashrank_lite.call import Call, running  # noqa: E402
from flashrank_lite.hits import RankedPassage  # noqa: E402
from flashrank_lite.server.dialects import cohere, pairs, tei  # noqa: E402
from flashrank_lite.server.dialects.request import Ranking, RankingRequest  # noqa: E402
from flashrank_lite.server.refusals import Refusal  # noqa: E402
from flashrank_lite.server.settings import ModelSpec, Settings  # noqa: E402

TOKENS = 'flashrank_lite_tokens_total{model="nano"}'
HITS = [
    RankedPassage("second", 0.75, 1.0986, 1),
    RankedPassage("first", 0.25, -1.0986, 0, truncated=True),
]


def answer(request: RankingRequest, hits: list[RankedPassage] = HITS) -> Any:
    return request.shape(Ranking(request, "abc", "nano", hits, 34, 12.4, 1700000000))


@pytest.fixture(scope="module")
def server():
    models = (ModelSpec("nano"), ModelSpec("other"))
    with serving(Settings(models=models, aliases={"rerank-v3.5": "nano"})) as running:
        yield running


def test_texts_are_answered_as_text_embeddings_inference_does():
    request = tei.read({"query": "q", "texts": ["first", "second"]})
    assert answer(request) == [
        {"index": 1, "score": 0.75},
        {"index": 0, "score": 0.25, "truncated": True},
    ]


def test_tei_returns_text_and_raw_scores_when_asked():
    body = {"query": "q", "texts": ["first", "second"], "return_text": True, "raw_scores": True}
    assert answer(tei.read(body))[0] == {"index": 1, "score": 1.0986, "text": "second"}


@pytest.mark.parametrize("direction", ["left", "Left", "right", "Right"])
def test_tei_takes_truncation_fields_in_either_case(direction):
    body = {"query": "q", "texts": ["a"], "truncate": True, "truncation_direction": direction}
    request = tei.read(body)
    assert request.from_the_left == (direction.lower() == "left")
    assert request.refuse_truncation is False


def test_documents_are_answered_as_cohere_does():
    body = {"model": "nano", "query": "q", "documents": ["first", "second"]}
    assert answer(cohere.read(body, version=2)) == {
        "id": "abc",
        "object": "rerank",
        "created": 1700000000,
        "model": "nano",
        "results": [
            {"index": 1, "relevance_score": 0.75},
            {"index": 0, "relevance_score": 0.25, "truncated": True},
        ],
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": 34, "output_tokens": 0},
        },
        "usage": {"prompt_tokens": 34, "total_tokens": 34},
    }


def test_cohere_returns_documents_as_objects_with_their_other_fields():
    documents = ["first", {"text": "second", "url": "https://example.org"}]
    body = {"query": "q", "documents": documents, "return_documents": True}
    results = answer(cohere.read(body))["results"]
    assert results[0]["document"] == {"text": "second", "url": "https://example.org"}
    assert results[1]["document"] == {"text": "first"}


def test_rank_fields_choose_what_is_ranked_of_an_object():
    documents = [{"title": "A", "body": "one", "x": 1}, {"title": "B"}]
    body = {"query": "q", "documents": documents, "rank_fields": ["title", "body"]}
    assert cohere.read(body).pairs == [("q", "title: A\nbody: one"), ("q", "title: B")]


def test_a_field_that_cannot_be_obeyed_is_said_so():
    body = {"query": "q", "documents": ["first", "second"], "truncate_prompt_tokens": 100}
    assert "truncate_prompt_tokens was ignored" in answer(cohere.read(body))["meta"]["warnings"][0]


@pytest.mark.parametrize("infinity", [{"raw_scores": False}, {}], ids=["by field", "by path"])
def test_infinity_gets_documents_as_bare_texts(infinity):
    body = {"query": "q", "documents": ["first", "second"], "return_documents": True, **infinity}
    results = answer(cohere.read(body, infinity=not infinity))["results"]
    assert results[0] == {"index": 1, "relevance_score": 0.75, "document": "second"}


def test_infinity_gets_null_where_no_documents_are_asked_for():
    body = {"query": "q", "documents": ["first", "second"], "raw_scores": True}
    assert answer(cohere.read(body))["results"][0] == {
        "index": 1,
        "relevance_score": 1.0986,
        "document": None,
    }


def test_metarank_gets_logits_in_the_order_of_its_pairs():
    body = {"input": [{"query": "q", "text": "first"}, {"query": "r", "text": "second"}]}
    request = pairs.read_metarank(body, "nano")
    assert request.pairs == [("q", "first"), ("r", "second")]
    assert answer(request, HITS[::-1]) == {"scores": [-1.0986, 1.0986], "took": 12}


def test_score_is_answered_as_vllm_does():
    request = pairs.read_score({"model": "m", "text_1": "q", "text_2": ["first", "second"]})
    assert answer(request, HITS[::-1]) == {
        "id": "abc",
        "object": "list",
        "created": 1700000000,
        "model": "nano",
        "data": [
            {"index": 0, "object": "score", "score": 0.25, "truncated": True},
            {"index": 1, "object": "score", "score": 0.75},
        ],
        "usage": {"prompt_tokens": 34, "total_tokens": 34},
    }


@pytest.mark.parametrize(
    ("read", "body", "said"),
    [
        (tei.read, {"texts": ["a"]}, "query: Field required"),
        (tei.read, {"query": "q", "texts": ["a", 1]}, "texts[1]"),
        (tei.read, {"query": "q", "texts": []}, "texts holds no text"),
        (cohere.read, {"query": "q", "documents": [{"x": "secret"}]}, "documents[0]"),
        (cohere.read, {"query": "q", "documents": ["a"], "top_n": 0}, "top_n"),
        (pairs.read_score, {"text_1": "q"}, "text_2: Field required"),
        (pairs.read_score, {"text_1": ["q", "r"], "text_2": ["a", "b", "c"]}, "2 texts"),
    ],
)
def test_a_wrong_body_is_refused_with_the_field_and_without_its_text(read, body, said):
    with pytest.raises(Refusal, match=r".") as caught:
        read(body)
    assert said in caught.value.message
    assert "secret" not in caught.value.message
    assert caught.value.status in (400, 422)


def test_the_server_tells_the_dialect_from_the_body(server: Server):
    bare = server.post("/v1/rerank", {"query": QUERY, "texts": PASSAGES}).json
    rich = server.post("/rerank", {"query": QUERY, "documents": PASSAGES}).json
    assert [hit["index"] for hit in bare] == [hit["index"] for hit in rich["results"]]
    assert bare[0]["index"] == 0
    assert len(bare) == len(PASSAGES)


def test_scores_are_those_of_the_library(server: Server, ranker):
    hits = ranker.rank(QUERY, PASSAGES)
    found = server.post("/rerank", {"query": QUERY, "texts": PASSAGES}).json
    assert [hit["index"] for hit in found] == [hit.index for hit in hits]
    scores = [hit["score"] for hit in found]
    assert scores == pytest.approx([hit.score for hit in hits], abs=1e-5)


def test_metarank_is_answered_on_its_own_path(server: Server, ranker):
    body = {"input": [{"query": QUERY, "text": text} for text in PASSAGES]}
    answered = server.post("/inference/cross/nano", body).json
    logits = {hit.index: hit.logit for hit in ranker.rank(QUERY, PASSAGES)}
    expected = [logits[index] for index in range(len(PASSAGES))]
    assert answered["scores"] == pytest.approx(expected, abs=1e-4)
    assert server.post("/inference/cross/nothing", body).status == 404


def test_min_score_and_top_n_cut_the_answer(server: Server):
    body = {"query": QUERY, "documents": PASSAGES, "min_score": 0.5}
    some = server.post("/rerank", body).json["results"]
    assert 0 < len(some) < len(PASSAGES)
    assert all(hit["relevance_score"] >= 0.5 for hit in some)
    assert len(server.post("/rerank", {**body, "top_n": 1}).json["results"]) == 1


def test_a_long_passage_is_read_in_windows_and_the_best_is_said(server: Server):
    filler = "Butter melts at about 32 degrees. " * 80
    long = f"{filler}{PASSAGES[0]} {filler}"
    body = {"query": QUERY, "texts": [filler, long]}
    best = server.post("/rerank", body).json[0]
    start, end = best["span"]
    assert best["index"] == 1
    assert PASSAGES[0][:60] in long[start:end]
    beginning = server.post("/rerank", {**body, "long": "truncate"}).json
    assert {hit["index"] for hit in beginning if hit.get("truncated")} == {0, 1}
    assert "span" not in beginning[0]
    assert server.post("/rerank", {**body, "long": "somehow"}).status == 422


def test_fusion_blends_with_the_first_stages_scores_or_its_order(server: Server):
    scores = [float(n) for n in range(len(PASSAGES))]
    body = {"query": QUERY, "texts": PASSAGES, "fusion": "linear", "weight": 0.5}
    given = server.post("/rerank", {**body, "scores": scores}).json
    passages = [{"text": t, "score": s} for t, s in zip(PASSAGES, scores, strict=True)]
    with Ranker(fusion="linear", weight=0.5) as blended:
        expected = blended.rank(QUERY, passages)
        in_order = blended.rank(QUERY, PASSAGES)
    assert [hit["index"] for hit in given] == [hit.index for hit in expected]
    assert [hit["score"] for hit in given] == pytest.approx([hit.score for hit in expected])
    ordered = server.post("/rerank", body).json
    assert [hit["index"] for hit in ordered] == [hit.index for hit in in_order]
    refused = server.post("/rerank", {**body, "scores": scores[1:]})
    assert refused.status == 422
    assert "11 numbers for 12 passages" in refused.json["message"]


def test_unknown_fields_are_tolerated(server: Server):
    body = {"query": QUERY, "texts": PASSAGES, "nobody": {"knows": ["this"]}}
    assert server.post("/rerank", body).status == 200


def test_an_instruction_is_refused_by_a_model_that_takes_none(server: Server):
    body = {"query": QUERY, "texts": PASSAGES, "instruction": "find insects"}
    refused = server.post("/rerank", body)
    assert refused.status == 422
    assert "instruction" in refused.json["message"]


def test_a_model_is_chosen_by_name_or_alias_and_an_unknown_one_is_a_clear_404(server: Server):
    body = {"query": QUERY, "documents": PASSAGES}
    for name in ("nano", "other", "rerank-v3.5", "default/not-specified"):
        assert server.post("/rerank", {**body, "model": name}).status == 200
    unknown = server.post("/rerank", {**body, "model": "rerank-v9"})
    assert unknown.status == 404
    assert "nano, other, rerank-v3.5" in unknown.json["message"]


def test_info_is_enough_for_difys_provider(server: Server):
    info = server.get("/info").json
    assert list(info["model_type"]) == ["reranker"]
    assert info["max_input_length"] == 512
    assert info["max_client_batch_size"] > 0


def test_the_models_are_listed_with_their_aliases(server: Server):
    for path in ("/models", "/v1/models"):
        listed = server.get(path).json
        assert [(one["id"], one["aliases"]) for one in listed["data"]] == [
            ("nano", ["rerank-v3.5"]),
            ("other", []),
        ]


def test_a_lone_surrogate_is_mended_not_refused(server: Server):
    body = b'{"query": "fleas \\ud83d", "texts": ["a flea \\udc00"], "return_text": true}'
    answered = server.post("/rerank", body)
    assert answered.status == 200
    assert answered.json[0]["text"] == "a flea \ufffd"


def test_timing_headers_and_the_request_id(server: Server):
    body = {"query": QUERY, "texts": PASSAGES}
    headers = server.post("/rerank", body, **{"X-Request-Id": "mine-1"}).headers
    assert headers["x-request-id"] == "mine-1"
    names = ("compute", "total", "tokenization", "queue", "inference")
    times = {name: int(headers[f"x-{name}-time"]) for name in names}
    assert min(times.values()) >= 0
    parts = times["tokenization"] + times["queue"] + times["inference"]
    assert 0 < parts <= times["total"] + 2  # each is rounded
    assert int(headers["x-compute-characters"]) == sum(map(len, PASSAGES))
    forged = server.post("/rerank", body, **{"X-Request-Id": "a b"}).headers["x-request-id"]
    assert forged != "a b"


def test_tokens_are_those_that_were_read_in_answer_headers_metrics_and_log(server: Server, ranker):
    def counted() -> float:
        lines = server.get("/metrics").body.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(TOKENS))

    with running(Call()) as call:
        ranker.rank(QUERY, PASSAGES)
    (tokens,) = call.tokens
    before = counted()
    answered = server.post("/v2/rerank", {"query": QUERY, "documents": PASSAGES})
    assert answered.json["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert answered.json["meta"]["tokens"]["input_tokens"] == tokens
    assert answered.headers["x-compute-tokens"] == str(tokens)
    assert counted() == before + tokens


def test_of_each_document_no_more_tokens_are_read_than_the_client_wants(server: Server, ranker):
    body = {"query": QUERY, "documents": PASSAGES, "max_tokens_per_doc": 10}
    answered = server.post("/v2/rerank", body).json
    expected = ranker.rank(QUERY, PASSAGES, passage_tokens=10)
    found = [(hit["index"], hit.get("truncated", False)) for hit in answered["results"]]
    assert found == [(hit.index, hit.truncated) for hit in expected]
    scores = [hit["relevance_score"] for hit in answered["results"]]
    assert scores == pytest.approx([hit.score for hit in expected], abs=1e-5)
    assert "warnings" not in answered["meta"]
    assert answered["usage"]["total_tokens"] < 12 * len(PASSAGES) + 20
    assert server.post("/v2/rerank", {**body, "max_tokens_per_doc": 0}).status == 422
