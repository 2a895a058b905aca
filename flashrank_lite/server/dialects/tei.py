"""Text Embeddings Inference: `texts` in, a bare list of `{index, score, text?}` out, best first."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, RootModel

from flashrank_lite.server.dialects.request import (
    LARGEST_TOP_N,
    OwnFields,
    Ranking,
    RankingRequest,
    validate,
)
from flashrank_lite.server.refusals import Refusal


class TeiRequest(OwnFields):
    """Text Embeddings Inference."""

    query: str
    texts: list[str] = Field(min_length=1)
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = None
    truncation_direction: Literal["left", "Left", "right", "Right"] = "right"
    top_n: int | None = Field(None, ge=1, le=LARGEST_TOP_N)  # LiteLLM sends it


class TeiHit(BaseModel):
    """A text and its score."""

    index: int
    score: float
    text: str | None = None
    truncated: bool | None = None
    span: list[int] | None = None


class TeiResponse(RootModel[list[TeiHit]]):
    """Best first."""


def read(body: Any) -> RankingRequest:
    """A request of this dialect.

    Raises:
        Refusal: 422, or 400 for no texts at all, as Text Embeddings Inference has it.
    """
    if isinstance(body, dict) and body.get("texts") == []:
        raise Refusal(400, "empty", "texts holds no text to rank", error_type="Empty")
    asked: TeiRequest = validate(TeiRequest, body)
    return RankingRequest(
        dialect="tei",
        model=asked.model,
        pairs=[(asked.query, text) for text in asked.texts],
        options=asked.options(),
        blend=asked.blend(len(asked.texts)),
        shape=shape,
        top_n=asked.top_n,
        min_score=asked.min_score,
        raw_scores=asked.raw_scores,
        documents=asked.return_text,
        # LiteLLM always sends false, whatever its user wants: only a server that was told not to
        # truncate refuses
        refuse_truncation=None if asked.truncate is None else not asked.truncate,
        from_the_left=asked.truncation_direction.lower() == "left",
    )


def shape(ranking: Ranking) -> list[dict[str, Any]]:
    """The answer."""
    return [
        {
            "index": hit.index,
            "score": ranking.score(hit),
            **({"text": hit.text} if ranking.request.documents else {}),
            **ranking.extras(hit),
        }
        for hit in ranking.hits
    ]
