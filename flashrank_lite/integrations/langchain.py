"""A document compressor for LangChain (extra `[langchain]`).

from langchain_classic.retrievers import ContextualCompressionRetriever
from flashrank_lite.integrations.langchain import FlashRankLiteRerank

ContextualCompressionRetriever(
    base_compressor=FlashRankLiteRerank(top_n=5), base_retriever=retriever
)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flashrank_lite.hits import RankedPassage
from flashrank_lite.integrations.opening import need, open_ranker
from flashrank_lite.ranker import Ranker

need("langchain_core", "langchain")

from langchain_core.callbacks import Callbacks  # noqa: E402
from langchain_core.documents import BaseDocumentCompressor, Document  # noqa: E402
from pydantic import ConfigDict, Field, PrivateAttr  # noqa: E402


class FlashRankLiteRerank(BaseDocumentCompressor):
    """Keeps the documents that a cross-encoder finds most relevant to the query, best first.

    The documents are copied: metadata `relevance_score` of a copy is its score, a float. The model
    is opened once, when the compressor is made.

    Attributes:
        model: as for `flashrank_lite.Ranker`; None for the bundled one.
        top_n: how many documents to keep; None for all.
        score_threshold: the least score to keep; None for no threshold.
        prefix_metadata: comes before "relevance_score".
        options: further arguments of `flashrank_lite.Ranker`.
        ranker: an open ranker to use instead of opening one.
    """

    model: str | Path | None = None
    top_n: int | None = Field(default=3, ge=1)
    score_threshold: float | None = None
    prefix_metadata: str = ""
    options: dict[str, Any] = Field(default_factory=dict)
    ranker: Ranker | None = Field(default=None, exclude=True, repr=False)

    model_config = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True
    )

    _ranker: Ranker = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Open the model."""
        self._ranker = self.ranker or open_ranker(self.model, self.options)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The best documents, best first, as copies.

        Raises:
            FlashRankLiteError: as `Ranker.rank` raises it.
        """
        hits = self._ranker.rank(
            query, _texts(documents), self.top_n, min_score=self.score_threshold
        )
        return self._kept(documents, hits)

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """`compress_documents` off the event loop; it stops when its task is cancelled."""
        hits = await self._ranker.arank(
            query, _texts(documents), self.top_n, min_score=self.score_threshold
        )
        return self._kept(documents, hits)

    def _kept(self, documents: Sequence[Document], hits: list[RankedPassage]) -> list[Document]:
        return [
            documents[hit.index].model_copy(
                update={
                    "metadata": {
                        **documents[hit.index].metadata,
                        f"{self.prefix_metadata}relevance_score": hit.score,
                    }
                }
            )
            for hit in hits
        ]


def _texts(documents: Sequence[Document]) -> list[str]:
    return [document.page_content for document in documents]
