"""Who is scored next: fair slices of all requests in flight, by a fixed number of scorers.

A slice takes pairs of several requests, as many tokens as a few batches of the model hold. A new
request goes first with its first pairs, so a small one is answered in its first slice; what is left
of a large one waits in a ring, where each takes its turn. A slice holds new requests or those of
the ring, not both, so a small one does not wait for a part of a large one beside it. Every fourth
slice belongs to the ring, so a stream of small requests does not starve the large ones either.
Pairs are scored apart from each other, so scores do not depend on how a request was cut.

All of this runs on the event loop, but for `_score`, which runs in a thread.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby

from flashrank_lite.call import Call, running
from flashrank_lite.errors import CallCancelled
from flashrank_lite.hits import RankedPassage
from flashrank_lite.server.job import Job

SLICE_TOKENS = 2048
# A ten-passage request of 100 tokens each is done in its first share.
FIRST_SHARE = 1024
MOST_TURNS = 4  # jobs of the ring in a slice: each has 512 tokens of it, one batch
RING_EVERY = 4
# Jobs that are looked through for some that fit the slice, so that a long queue costs no time.
LOOKED_AT = 64
_SMOOTHING = 0.2  # of the newest slice in the mean speed


@dataclass
class Slice:
    """Pairs that are scored together, all with the same model and options."""

    parts: list[tuple[Job, list[int]]] = field(default_factory=list)
    tokens: int = 0
    call: Call = field(default_factory=Call)

    def wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return any(not job.done.done() for job, _ in self.parts)


class Scheduler:
    """Scores jobs.

    Args:
        scorers: slices that are scored at the same time.

    Attributes:
        tokens_per_second: mean speed of late; None before the first slice.
    """

    def __init__(self, scorers: int) -> None:
        self._scorers = scorers
        self._fresh: deque[Job] = deque()
        self._ring: deque[Job] = deque()
        self._slices: dict[int, Slice] = {}
        self._turn = 0
        self._work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._threads = ThreadPoolExecutor(scorers, thread_name_prefix="scorer")
        self.tokens_per_second: float | None = None

    def start(self) -> None:
        """Begin to score; called once, on the event loop."""
        self._tasks = [asyncio.create_task(self._scorer(n)) for n in range(self._scorers)]

    async def stop(self) -> None:
        """Stop scoring; jobs that still wait get CallCancelled."""
        for job in [*self._fresh, *self._ring]:
            job.fail(CallCancelled("the server is shutting down"))
        for part in self._slices.values():
            part.call.cancel()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        self._threads.shutdown(wait=True)

    async def run(self, job: Job) -> None:
        """Score a job, and return when it is done; when cancelled, its pairs are not scored.

        Raises:
            FlashRankLiteError: as `Ranker.rank_many`.
        """
        if job.waiting:
            self._fresh.append(job)
            self._work.set()
        try:
            await job.done
        finally:
            if job.done.cancelled():
                self._abandon(job)

    def waiting(self) -> int:
        """Requests of which something still has to be handed to the model."""
        return len(self._fresh) + len(self._ring)

    def tokens_waiting(self) -> int:
        """Tokens of all jobs in the queue, about."""
        return sum(job.cost_left for job in [*self._fresh, *self._ring])

    def seconds_ahead(self) -> float:
        """How long what waits now will take, about."""
        return self.tokens_waiting() / self.tokens_per_second if self.tokens_per_second else 1.0

    def _abandon(self, job: Job) -> None:
        for queue in (self._fresh, self._ring):
            with suppress(ValueError):
                queue.remove(job)
        for part in self._slices.values():
            if not part.wanted():
                part.call.cancel()

    async def _scorer(self, number: int) -> None:
        while True:
            part = self._next_slice()
            if part is None:
                self._work.clear()
                await self._work.wait()
                continue
            self._slices[number] = part
            for job, _ in part.parts:
                job.begin()
            try:
                await self._score(part)
            finally:
                del self._slices[number]

    async def _score(self, part: Slice) -> None:
        began, call = time.perf_counter(), Call(parent=part.call)
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._threads, _score, part, call
            )
        except CallCancelled as error:
            if part.wanted():  # `stop` cancelled it
                _fail(part, error)
        except Exception as error:
            if len(part.parts) == 1:
                _fail(part, error)
                return
            for job, rows in part.parts:  # one request's trouble is not the others'
                await self._score(Slice([(job, rows)], call=part.call))
        else:
            seconds = time.perf_counter() - began
            self._learn_speed(part.tokens / max(seconds, 1e-6))
            for (job, rows), (hits, tokens) in zip(part.parts, found, strict=True):
                job.scored(rows, hits, tokens, seconds, call.tokenizing_seconds)

    def _next_slice(self) -> Slice | None:
        self._turn += 1
        part = Slice()
        if self._fresh and (self._turn % RING_EVERY or not self._ring):
            self._fill(part, self._fresh, FIRST_SHARE)
        while self._ring and not part.tokens:
            self._fill(part, self._ring, SLICE_TOKENS // min(len(self._ring), MOST_TURNS))
        if not part.parts and self._fresh:  # those of the ring had been given up
            self._fill(part, self._fresh, FIRST_SHARE)
        return part if part.parts else None

    def _fill(self, part: Slice, queue: deque[Job], share: int) -> None:
        """Let each job of the queue that fits the slice have a share of its room."""
        for _ in range(min(len(queue), LOOKED_AT)):
            room = SLICE_TOKENS - part.tokens
            if room <= 0:
                return
            job = queue.popleft()
            if not job.waiting:
                continue
            if part.parts and not _shares_batches(job, part.parts[0][0]):
                queue.append(job)
                continue
            rows, tokens = job.take(min(room, share))
            part.parts.append((job, rows))
            part.tokens += tokens
            if job.waiting:
                self._ring.append(job)

    def _learn_speed(self, speed: float) -> None:
        old = self.tokens_per_second
        self.tokens_per_second = speed if old is None else old + _SMOOTHING * (speed - old)


def _shares_batches(one: Job, other: Job) -> bool:
    return one.model is other.model and one.options == other.options


def _fail(part: Slice, error: BaseException) -> None:
    for job, _ in part.parts:
        job.fail(error)


def _score(part: Slice, call: Call) -> list[tuple[list[RankedPassage], int]]:
    """The hits of each part, with their places among its rows as `index`, and the tokens read.

    It runs in a thread.
    """
    first = part.parts[0][0]
    queries: list[str] = []
    lists: list[list[str]] = []
    owners: list[tuple[int, int]] = []  # of each list: the part, and its first place there
    for number, (job, rows) in enumerate(part.parts):
        start = 0
        for query, run in groupby(rows, key=lambda row: job.pairs[row][0]):
            texts = [job.pairs[row][1] for row in run]
            queries.append(query)
            lists.append(texts)
            owners.append((number, start))
            start += len(texts)
    options = first.options
    with running(call):
        ranked = first.model.ranker.rank_many(
            queries,
            lists,
            instruction=options.instruction,
            long=options.long,
            passage_tokens=options.passage_tokens,
        )
    hits: list[list[RankedPassage]] = [[] for _ in part.parts]
    tokens = [0 for _ in part.parts]
    for (number, start), found, read in zip(owners, ranked, call.tokens, strict=True):
        hits[number] += (replace(hit, index=hit.index + start) for hit in found)
        tokens[number] += read
    return list(zip(hits, tokens, strict=True))
