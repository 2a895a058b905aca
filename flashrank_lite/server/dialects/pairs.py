"""Pairs in, scores in their order out: Metarank's `/inference/cross/{model}`, vLLM's `/score`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from flashrank_lite.server.dialects.request import OwnFields, Ranking, RankingRequest, validate
from flashrank_lite.server.refusals import Refusal


class MetarankPair(BaseModel):
    """A pair."""

    query: str
    text: str


class MetarankRequest(OwnFields):
    """Metarank."""

    input: list[MetarankPair]


class MetarankResponse(BaseModel):
    """Logits, in the order of the pairs, and the milliseconds that they took."""

    scores: list[float]
    took: int


class ScoreRequest(OwnFields):
    """vLLM."""

    text_1: str | list[str] | None = Field(None, description="The query, or one for each text.")
    text_2: str | list[str] | None = Field(None, description="The texts.")
    queries: str | list[str] | None = Field(None, description="text_1, as newer versions say.")
    documents: str | list[str] | None = Field(None, description="text_2, as newer versions say.")


class ScoreHit(BaseModel):
    """A score."""

    index: int
    object: str
    score: float
    truncated: bool | None = None
    span: list[int] | None = None


class ScoreResponse(BaseModel):
    """Scores in the order of the pairs."""

    id: str
    object: str
    created: int
    model: str
    data: list[ScoreHit]
    usage: dict[str, int]


def read_metarank(body: Any, model: str) -> RankingRequest:
    """A request of Metarank's.

    Raises:
        Refusal: 422.
    """
    asked: MetarankRequest = validate(MetarankRequest, body)
    return RankingRequest(
        dialect="metarank",
        model=model,
        pairs=[(pair.query, pair.text) for pair in asked.input],
        options=asked.options(),
        shape=shape_metarank,
        in_order=False,
        raw_scores=True,
    )


def shape_metarank(ranking: Ranking) -> dict[str, Any]:
    """Metarank's answer."""
    return {
        "scores": [ranking.score(hit) for hit in ranking.hits],
        "took": round(ranking.milliseconds),
    }


def read_score(body: Any) -> RankingRequest:
    """A request of vLLM's.

    Raises:
        Refusal: 422.
    """
    asked: ScoreRequest = validate(ScoreRequest, body)
    queries = _texts(asked.text_1, asked.queries, "text_1")
    texts = _texts(asked.text_2, asked.documents, "text_2")
    if len(queries) == 1:
        queries = queries * len(texts)
    if len(queries) != len(texts):
        raise Refusal(
            422,
            "invalid_request",
            f"text_1 holds {len(queries)} texts and text_2 {len(texts)}: send one query, or one "
            "for each text",
        )
    return RankingRequest(
        dialect="score",
        model=asked.model,
        pairs=list(zip(queries, texts, strict=True)),
        options=asked.options(),
        shape=shape_score,
        in_order=False,
    )


def shape_score(ranking: Ranking) -> dict[str, Any]:
    """vLLM's answer."""
    return {
        "id": ranking.id,
        "object": "list",
        "created": ranking.created,
        "model": ranking.model,
        "data": [
            {
                "index": hit.index,
                "object": "score",
                "score": ranking.score(hit),
                **ranking.extras(hit),
            }
            for hit in ranking.hits
        ],
        "usage": {"prompt_tokens": ranking.tokens, "total_tokens": ranking.tokens},
    }


def _texts(one: str | list[str] | None, other: str | list[str] | None, name: str) -> list[str]:
    found = other if one is None else one
    if found is None:
        raise Refusal(422, "invalid_request", f"{name}: Field required")
    return [found] if isinstance(found, str) else found
