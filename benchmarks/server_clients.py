"""Clients of a rerank server: requests of mixed sizes, one after the other, and their fate."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from benchmarks.texts import EXAMPLES

MIX = (10, 10, 1, 10, 100, 10, 10, 1, 10, 30)  # passages of a request, in turn
QUERY = "where did agriculture first arise"
ANSWERED, REFUSED = 200, (429, 503)
LONGEST_WAIT = 5.0  # seconds after a refusal
PATIENCE = 300.0  # for an answer; longer means that it is lost


@dataclass
class Tally:
    """What became of the requests of one scene."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: dict[int, list[float]] = field(default_factory=dict)
    pairs: int = 0

    def add(self, passages: int, status: str, seconds: float) -> None:
        self.statuses[status] += 1
        if status == str(ANSWERED):
            self.pairs += passages
            self.seconds.setdefault(passages, []).append(seconds)

    def lost(self) -> int:
        known = {str(status) for status in (ANSWERED, *REFUSED)}
        return sum(count for status, count in self.statuses.items() if status not in known)

    def percentile(self, passages: int, percent: float) -> float:
        """Milliseconds."""
        found = self.seconds.get(passages)
        return 1000 * float(np.percentile(found, percent)) if found else float("nan")


class Texts:
    """Passages that are never the same twice, so that none is scored once for two."""

    def __init__(self) -> None:
        lines = EXAMPLES.read_text("utf-8").splitlines()
        self._texts = [one["text"] for line in lines for one in json.loads(line)["passages"]]
        self._count = itertools.count()

    def take(self, passages: int) -> list[str]:
        numbers = (next(self._count) for _ in range(passages))
        return [f"{n} {self._texts[n % len(self._texts)]}" for n in numbers]


async def one_after_the_other(
    port: int,
    mix: tuple[int, ...],
    start: int,
    texts: Texts,
    tally: Tally,
    over: Callable[[], bool],
) -> None:
    """A client: waits for each answer, and as long as it is told to after a refusal."""
    for passages in itertools.islice(itertools.cycle(mix), start % len(mix), None):
        if over():
            return
        began = time.perf_counter()
        try:
            status, wait = await asyncio.wait_for(ask(port, texts.take(passages)), PATIENCE)
        except TimeoutError:  # which is an OSError, too
            tally.add(passages, "unanswered", 0.0)
            continue
        except (OSError, asyncio.IncompleteReadError):
            tally.add(passages, "broken", 0.0)
            await asyncio.sleep(0.2)
            continue
        tally.add(passages, str(status), time.perf_counter() - began)
        if wait:
            await asyncio.sleep(min(wait, LONGEST_WAIT))


async def ask(port: int, texts: list[str]) -> tuple[int, float]:
    """The status of a request, and the seconds that its refusal says to wait."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request(texts))
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        await reader.readexactly(int(headers["content-length"]))
        return int(head.split()[1]), float(headers.get("retry-after", 0))
    finally:
        writer.close()


def request(texts: list[str]) -> bytes:
    body = json.dumps({"query": QUERY, "documents": texts, "model": "default"}).encode()
    head = "POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def after(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have passed since now."""
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= end


def told(tally: Tally) -> str:
    return ", ".join(f"{count} × {status}" for status, count in sorted(tally.statuses.items()))


def milliseconds(tally: Tally, passages: int) -> str:
    return f"{tally.percentile(passages, 50):.0f} / {tally.percentile(passages, 99):.0f} ms"
