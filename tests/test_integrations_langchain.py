"""The LangChain compressor inside LangChain: an in-memory store, its retriever, a chain."""
# ruff: noqa: E402  # imports follow the skip

import asyncio
import json
from functools import wraps
from typing import Any

import pytest
from integration_support import questions, require

from flashrank_lite import Ranker

require("langchain_core", "langchain_classic")

from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError

from flashrank_lite.integrations.langchain import FlashRankLiteRerank


@pytest.fixture(scope="module")
def rerank() -> FlashRankLiteRerank:
    return FlashRankLiteRerank(top_n=3)


@pytest.fixture
def documents() -> list[Document]:
    return [
        Document(text, id=f"d{n}", metadata={"n": n, "tags": ["a"]})
        for n, text in enumerate(questions()[0][1])
    ]


def best(ranker: Ranker, count: int) -> list[str]:
    query, texts = questions()[0]
    return [hit.text for hit in ranker.rank(query, texts, count)]


def test_in_a_compression_retriever_over_an_in_memory_store(
    rerank: FlashRankLiteRerank, documents: list[Document], ranker: Ranker
) -> None:
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=32))
    store.add_documents(documents)
    retriever = ContextualCompressionRetriever(
        base_compressor=rerank, base_retriever=store.as_retriever(search_kwargs={"k": 99})
    )
    chain = retriever | RunnableLambda(lambda found: [d.page_content for d in found])
    query = questions()[0][0]
    assert chain.invoke(query) == best(ranker, 3)
    assert asyncio.run(chain.ainvoke(query)) == best(ranker, 3)


def test_documents_are_copied_and_carry_a_float(
    rerank: FlashRankLiteRerank, documents: list[Document]
) -> None:
    before = [document.model_copy(deep=True) for document in documents]
    kept = rerank.compress_documents(documents, questions()[0][0])
    assert documents == before
    for document in kept:
        source = documents[document.metadata["n"]]
        assert document is not source
        assert document.id == source.id
        score = document.metadata["relevance_score"]
        assert document.metadata == {**source.metadata, "relevance_score": score}
        assert type(score) is float
        assert json.dumps(document.metadata)


def test_sync_and_async_agree(rerank: FlashRankLiteRerank, documents: list[Document]) -> None:
    query = questions()[0][0]
    later = asyncio.run(rerank.acompress_documents(documents, query))
    assert later == rerank.compress_documents(documents, query)
    assert rerank.compress_documents([], query) == []


def test_a_threshold_keeps_what_reaches_it(documents: list[Document], ranker: Ranker) -> None:
    query, texts = questions()[0]
    scores = sorted(ranker.score(query, texts).tolist(), reverse=True)
    threshold = (scores[1] + scores[2]) / 2
    rerank = FlashRankLiteRerank(
        ranker=ranker, top_n=None, score_threshold=threshold, prefix_metadata="ce_"
    )
    kept = rerank.compress_documents(documents, query)
    assert [d.metadata["ce_relevance_score"] for d in kept] == pytest.approx(scores[:2])


def test_the_model_is_opened_once(
    documents: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    real = Ranker.__init__

    @wraps(real)  # options are checked against its signature
    def counted(self: Ranker, *arguments: Any, **more: Any) -> None:
        opened.append(arguments)
        real(self, *arguments, **more)

    monkeypatch.setattr(Ranker, "__init__", counted)
    rerank = FlashRankLiteRerank(options={"threads": 1, "max_length": 64})
    for _ in range(3):
        rerank.compress_documents(documents, "a query")
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"options": {"max_len": 9}}, "are no arguments"),
        ({"options": {"token": "secret"}}, "HF_TOKEN"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        FlashRankLiteRerank(**settings)
    assert "secret" not in str(caught.value)


def test_settings_are_checked_by_pydantic() -> None:
    with pytest.raises(ValueError, match="top_n"):
        FlashRankLiteRerank(top_n=0)
    with pytest.raises(ValueError, match="topn"):
        FlashRankLiteRerank(topn=3)
