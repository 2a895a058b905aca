"""The Haystack component inside Haystack: a document store in memory, its retriever, pipelines."""
# ruff: noqa: E402  # imports follow the skip

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from integration_support import questions, require

from flashrank_lite import InvalidInput, Ranker

require("haystack")

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from flashrank_lite.integrations.haystack import FlashRankLiteRanker

ALLOWED = "flashrank_lite.integrations.*"  # Haystack 3 opens nothing else than its own


@pytest.fixture
def documents() -> list[Document]:
    return [
        Document(id=f"d{n}", content=text, meta={"n": n})
        for n, text in enumerate(questions()[0][1])
    ]


@pytest.fixture(scope="module")
def component() -> FlashRankLiteRanker:
    component = FlashRankLiteRanker(top_k=3)
    component.warm_up()
    return component


def pipeline_of(documents: list[Document], top_k: int = 3) -> Pipeline:
    store = InMemoryDocumentStore()
    store.write_documents(documents)
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store, top_k=99))
    pipeline.add_component("ranker", FlashRankLiteRanker(top_k=top_k))
    pipeline.connect("retriever.documents", "ranker.documents")
    return pipeline


def best(ranker: Ranker, count: int) -> list[str]:
    query, texts = questions()[0]
    return [hit.text for hit in ranker.rank(query, texts, count)]


def inputs(query: str) -> dict[str, Any]:
    return {"retriever": {"query": query}, "ranker": {"query": query}}


def test_in_a_pipeline_over_an_in_memory_store(documents: list[Document], ranker: Ranker) -> None:
    pipeline = pipeline_of(documents)
    found = pipeline.run(inputs(questions()[0][0]))["ranker"]["documents"]
    assert [document.content for document in found] == best(ranker, 3)
    assert all(type(document.score) is float for document in found)


def test_in_a_pipeline_that_runs_async(documents: list[Document], ranker: Ranker) -> None:
    pipeline = pipeline_of(documents)
    found = asyncio.run(pipeline.run_async(inputs(questions()[0][0])))["ranker"]["documents"]
    assert [document.content for document in found] == best(ranker, 3)


def test_a_pipeline_is_written_and_read(documents: list[Document], ranker: Ranker) -> None:
    written = pipeline_of(documents, top_k=2).dumps()
    assert "flashrank_lite.integrations.haystack.FlashRankLiteRanker" in written
    component = Pipeline.loads(written, allowed_modules=[ALLOWED]).get_component("ranker")
    found = component.run(questions()[0][0], documents)["documents"]
    assert [document.content for document in found] == best(ranker, 2)


def test_settings_survive_to_dict_and_from_dict() -> None:
    settings = {
        "model": None,
        "top_k": 7,
        "score_threshold": 0.2,
        "meta_fields_to_embed": ["title"],
        "meta_data_separator": " | ",
        "options": {"threads": 1},
    }
    written = FlashRankLiteRanker(**settings).to_dict()
    assert written["init_parameters"] == settings
    assert FlashRankLiteRanker.from_dict(written).to_dict() == written


def test_documents_are_copied(component: FlashRankLiteRanker, documents: list[Document]) -> None:
    before = [replace(document) for document in documents]
    found = component.run(questions()[0][0], documents)["documents"]
    assert documents == before
    assert all(document.score is None for document in documents)
    assert {document.id for document in found} <= {document.id for document in documents}


def test_run_and_run_async_agree(component: FlashRankLiteRanker, documents: list[Document]) -> None:
    query = questions()[0][0]
    later = asyncio.run(component.run_async(query, documents, top_k=5))
    assert later == component.run(query, documents, top_k=5)
    assert len(later["documents"]) == 5
    assert component.run(query, []) == {"documents": []}


def test_the_model_is_opened_once_by_warm_up_or_run(
    documents: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    real = Ranker.__init__

    def counted(self: Ranker, *arguments: Any, **settings: Any) -> None:
        opened.append(arguments)
        real(self, *arguments, **settings)

    monkeypatch.setattr(Ranker, "__init__", counted)
    component = FlashRankLiteRanker()
    assert not opened
    component.warm_up()
    component.warm_up()
    component.run("a query", documents)
    assert len(opened) == 1


def test_a_document_that_came_twice_is_ranked_once_and_same_ids_stay_apart(
    component: FlashRankLiteRanker,
) -> None:
    query, texts = questions()[0]
    twice = [Document(id="a", content=texts[0]), Document(id="a", content=texts[0])]
    apart = [Document(id="b", content=texts[1]), Document(id="b", content=texts[2])]
    found = component.run(query, twice + apart, top_k=9)["documents"]
    assert sorted(document.content or "" for document in found) == sorted(texts[:3])


def test_metadata_is_read_before_the_content(ranker: Ranker) -> None:
    query, texts = questions()[0]
    component = FlashRankLiteRanker(
        meta_fields_to_embed=["title", "absent"], meta_data_separator=" - "
    )
    documents = [Document(content=texts[0], meta={"title": "T"}), Document(meta={"title": query})]
    scores = {d.id: d.score for d in component.run(query, documents)["documents"]}
    expected = ranker.score(query, [f"T - {texts[0]}", f"{query} - "])
    assert [scores[d.id] for d in documents] == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_threshold_keeps_what_reaches_it(
    component: FlashRankLiteRanker, documents: list[Document]
) -> None:
    query = questions()[0][0]
    scores = [d.score for d in component.run(query, documents, top_k=99)["documents"]]
    kept = component.run(query, documents, top_k=99, score_threshold=scores[1])["documents"]
    assert [document.score for document in kept] == scores[:2]


@pytest.mark.parametrize("top_k", [0, -1, True])
def test_top_k_has_to_be_positive(component: FlashRankLiteRanker, top_k: Any) -> None:
    with pytest.raises(InvalidInput, match="top_k"):
        FlashRankLiteRanker(top_k=top_k)
    with pytest.raises(InvalidInput, match="top_k"):
        component.run("a query", [], top_k=top_k)


def test_no_token_is_written_into_a_pipeline() -> None:
    with pytest.raises(InvalidInput, match="HF_TOKEN"):
        FlashRankLiteRanker(options={"token": "secret"})
