"""A ranker component for Haystack 2 and later (extra `[haystack]`).

from flashrank_lite.integrations.haystack import FlashRankLiteRanker

pipeline.add_component("ranker", FlashRankLiteRanker(top_k=5))
pipeline.connect("retriever.documents", "ranker.documents")
"""

from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

from flashrank_lite.arguments import positive
from flashrank_lite.hits import RankedPassage
from flashrank_lite.integrations.opening import check_options, need, open_ranker
from flashrank_lite.ranker import Ranker

need("haystack", "haystack")

from haystack import Document, component, default_from_dict, default_to_dict  # noqa: E402


@component
class FlashRankLiteRanker:
    """Ranks documents with a cross-encoder, best first.

    The documents are copied, with the score set. A document that came twice (same id and content,
    as joined retrievers give) is ranked once.

    Args:
        model: as for `flashrank_lite.Ranker`; None for the bundled one.
        top_k: how many documents to return.
        score_threshold: the least score to return; None for no threshold.
        meta_fields_to_embed: metadata that the model reads before the content.
        meta_data_separator: comes between those fields, and before the content.
        options: further arguments of `flashrank_lite.Ranker`.

    Raises:
        InvalidInput: `top_k` is not a positive whole number, or an option is none of `Ranker`'s.
    """

    def __init__(
        self,
        model: str | None = None,
        top_k: int = 10,
        score_threshold: float | None = None,
        meta_fields_to_embed: list[str] | None = None,
        meta_data_separator: str = "\n",
        options: dict[str, Any] | None = None,
    ) -> None:
        positive("top_k", top_k)
        self.model = model
        self.top_k = top_k
        self.score_threshold = score_threshold
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.meta_data_separator = meta_data_separator
        self.options = check_options(options)
        self._opening = Lock()
        self._ranker: Ranker | None = None

    def warm_up(self) -> None:
        """Open the model, once; `run` does it otherwise.

        Raises:
            FlashRankLiteError: as `flashrank_lite.Ranker` raises it.
        """
        self._open()

    def to_dict(self) -> dict[str, Any]:
        """The component as Haystack writes it into a pipeline's YAML."""
        written: dict[str, Any] = default_to_dict(
            self,
            model=self.model,
            top_k=self.top_k,
            score_threshold=self.score_threshold,
            meta_fields_to_embed=self.meta_fields_to_embed,
            meta_data_separator=self.meta_data_separator,
            options=self.options,
        )
        return written

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "FlashRankLiteRanker":
        """The component that `to_dict` wrote."""
        read: FlashRankLiteRanker = default_from_dict(cls, data)
        return read

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """Rank documents for a query.

        Args:
            query: the query.
            documents: those to rank; one without content is ranked by its metadata alone.
            top_k, score_threshold: None for the component's.

        Returns:
            {"documents": the best ones, best first}

        Raises:
            FlashRankLiteError: as `Ranker.rank` raises it.
        """
        found = _once(documents)
        kept, least = self._limits(top_k, score_threshold)
        hits = self._open().rank(query, self._texts(found), kept, min_score=least)
        return {"documents": _scored(found, hits)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """`run` off the event loop; it stops when its task is cancelled."""
        found = _once(documents)
        kept, least = self._limits(top_k, score_threshold)
        hits = await self._open().arank(query, self._texts(found), kept, min_score=least)
        return {"documents": _scored(found, hits)}

    def _open(self) -> Ranker:
        with self._opening:
            if self._ranker is None:
                self._ranker = open_ranker(self.model, self.options)
            return self._ranker

    def _texts(self, documents: list[Document]) -> list[str]:
        return [
            self.meta_data_separator.join(
                [
                    *(
                        str(document.meta[name])
                        for name in self.meta_fields_to_embed
                        if document.meta.get(name)
                    ),
                    document.content or "",
                ]
            )
            for document in documents
        ]

    def _limits(self, top_k: int | None, threshold: float | None) -> tuple[int, float | None]:
        return (
            positive("top_k", top_k) or self.top_k,
            self.score_threshold if threshold is None else threshold,
        )


def _scored(documents: list[Document], hits: list[RankedPassage]) -> list[Document]:
    return [replace(documents[hit.index], score=hit.score) for hit in hits]


def _once(documents: Sequence[Document]) -> list[Document]:
    kept: dict[tuple[str, str | None], Document] = {}
    for document in documents:
        kept.setdefault((document.id, document.content), document)
    return list(kept.values())
