"""What every dialect's request comes down to, and what its answer is shaped from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flashrank_lite.hits import RankedPassage
from flashrank_lite.server.blend import Blend
from flashrank_lite.server.job import Options
from flashrank_lite.server.refusals import Refusal
from flashrank_lite.strategies.fusion import Kind
from flashrank_lite.strategies.stack import Long

LARGEST_TOP_N = 2**31 - 1


class OwnFields(BaseModel):
    """Fields of this server's own, optional in every dialect; unknown ones are tolerated."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    model: str | None = Field(None, description="Which model; the first one served by default.")
    min_score: float | None = Field(None, description="Leave out what scores less.")
    instruction: str | None = Field(
        None, description="What to look for, for models that take an instruction."
    )
    long: Long | None = Field(
        None, description="How a passage is read that is longer than the model's window."
    )
    fusion: Kind | None = Field(
        None, description="Sort by a blend with the first stage: its scores, or else its order."
    )
    weight: float | None = Field(None, ge=0, le=1, description="Of the model in the blend.")
    scores: list[float] | None = Field(
        None, description="Those of the first stage, one for each passage."
    )

    def options(self, passage_tokens: int | None = None) -> Options:
        """How passages are scored, and how many tokens of each are read at most."""
        return Options(self.instruction, self.long, passage_tokens)

    def blend(self, passages: int) -> Blend | None:
        """How scores are blended with the first stage's, if they are.

        Raises:
            Refusal: there is not one first-stage score for each passage.
        """
        if self.fusion is None:
            return None
        if self.scores is not None and len(self.scores) != passages:
            raise Refusal(
                422,
                "invalid_request",
                f"scores holds {len(self.scores)} numbers for {passages} passages: send one for "
                "each, or none of them (then their order is taken)",
            )
        return Blend(self.fusion, self.weight, self.scores)


@dataclass(frozen=True)
class RankingRequest:
    """A request, whoever's dialect it came in.

    Attributes:
        dialect: whose.
        model: as asked for; None for the default.
        pairs: (query, text) of each passage, in the request's order.
        options: how they are scored.
        shape: makes the answer.
        in_order: best first; else in the request's order.
        top_n: how many to answer; None for all.
        min_score: what scores less is left out.
        blend: with the first stage, by which hits are then sorted.
        raw_scores: answer logits.
        documents: answer the texts too.
        refuse_truncation: a passage that the model cannot read whole is an error.
        from_the_left: the client wants the end of a long passage, not its beginning.
        warnings: what was asked for and could not be done.
        sources: the documents as sent, where they were objects.
    """

    dialect: str
    model: str | None
    pairs: list[tuple[str, str]]
    options: Options
    shape: Callable[[Ranking], Any]
    in_order: bool = True
    top_n: int | None = None
    min_score: float | None = None
    blend: Blend | None = None
    raw_scores: bool = False
    documents: bool = False
    refuse_truncation: bool | None = None
    from_the_left: bool = False
    warnings: tuple[str, ...] = ()
    sources: Sequence[Any] = ()


@dataclass(frozen=True)
class Ranking:
    """What was found for a request.

    Attributes:
        request: the request.
        id: of the request, for logs.
        model: the name under which the model is served.
        hits: those to answer, in the order to answer them; `index` is the place in the request.
        tokens: that the model read.
        milliseconds: from the body's arrival to now.
        created: seconds since 1970.
    """

    request: RankingRequest
    id: str
    model: str
    hits: Sequence[RankedPassage]
    tokens: int
    milliseconds: float
    created: int

    def score(self, hit: RankedPassage) -> float:
        """What the client calls the score of a hit."""
        return hit.logit if self.request.raw_scores else hit.score

    def extras(self, hit: RankedPassage) -> dict[str, Any]:
        """Fields of our own: only where they say something, so that others' shapes stay theirs."""
        extras: dict[str, Any] = {"truncated": True} if hit.truncated else {}
        if hit.span is not None and hit.span != (0, len(hit.text)):
            extras["span"] = list(hit.span)
        return extras


def validate(model: type[BaseModel], body: Any) -> Any:
    """The body as the dialect's model.

    Raises:
        Refusal: 422, with where and what, and without any of the texts.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        said = "; ".join(f"{_place(one['loc'])}: {one['msg']}" for one in found[:3])
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        raise Refusal(422, "invalid_request", f"{said}{more}") from None


def _place(where: Sequence[str | int]) -> str:
    path = ""
    for step in where:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else str(step)
    return path or "the body"
