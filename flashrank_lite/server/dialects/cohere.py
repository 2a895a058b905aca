"""Cohere, Jina, vLLM and infinity: `documents` in, an object with `results` out, best first.

They differ in what a returned document looks like: infinity's is the bare text, everybody else's
`{"text": ...}`. An infinity client is told by `raw_scores`, which only it sends, or by the path
`/infinity/rerank`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from flashrank_lite.server.dialects.request import (
    LARGEST_TOP_N,
    OwnFields,
    Ranking,
    RankingRequest,
    validate,
)
from flashrank_lite.server.refusals import Refusal

# Fields that shorten what is read, which is the model's business here.
_LENGTHS = (
    "max_tokens_per_query",
    "truncate_prompt_tokens",
    "max_chunks_per_doc",
)


class CohereRequest(OwnFields):
    """Cohere v1 and v2, Jina, vLLM, infinity."""

    query: str
    documents: list[str | dict[str, Any]]
    top_n: int | None = Field(None, ge=1, le=LARGEST_TOP_N)
    return_documents: bool | None = None
    rank_fields: list[str] | None = Field(None, description="Of documents that are objects.")
    raw_scores: bool | None = Field(None, description="infinity's: logits instead of scores.")
    max_tokens_per_doc: int | None = Field(
        None, ge=1, le=LARGEST_TOP_N, description="Tokens of each document that are read at most."
    )
    max_tokens_per_query: int | None = None
    truncate_prompt_tokens: int | None = None
    max_chunks_per_doc: int | None = None


class CohereHit(BaseModel):
    """A document and its score."""

    index: int
    relevance_score: float
    document: str | dict[str, Any] | None = None
    truncated: bool | None = None
    span: list[int] | None = None


class CohereResponse(BaseModel):
    """Best first."""

    id: str
    object: str
    created: int
    model: str
    results: list[CohereHit]
    meta: dict[str, Any]
    usage: dict[str, int]


def read(body: Any, *, version: int = 1, infinity: bool = False) -> RankingRequest:
    """A request of this dialect.

    Args:
        body: parsed JSON.
        version: of Cohere's API, as the path says.
        infinity: whether the path says that the client is infinity's.

    Raises:
        Refusal: 422.
    """
    asked: CohereRequest = validate(CohereRequest, body)
    infinity = infinity or asked.raw_scores is not None
    pairs = [
        (asked.query, _text(document, index, asked.rank_fields))
        for index, document in enumerate(asked.documents)
    ]
    shorter = [name for name in _LENGTHS if getattr(asked, name) is not None]
    warnings = tuple(
        f"{name} was ignored: the model reads as much of each passage as it can" for name in shorter
    )
    return RankingRequest(
        dialect="infinity" if infinity else f"cohere{version}",
        model=asked.model,
        pairs=pairs,
        options=asked.options(asked.max_tokens_per_doc),
        blend=asked.blend(len(pairs)),
        shape=shape,
        top_n=asked.top_n,
        min_score=asked.min_score,
        raw_scores=bool(asked.raw_scores),
        documents=bool(asked.return_documents),
        warnings=warnings,
        sources=asked.documents,
    )


def shape(ranking: Ranking) -> dict[str, Any]:
    """The answer."""
    request = ranking.request
    infinity = request.dialect == "infinity"
    results = []
    for hit in ranking.hits:
        result: dict[str, Any] = {"index": hit.index, "relevance_score": ranking.score(hit)}
        if request.documents:
            source = request.sources[hit.index]
            own = source if isinstance(source, Mapping) else {}
            result["document"] = hit.text if infinity else {"text": hit.text, **own}
        elif infinity:
            result["document"] = None
        results.append({**result, **ranking.extras(hit)})
    meta: dict[str, Any] = {
        "api_version": {"version": "2" if request.dialect == "cohere2" else "1"},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": ranking.tokens, "output_tokens": 0},
    }
    if request.warnings:
        meta["warnings"] = list(request.warnings)
    return {
        "id": ranking.id,
        "object": "rerank",
        "created": ranking.created,
        "model": ranking.model,
        "results": results,
        "meta": meta,
        "usage": {"prompt_tokens": ranking.tokens, "total_tokens": ranking.tokens},
    }


def _text(document: str | dict[str, Any], index: int, rank_fields: list[str] | None) -> str:
    """What is ranked of a document: a text, or fields of an object, a line each with its name."""
    if isinstance(document, str):
        return document
    if not rank_fields:
        text = document.get("text")
        if isinstance(text, str):
            return text
        raise Refusal(
            422,
            "invalid_request",
            f"documents[{index}] is an object without a text: put it under 'text', or name the "
            "fields to rank in rank_fields",
        )
    lines = [f"{name}: {document[name]}" for name in rank_fields if document.get(name) is not None]
    if not lines:
        raise Refusal(
            422, "invalid_request", f"documents[{index}] has none of the fields in rank_fields"
        )
    return lines[0].partition(": ")[2] if rank_fields == ["text"] else "\n".join(lines)
