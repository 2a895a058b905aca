"""What the routes share, and the way of a request: admitted, read, scored, answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from flashrank_lite.errors import CallCancelled, FlashRankLiteError, InvalidInput
from flashrank_lite.hits import RankedPassage
from flashrank_lite.server import body as bodies
from flashrank_lite.server.auth import Keys
from flashrank_lite.server.dialects.request import Ranking, RankingRequest
from flashrank_lite.server.job import Job
from flashrank_lite.server.limits import check_texts, check_tokens
from flashrank_lite.server.metrics import Metrics
from flashrank_lite.server.refusals import Refusal
from flashrank_lite.server.registry import Registry
from flashrank_lite.server.scheduler import Scheduler
from flashrank_lite.server.settings import Settings

LONGEST_RETRY = 60.0  # seconds


class ClientGone(Exception):
    """The client hung up, so there is nobody to answer."""


@dataclass
class Facts:
    """What is known of a request, for its log line, headers and span; sizes and times, no text."""

    id: str
    began: float = field(default_factory=time.perf_counter)
    dialect: str = "-"
    model: str = "-"
    device: str = "cpu"
    passages: int = 0
    characters: int = 0
    tokens: int = 0
    truncated: int = 0
    read_seconds: float = 0.0
    queue_seconds: float = 0.0
    score_seconds: float = 0.0  # in which tokenizing_seconds are
    tokenizing_seconds: float = 0.0
    query: str | None = None  # only where the settings allow texts in logs

    @property
    def seconds(self) -> float:
        """Since the request's head arrived."""
        return time.perf_counter() - self.began


class Service:
    """Everything that lives as long as the application."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.registry = Registry(settings)
        self.metrics = Metrics()
        self.keys = Keys(settings.api_keys)
        self.scheduler: Scheduler  # made on the event loop, by the application's lifespan
        self._requests = self._bytes = 0

    async def rank(
        self, request: Request, facts: Facts, read: Callable[[Any], RankingRequest]
    ) -> Ranking:
        """Read, score and order what a request asks for.

        Raises:
            Refusal: it cannot be answered.
            ClientGone: nobody waits for the answer any more.
        """
        settings, deadline = self.settings, facts.began + self.settings.timeout
        with self._admitted(request):
            raw = await bodies.read(request, settings.max_body_bytes, settings.body_timeout)
            asked = read(await bodies.parse(raw))
            del raw
            facts.dialect = asked.dialect
            check_texts(asked, settings)
            model = self.registry.choose(asked.model)
            job = Job(model, asked.pairs, asked.options)
            check_tokens(job, settings)
            facts.model, facts.device = model.name, str(model.info["device"])
            facts.passages = len(asked.pairs)
            facts.characters = sum(len(text) for _, text in asked.pairs)
            facts.read_seconds = facts.seconds
            if settings.log_texts and asked.pairs:
                facts.query = asked.pairs[0][0]
            await self._score(request, job, deadline)
        hits = [hit for hit in job.hits if hit is not None]
        facts.tokens, facts.truncated = job.tokens, sum(hit.truncated for hit in hits)
        facts.queue_seconds, facts.score_seconds = job.queue_seconds, job.scoring_seconds
        facts.tokenizing_seconds = job.tokenizing_seconds
        _check_truncation(asked, hits, settings, model.max_length)
        if asked.blend is not None:
            hits = asked.blend.of(hits)
        return Ranking(
            request=asked,
            id=facts.id,
            model=asked.model or model.name,
            hits=_chosen(asked, hits),
            tokens=facts.tokens,
            milliseconds=facts.seconds * 1000,
            created=int(time.time()),
        )

    @contextmanager
    def _admitted(self, request: Request) -> Iterator[None]:
        """Count a request in, or refuse it before its body is read."""
        settings = self.settings
        declared = request.headers.get("content-length", "")
        size = int(declared[:20]) if declared.isdigit() else settings.max_body_bytes
        if size > settings.max_body_bytes:
            raise bodies.too_large(settings.max_body_bytes)
        if self._requests >= settings.max_queue or (
            self._requests and self._bytes + size > settings.max_queue_bytes
        ):
            raise Refusal(
                429,
                "queue_full",
                "the server is busy: try again after the seconds that Retry-After says",
                retry_after=min(self.scheduler.seconds_ahead(), LONGEST_RETRY),
            )
        self._requests += 1
        self._bytes += size
        try:
            yield
        finally:
            self._requests -= 1
            self._bytes -= size

    async def _score(self, request: Request, job: Job, deadline: float) -> None:
        work = asyncio.create_task(self.scheduler.run(job))
        gone = asyncio.create_task(_disconnected(request))
        try:
            await asyncio.wait(
                {work, gone},
                timeout=max(0.0, deadline - time.perf_counter()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not work.done():
                if gone.done():
                    raise ClientGone
                raise Refusal(
                    503,
                    "deadline",
                    f"not scored within {self.settings.timeout:g} seconds: send fewer passages, or "
                    "try again when the server is less busy",
                    error_type="Overloaded",
                    retry_after=min(self.scheduler.seconds_ahead(), LONGEST_RETRY),
                )
            _raise_as_refusal(work)
        finally:
            for task in (work, gone):
                task.cancel()
            with suppress(asyncio.CancelledError, FlashRankLiteError):
                await work


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _raise_as_refusal(work: asyncio.Task[None]) -> None:
    try:
        work.result()
    except CallCancelled:
        raise Refusal(
            503, "shutting_down", "the server is shutting down: ask another one", retry_after=1
        ) from None
    except InvalidInput as error:
        raise Refusal(422, "invalid_request", str(error)) from error
    except FlashRankLiteError as error:
        raise Refusal(500, "model_failed", str(error)) from error


def _check_truncation(
    asked: RankingRequest, hits: list[RankedPassage], settings: Settings, max_length: int
) -> None:
    first = next((index for index, hit in enumerate(hits) if hit.truncated), None)
    if first is None or asked.options.passage_tokens is not None:  # which asks for it
        return
    if not settings.auto_truncate and asked.refuse_truncation is not False:
        raise Refusal(
            422,
            "truncated",
            f"passage {first} and the query do not fit the {max_length} tokens that the model "
            "reads: shorten it, or send truncate: true",
        )
    if asked.from_the_left:
        raise Refusal(
            422,
            "left_truncation",
            f"passage {first} does not fit the {max_length} tokens that the model reads, and this "
            "server keeps the beginning of a passage, never its end: send truncation_direction: "
            "right, or cut the passage",
        )


def _chosen(asked: RankingRequest, hits: list[RankedPassage]) -> list[RankedPassage]:
    """Those to answer, in their order, each with its place in the request."""
    if asked.in_order:
        by = "logit" if asked.blend is None else "score"
        # stable: ties keep the request's order
        hits = sorted(hits, key=lambda hit: -getattr(hit, by))
    if asked.min_score is not None:
        score = "logit" if asked.raw_scores else "score"
        hits = [hit for hit in hits if getattr(hit, score) >= asked.min_score]
    return hits[: asked.top_n]
