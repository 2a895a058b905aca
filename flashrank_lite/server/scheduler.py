"""Who is scored next: fair slices of all requests in flight, by a fixed number of scorers.

A slice takes pairs of several requests, as many tokens as a few batches of the model hold. A new
request goes first: a small one whole, so that its first slice answers it, of a large one its first
pairs. The rest of that is begun, and of those begun the one with least left goes on: taking turns,
all of them would be answered late. A slice holds new requests or begun ones, not both, so a small
one does not wait for a part of a large one beside it.

Every fifth slice is for those begun, so a stream of small requests does not starve them. Once one
of them has waited for long, two more of five are, for the oldest: what is given up at its deadline
half scored was work for nothing, and without this rule a quarter of the work was lost so (64
connections for a minute, one in ten requests with 100 passages).

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
FIRST_SHARE = 1024  # of a job that does not fit a slice
CYCLE = 5  # slices, of which the first is for requests that are begun
LATE_SLICES = 2  # more of them, where one is late
LATE = 1 / 3  # of the deadline
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
        deadline: seconds after which a request is given up.

    Attributes:
        tokens_per_second: mean speed of late; None before the first slice.
    """

    def __init__(self, scorers: int, deadline: float) -> None:
        self._scorers, self._deadline = scorers, deadline
        self._fresh: deque[Job] = deque()
        self._begun: list[Job] = []  # in the order they came
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
        for job in [*self._fresh, *self._begun]:
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
        return len(self._fresh) + len(self._begun)

    def tokens_waiting(self) -> int:
        """Tokens of all jobs in the queue, about."""
        return sum(job.cost_left for job in [*self._fresh, *self._begun])

    def seconds_ahead(self) -> float:
        """How long what waits now will take, about."""
        return self.tokens_waiting() / self.tokens_per_second if self.tokens_per_second else 1.0

    def _abandon(self, job: Job) -> None:
        for queue in (self._fresh, self._begun):
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
            if part.tokens:
                self._learn_speed(part.tokens / max(seconds, 1e-6))
            for (job, rows), (hits, tokens) in zip(part.parts, found, strict=True):
                job.scored(rows, hits, tokens, seconds, call.tokenizing_seconds)

    def _next_slice(self) -> Slice | None:
        self._turn += 1
        self._begun = [job for job in self._begun if job.waiting]
        turn = self._turn % CYCLE
        late = bool(self._begun) and self._late(self._begun[0])
        part = Slice()
        if turn == 0 or (late and turn <= LATE_SLICES):
            self._fill_with_begun(part, oldest_first=turn > 0)
        if not part.parts:
            self._fill_with_fresh(part)
        if not part.parts:
            self._fill_with_begun(part, oldest_first=late)
        return part if part.parts else None

    def _late(self, job: Job) -> bool:
        return time.perf_counter() - job.submitted > LATE * self._deadline

    def _fill_with_fresh(self, part: Slice) -> None:
        """Small jobs whole, as many as fit; the first pairs of large ones."""
        while self._fresh:
            room = SLICE_TOKENS - part.tokens
            job = self._fresh.popleft()
            if not job.waiting:
                continue
            small = job.cost <= SLICE_TOKENS
            share = job.cost if small else FIRST_SHARE
            if part.parts and (share > room or not _shares_batches(job, part.parts[0][0])):
                self._fresh.appendleft(job)
                return
            _add(part, job, share)
            if job.waiting:
                self._begun.append(job)

    def _fill_with_begun(self, part: Slice, oldest_first: bool) -> None:
        order = self._begun
        if not oldest_first:
            order = sorted(order, key=lambda job: job.cost_left)
        for job in order:
            room = SLICE_TOKENS - part.tokens
            if room <= 0:
                return
            if not part.parts or _shares_batches(job, part.parts[0][0]):
                _add(part, job, room)

    def _learn_speed(self, speed: float) -> None:
        old = self.tokens_per_second
        self.tokens_per_second = speed if old is None else old + _SMOOTHING * (speed - old)


def _add(part: Slice, job: Job, tokens: int) -> None:
    rows, taken = job.take(tokens)
    part.parts.append((job, rows))
    part.tokens += taken


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
