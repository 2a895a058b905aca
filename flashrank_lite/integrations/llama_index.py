"""A node postprocessor for LlamaIndex (extra `[llama-index]`).

from flashrank_lite.integrations.llama_index import FlashRankLiteRerank

index.as_query_engine(similarity_top_k=50, node_postprocessors=[FlashRankLiteRerank(top_n=5)])
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flashrank_lite.errors import InvalidInput
from flashrank_lite.hits import RankedPassage
from flashrank_lite.integrations.opening import need, open_ranker
from flashrank_lite.ranker import Ranker

need("llama_index.core", "llama-index")

from llama_index.core.bridge.pydantic import Field, PrivateAttr  # noqa: E402
from llama_index.core.callbacks import CBEventType, EventPayload  # noqa: E402
from llama_index.core.instrumentation import get_dispatcher  # noqa: E402
from llama_index.core.instrumentation.events.rerank import (  # noqa: E402
    ReRankEndEvent,
    ReRankStartEvent,
)
from llama_index.core.postprocessor.types import BaseNodePostprocessor  # noqa: E402
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle  # noqa: E402

RETRIEVAL_SCORE = "retrieval_score"
dispatcher = get_dispatcher(__name__)


class FlashRankLiteRerank(BaseNodePostprocessor):
    """Keeps the nodes that a cross-encoder finds most relevant to the query, best first.

    What comes back are new `NodeWithScore`; the nodes that were given keep their scores. Nodes that
    share an id are scored each on its own. The model is opened once, when this is made.

    Attributes:
        model: as for `flashrank_lite.Ranker`; None for the bundled one.
        top_n: how many nodes to keep; None for all.
        score_threshold: the least score to keep; None for no threshold.
        keep_retrieval_score: put the retriever's score into the metadata `retrieval_score` of a
            copy of the node.
        metadata_mode: which metadata the model reads with a node's text.
        options: further arguments of `flashrank_lite.Ranker`.
    """

    model: str | None = Field(default=None, description="Name or folder of the model.")
    top_n: int | None = Field(default=5, ge=1, description="How many nodes to keep.")
    score_threshold: float | None = Field(default=None, description="The least score to keep.")
    keep_retrieval_score: bool = Field(
        default=False, description="Keep the retriever's score in the node's metadata."
    )
    metadata_mode: MetadataMode = Field(
        default=MetadataMode.EMBED, description="Which metadata is read with the text."
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Further arguments of flashrank_lite.Ranker."
    )

    _ranker: Ranker = PrivateAttr()

    def __init__(self, ranker: Ranker | None = None, **settings: Any) -> None:
        """
        Args:
            ranker: an open ranker to use instead of opening one.
            **settings: the attributes.
        """
        super().__init__(**settings)
        self._ranker = ranker or open_ranker(self.model, self.options)

    @classmethod
    def class_name(cls) -> str:
        """What LlamaIndex calls this component when it writes it out."""
        return "FlashRankLiteRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query(query_bundle)
        if not nodes:
            return []
        with self._reported(nodes, query) as kept:
            hits = self._ranker.rank(
                query, self._texts(nodes), self.top_n, min_score=self.score_threshold
            )
            kept += self._kept(nodes, hits)
        return kept

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query(query_bundle)
        if not nodes:
            return []
        with self._reported(nodes, query) as kept:
            hits = await self._ranker.arank(
                query, self._texts(nodes), self.top_n, min_score=self.score_threshold
            )
            kept += self._kept(nodes, hits)
        return kept

    @contextmanager
    def _reported(self, nodes: list[NodeWithScore], query: str) -> Iterator[list[NodeWithScore]]:
        """Tell both of LlamaIndex's event systems; what is kept goes into the list."""
        name, top_n = self._ranker.info()["model"], self.top_n or len(nodes)
        kept: list[NodeWithScore] = []
        payload = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: top_n,
        }
        start = ReRankStartEvent(query=query, nodes=nodes, top_n=top_n, model_name=name)
        dispatcher.event(start)
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            yield kept
            event.on_end(payload={EventPayload.NODES: kept})
        dispatcher.event(ReRankEndEvent(nodes=kept))

    def _texts(self, nodes: list[NodeWithScore]) -> list[str]:
        return [node.node.get_content(metadata_mode=self.metadata_mode) for node in nodes]

    def _kept(self, nodes: list[NodeWithScore], hits: list[RankedPassage]) -> list[NodeWithScore]:
        return [NodeWithScore(node=self._node(nodes[hit.index]), score=hit.score) for hit in hits]

    def _node(self, scored: NodeWithScore) -> Any:
        if not self.keep_retrieval_score:
            return scored.node
        metadata = {**scored.node.metadata, RETRIEVAL_SCORE: scored.score}
        return scored.node.model_copy(update={"metadata": metadata})


def _query(bundle: QueryBundle | None) -> str:
    if bundle is None:
        raise InvalidInput("reranking needs the query: pass query_bundle or query_str")
    query: str = bundle.query_str
    return query
