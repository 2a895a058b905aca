"""The LlamaIndex postprocessor inside LlamaIndex: an in-memory index, a query engine."""
# ruff: noqa: E402  # imports follow the skip

import asyncio
import json
import pickle
from typing import Any

import pytest
from integration_support import questions, require

from flashrank_lite import InvalidInput, Ranker

require("llama_index.core")

from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode

from flashrank_lite.integrations.llama_index import FlashRankLiteRerank


@pytest.fixture(scope="module")
def rerank() -> FlashRankLiteRerank:
    return FlashRankLiteRerank(top_n=3)


@pytest.fixture
def nodes() -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(text=text, id_=f"n{n}"), score=1 / (n + 1))
        for n, text in enumerate(questions()[0][1])
    ]


def best(ranker: Ranker, count: int) -> list[str]:
    query, texts = questions()[0]
    return [hit.text for hit in ranker.rank(query, texts, count)]


def test_in_a_query_engine_over_an_in_memory_index(
    rerank: FlashRankLiteRerank, nodes: list[NodeWithScore], ranker: Ranker
) -> None:
    index = VectorStoreIndex([node.node for node in nodes], embed_model=MockEmbedding(8))
    engine = RetrieverQueryEngine.from_args(
        index.as_retriever(similarity_top_k=99), llm=MockLLM(), node_postprocessors=[rerank]
    )
    query = questions()[0][0]
    for response in (engine.query(query), asyncio.run(engine.aquery(query))):
        assert [node.node.text for node in response.source_nodes] == best(ranker, 3)
        scores = [node.score for node in response.source_nodes]
        assert scores == sorted(scores, reverse=True)
        assert all(type(score) is float for score in scores)


def test_the_nodes_given_keep_their_scores_and_metadata(nodes: list[NodeWithScore]) -> None:
    rerank = FlashRankLiteRerank(top_n=2, keep_retrieval_score=True)
    before = [node.model_dump_json() for node in nodes]
    kept = rerank.postprocess_nodes(nodes, query_str=questions()[0][0])
    assert [node.model_dump_json() for node in nodes] == before
    for node in kept:
        source = next(given for given in nodes if given.node_id == node.node_id)
        assert node.node.metadata["retrieval_score"] == source.score
    assert json.dumps([node.to_dict() for node in kept])


def test_nodes_that_share_an_id_are_scored_each_on_its_own(
    rerank: FlashRankLiteRerank, ranker: Ranker
) -> None:
    query, texts = questions()[0]
    nodes = [NodeWithScore(node=TextNode(text=text, id_="same")) for text in texts[:4]]
    kept = FlashRankLiteRerank(ranker=ranker, top_n=None).postprocess_nodes(nodes, query_str=query)
    expected = ranker.rank(query, texts[:4])
    assert [(n.node.text, n.score) for n in kept] == [(hit.text, hit.score) for hit in expected]


def test_metadata_is_read_or_left_out_as_told(ranker: Ranker) -> None:
    query, texts = questions()[0]
    node = TextNode(text=texts[0], metadata={"title": "Comb jellies"})
    for mode in (MetadataMode.EMBED, MetadataMode.NONE):
        rerank = FlashRankLiteRerank(ranker=ranker, metadata_mode=mode)
        (kept,) = rerank.postprocess_nodes([NodeWithScore(node=node)], query_str=query)
        expected = ranker.score(query, [node.get_content(metadata_mode=mode)])[0]
        assert kept.score == pytest.approx(float(expected), abs=1e-6)


class Heard(BaseEventHandler):
    """Keeps what was dispatched."""

    events: list[Any] = []  # noqa: RUF012  # a field of pydantic, copied for each instance

    def handle(self, event: Any, **unused: Any) -> None:
        self.events.append(event)


class Called(BaseCallbackHandler):
    """Keeps the reranking events of the older callback system."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.seen: list[tuple[str, dict[Any, Any]]] = []

    def on_event_start(self, event_type: Any, payload: Any = None, **unused: Any) -> str:
        if event_type == CBEventType.RERANKING:
            self.seen.append(("start", payload))
        return ""

    def on_event_end(self, event_type: Any, payload: Any = None, **unused: Any) -> None:
        if event_type == CBEventType.RERANKING:
            self.seen.append(("end", payload))

    def start_trace(self, trace_id: str | None = None) -> None: ...

    def end_trace(self, trace_id: str | None = None, trace_map: Any = None) -> None: ...


@pytest.mark.parametrize("asynchronous", [False, True])
def test_both_event_systems_hear_of_it(
    nodes: list[NodeWithScore], ranker: Ranker, asynchronous: bool
) -> None:
    heard, called = Heard(), Called()
    rerank = FlashRankLiteRerank(ranker=ranker, top_n=2, callback_manager=CallbackManager([called]))
    root = get_dispatcher()
    root.add_event_handler(heard)
    try:
        query = questions()[0][0]
        if asynchronous:
            kept = asyncio.run(rerank.apostprocess_nodes(nodes, query_str=query))
        else:
            kept = rerank.postprocess_nodes(nodes, query_str=query)
    finally:
        root.event_handlers.remove(heard)
    events = {event.class_name(): event for event in heard.events}
    start, end = events["ReRankStartEvent"], events["ReRankEndEvent"]
    assert (start.query, start.top_n, start.model_name) == (query, 2, ranker.info()["model"])
    assert [node.node_id for node in end.nodes] == [node.node_id for node in kept]
    (_, before), (_, after) = called.seen
    assert before[EventPayload.QUERY_STR] == query
    assert len(before[EventPayload.NODES]) == len(nodes)
    assert [node.node_id for node in after[EventPayload.NODES]] == [n.node_id for n in kept]


def test_it_is_written_and_read_as_other_components(nodes: list[NodeWithScore]) -> None:
    rerank = FlashRankLiteRerank(top_n=2, options={"threads": 1})
    query = questions()[0][0]
    expected = [node.node_id for node in rerank.postprocess_nodes(nodes, query_str=query)]
    written = json.loads(json.dumps(rerank.to_dict()))
    assert written["class_name"] == "FlashRankLiteRerank"
    for copy in (FlashRankLiteRerank.from_dict(written), pickle.loads(pickle.dumps(rerank))):
        assert [n.node_id for n in copy.postprocess_nodes(nodes, query_str=query)] == expected


def test_no_nodes_and_no_query(rerank: FlashRankLiteRerank, nodes: list[NodeWithScore]) -> None:
    assert rerank.postprocess_nodes([], query_str="a query") == []
    assert asyncio.run(rerank.apostprocess_nodes([], query_str="a query")) == []
    with pytest.raises(InvalidInput, match="query_str"):
        rerank.postprocess_nodes(nodes)
