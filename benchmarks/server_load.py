"""The server under load, over the loopback: nothing lost, memory flat, small requests not starved.

    python -m benchmarks.server_load                  # some four minutes
    python -m benchmarks.server_load --seconds 10 --connections 16

Prints a table in Markdown, and exits with 1 if a request was neither answered nor refused. Clients
are one more process on the same cores, so the server has fewer than the library that it is compared
with, which runs alone.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.texts import EXAMPLES

MIX = (10, 10, 1, 10, 100, 10, 10, 1, 10, 30)  # passages of a request, in turn
QUERY = "where did agriculture first arise"
ANSWERED, REFUSED = 200, (429, 503)
WARM_UP = 2.0  # seconds
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of the mixed load")
    parser.add_argument("--connections", type=int, default=64)
    arguments = parser.parse_args()
    rows: list[tuple[str, str]] = []
    lost = 0
    library = library_pairs_per_second(min(arguments.seconds, 20.0))
    rows.append(("library alone, same mix", f"{library:.0f} pairs/s"))
    with server() as (port, process):
        before = resident(process.pid)
        began = time.perf_counter()
        tally, peak = asyncio.run(
            load(port, arguments.connections, arguments.seconds, MIX, process.pid)
        )
        rate = tally.pairs / (time.perf_counter() - began)  # the last answers come after the end
        rows += [
            (f"mixed load, {arguments.connections} connections", f"{rate:.0f} pairs/s"),
            ("of the library's", f"{rate / library:.2f}"),
            ("answers by status", told(tally)),
            ("p50 / p99 of 10 passages", milliseconds(tally, 10)),
            ("p50 / p99 of 100 passages", milliseconds(tally, 100)),
            ("resident before, greatest, after", f"{before}, {peak}, {resident(process.pid)} MB"),
        ]
        lost += tally.lost()
        small = asyncio.run(beside_huge(port, arguments.seconds / 3))
        rows.append(
            ("p50 / p99 of 10 passages, four others sending 1,000", milliseconds(small, 10))
        )
        lost += small.lost()
        rude = asyncio.run(beside_rude(port, arguments.seconds / 3))
        rows.append(("beside clients that hang up or stall: answers", told(rude)))
        lost += rude.lost()
    with server("--workers", "2", "--threads", "1") as (port, process):
        killed = asyncio.run(with_a_killed_worker(port, process.pid, arguments.seconds / 3))
        rows.append(("two workers, one killed: answers, and broken connections", told(killed)))
        lost += killed.lost() - killed.statuses["broken"]
    print("| what | measured |\n|---|---:|")
    for name, value in rows:
        print(f"| {name} | {value} |")
    return 1 if lost else 0


def library_pairs_per_second(seconds: float) -> float:
    """The same mix of requests, one after the other, without a server."""
    from flashrank_lite import Ranker

    texts = Texts()
    with Ranker() as ranker:
        ranker.rank(QUERY, texts.take(100))
        began, pairs = time.perf_counter(), 0
        for passages in itertools.cycle(MIX):
            ranker.rank(QUERY, texts.take(passages))
            pairs += passages
            if passages == MIX[-1] and time.perf_counter() - began >= seconds:
                return pairs / (time.perf_counter() - began)
    raise AssertionError


async def load(
    port: int, connections: int, seconds: float, mix: tuple[int, ...], pid: int
) -> tuple[Tally, int]:
    """Connections that each send one request after the other; and the greatest memory."""
    tally, texts, peak = Tally(), Texts(), 0
    end = time.perf_counter() + seconds
    clients = [
        asyncio.create_task(one_after_the_other(port, mix, start, texts, tally, end))
        for start in range(connections)
    ]
    while not all(client.done() for client in clients):
        peak = max(peak, resident(pid))
        await asyncio.sleep(0.25)
    await asyncio.gather(*clients)
    return tally, peak


async def beside_huge(port: int, seconds: float) -> Tally:
    """A client of ten passages, while four others send a thousand each."""
    huge, small = Tally(), Tally()
    end = time.perf_counter() + seconds
    others = [
        asyncio.create_task(one_after_the_other(port, (1000,), 0, Texts(), huge, end))
        for _ in range(4)
    ]
    await asyncio.sleep(WARM_UP)
    await one_after_the_other(port, (10,), 0, Texts(), small, end)
    await asyncio.gather(*others)
    return small


async def beside_rude(port: int, seconds: float) -> Tally:
    """Clients of ten passages, beside some that hang up at once and some that never finish."""
    tally, end = Tally(), time.perf_counter() + seconds
    stalled = []
    for _ in range(16):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        stalled.append(writer)

    async def hang_up() -> None:
        texts = Texts()
        while time.perf_counter() < end:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request(texts.take(1000)))
            await asyncio.sleep(0.2)
            writer.transport.abort()

    rude = [asyncio.create_task(hang_up()) for _ in range(4)]
    await asyncio.gather(
        *(one_after_the_other(port, (10,), 0, Texts(), tally, end) for _ in range(4)), *rude
    )
    for writer in stalled:
        writer.transport.abort()
    return tally


async def with_a_killed_worker(port: int, pid: int, seconds: float) -> Tally:
    """Clients of ten passages, while one of the server's processes is killed."""
    tally, end = Tally(), time.perf_counter() + seconds
    clients = [
        asyncio.create_task(one_after_the_other(port, (10,), 0, Texts(), tally, end))
        for _ in range(8)
    ]
    await asyncio.sleep(seconds / 3)
    os.kill(serving_children(pid)[0], signal.SIGKILL)
    await asyncio.gather(*clients)
    return tally


async def one_after_the_other(
    port: int, mix: tuple[int, ...], start: int, texts: Texts, tally: Tally, end: float
) -> None:
    """A client: waits for each answer, and as long as it is told to after a refusal."""
    for passages in itertools.islice(itertools.cycle(mix), start % len(mix), None):
        if time.perf_counter() >= end:
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
            await asyncio.sleep(min(wait, max(0.0, end - time.perf_counter())))


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
    body = json.dumps({"query": QUERY, "texts": texts}).encode()
    head = f"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@contextmanager
def server(*flags: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """`flashrank-lite serve`, ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "flashrank_lite", "serve", "--port", str(port)]
    process = subprocess.Popen([*command, "--log-level", "error", *flags])
    try:
        wait_until(lambda: ready(port))
        yield port, process
    finally:
        process.terminate()
        process.wait()


def ready(port: int) -> bool:
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(f"http://127.0.0.1:{port}/ready") as answer:
            return bool(answer.status == ANSWERED)
    except URLError:
        return False


def wait_until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError("the server did not start")
        time.sleep(0.1)


def serving_children(pid: int) -> list[int]:
    """The processes that serve, of a server that has several."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = {int(one): Path(f"/proc/{one}/cmdline").read_bytes() for one in children}
    return [one for one, line in lines.items() if b"spawn_main" in line]


def resident(pid: int) -> int:
    """Resident memory in MB (10^6 bytes)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1_000_000


def told(tally: Tally) -> str:
    return ", ".join(f"{count} × {status}" for status, count in sorted(tally.statuses.items()))


def milliseconds(tally: Tally, passages: int) -> str:
    return f"{tally.percentile(passages, 50):.0f} / {tally.percentile(passages, 99):.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
