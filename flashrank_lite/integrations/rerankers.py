"""The interface of AnswerDotAI's rerankers: `from flashrank_lite.integrations.rerankers import
Reranker`.

Scores are logits, as its cross-encoder ranker gives them; with `model_type="flashrank"` they are
sigmoids, as its FlashRank ranker gives them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from flashrank_lite.errors import InvalidInput
from flashrank_lite.hits import RankedPassage
from flashrank_lite.integrations.opening import ModelName
from flashrank_lite.ranker import Ranker

if TYPE_CHECKING:
    from flashrank_lite.integrations.langchain import FlashRankLiteRerank

Id = str | int | None
POINTWISE = (None, "cross-encoder", "TransformerRanker", "flashrank", "FlashRankRanker")


@dataclass
class Document:
    """A document: its text, and what the caller knows of it."""

    text: str
    doc_id: Id = None
    metadata: dict[str, Any] = field(default_factory=dict)
    document_type: Literal["text"] = "text"


@dataclass
class Result:
    """A document with its score and its rank, 1 for the best.

    The document's attributes and metadata are attributes here too: `result.text`, `result.doc_id`.
    """

    document: Document
    score: float
    rank: int

    def __getattr__(self, name: str) -> Any:
        document = self.__dict__.get("document")  # absent while it is unpickled
        if document is not None and not name.startswith("__"):
            if hasattr(document, name):
                return getattr(document, name)
            if name in document.metadata:
                return document.metadata[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class RankedResults:
    """The results of a query, best first: iterate over them or index them."""

    def __init__(self, results: list[Result], query: str, has_scores: bool = True) -> None:
        self.results = results
        self.query = query
        self.has_scores = has_scores

    def __iter__(self) -> Any:
        return iter(self.results)

    def __getitem__(self, index: Any) -> Any:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def results_count(self) -> int:
        """How many there are."""
        return len(self.results)

    def top_k(self, k: int) -> list[Result]:
        """The k best."""
        return self.results[:k]

    def get_result_by_docid(self, doc_id: Id) -> Result | None:
        """The best result with this id, None if there is none."""
        return next((result for result in self if result.document.doc_id == doc_id), None)

    def get_score_by_docid(self, doc_id: Id) -> float | None:
        """Its score."""
        result = self.get_result_by_docid(doc_id)
        return None if result is None else result.score

    def __repr__(self) -> str:
        return f"RankedResults(results={self.results!r}, query={self.query!r})"


class Reranker:
    """What `rerankers.Reranker` returns for a cross-encoder.

    Args:
        model_name: whatever `flashrank_lite.Ranker` takes; None for the bundled model.
        lang: not used: the name says which model.
        model_type: "cross-encoder" or "flashrank"; None for the former.
        verbose: not used: nothing is printed.
        dtype, batch_size: not used: the graph has its type, and batches follow from a budget.
        device: "cpu" or "cuda"; None for the CPU.
        **options: further arguments of `flashrank_lite.Ranker`.

    Raises:
        InvalidInput: another kind of model is asked for.
        FlashRankLiteError: as `flashrank_lite.Ranker` raises it.
    """

    def __init__(
        self,
        model_name: ModelName = None,
        lang: str = "en",
        model_type: str | None = None,
        verbose: int = 1,
        *,
        dtype: Any = None,
        device: Any = None,
        batch_size: int | None = None,
        **options: Any,
    ) -> None:
        if model_type not in POINTWISE:
            raise InvalidInput(
                f"model_type={model_type!r} does not run here: 'cross-encoder' and 'flashrank' do"
            )
        flashrank = model_type in ("flashrank", "FlashRankRanker")
        options.setdefault("long", "truncate")
        options.setdefault("activation", "sigmoid" if flashrank else "raw")
        self.ranker = Ranker(model_name, device=device, **options)

    def rank(
        self,
        query: str,
        docs: Any,
        doc_ids: Sequence[str] | Sequence[int] | None = None,
        metadata: Sequence[dict[str, Any]] | None = None,
        batch_size: int | None = None,
    ) -> RankedResults:
        """Rank documents for a query.

        Args:
            query: the query.
            docs: texts or documents (of this module or of rerankers), or one of them.
            doc_ids: an id for each; None for the documents' own, or else their places.
            metadata: a dict for each; None for the documents' own.
            batch_size: not used.

        Raises:
            InvalidInput: a document has no text, or there are not as many ids as documents.
        """
        documents = _documents(docs, doc_ids, metadata)
        return _results(query, documents, self.ranker.rank(query, documents))

    async def rank_async(
        self,
        query: str,
        docs: Any,
        doc_ids: Sequence[str] | Sequence[int] | None = None,
        metadata: Sequence[dict[str, Any]] | None = None,
        batch_size: int | None = None,
    ) -> RankedResults:
        """`rank` off the event loop; it stops when its task is cancelled."""
        documents = _documents(docs, doc_ids, metadata)
        return _results(query, documents, await self.ranker.arank(query, documents))

    def score(self, query: str, doc: str) -> float:
        """The score of one document."""
        return float(self.ranker.score(query, [doc])[0])

    def as_langchain_compressor(self, k: int = 10) -> "FlashRankLiteRerank":
        """A document compressor of LangChain that keeps the k best.

        Raises:
            MissingExtra: LangChain is not installed.
        """
        from flashrank_lite.integrations.langchain import FlashRankLiteRerank

        return FlashRankLiteRerank(ranker=self.ranker, top_n=k)


def _documents(docs: Any, ids: Any, metadata: Any) -> list[Document]:
    if isinstance(docs, (str, Mapping)) or hasattr(docs, "text"):
        docs = [docs]
    docs = list(docs)
    for name, given in (("doc_ids", ids), ("metadata", metadata)):
        if given is not None and len(given) != len(docs):
            raise InvalidInput(f"{len(given)} {name} for {len(docs)} docs: pass one for each")
    found = []
    for place, doc in enumerate(docs):
        text = getattr(doc, "text", doc)
        if not isinstance(text, str):
            raise InvalidInput(
                f"document {place} has no text: pass a str, or a Document with one "
                "(images are not ranked here)"
            )
        own = getattr(doc, "doc_id", None)
        found.append(
            Document(
                text,
                ids[place] if ids is not None else place if own is None else own,
                dict(metadata[place] if metadata is not None else getattr(doc, "metadata", {})),
            )
        )
    return found


def _results(query: str, documents: list[Document], hits: list[RankedPassage]) -> RankedResults:
    results = [
        Result(documents[hit.index], hit.score, rank) for rank, hit in enumerate(hits, start=1)
    ]
    return RankedResults(results, query)
