"""The server under load, over the loopback: nothing lost, memory flat, small requests not starved.

    python -m benchmarks.server_load                  # some six minutes
    python -m benchmarks.server_load --scenes load huge --seconds 10 --connections 16

Prints a table in Markdown, and exits with 1 if a request was neither answered nor refused. Clients
are one more process on the same cores, so the server has fewer than the library that it is compared
with, which runs alone.

The scenes: `load`, mixed sizes on all connections; `huge`, a client of ten passages beside four
that send a thousand; `rude`, beside clients that hang up or stall; `killed`, two workers of which
one is killed while eight clients keep both busy.
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.texts import EXAMPLES

MIX = (10, 10, 1, 10, 100, 10, 10, 1, 10, 30)  # passages of a request, in turn
QUERY = "where did agriculture first arise"
ANSWERED, REFUSED = 200, (429, 503)
SCENES = ("load", "huge", "rude", "killed")
WARM_UP = 2.0  # seconds
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of the mixed load")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=SCENES)
    arguments = parser.parse_args()
    rows: list[tuple[str, str]] = []
    lost = 0
    if "load" in arguments.scenes:
        found, missing = under_load(arguments.connections, arguments.seconds)
        rows, lost = rows + found, lost + missing
    if "huge" in arguments.scenes:
        with server() as (port, _):
            small = asyncio.run(beside_huge(port, arguments.seconds / 3))
        name = "p50 / p99 of 10 passages, four others sending 1,000"
        rows += [(name, milliseconds(small, 10)), ("their answers", told(small))]
        lost += small.lost()
    if "rude" in arguments.scenes:
        with server() as (port, _):
            rude = asyncio.run(beside_rude(port, arguments.seconds / 3))
        rows.append(("beside clients that hang up or stall: answers", told(rude)))
        lost += rude.lost()
    if "killed" in arguments.scenes:
        kill = kill_a_worker(arguments.seconds / 3)
        broken = f"{told(kill.tally)}; {kill.held} were on it"
        rows += [
            ("two workers, one killed: answers, and broken connections", broken),
            ("a new worker had its first request after", f"{kill.seconds:.1f} s"),
        ]
        lost += kill.lost()
    print("| what | measured |\n|---|---:|")
    for name, value in rows:
        print(f"| {name} | {value} |")
    return 1 if lost else 0


def under_load(connections: int, seconds: float) -> tuple[list[tuple[str, str]], int]:
    """The mix on all connections, beside the library alone; rows of the table, and what was lost.

    The library runs before and after, and the mean counts: a machine's speed drifts.
    """
    library = [library_pairs_per_second(min(seconds / 3, 20.0))]
    with server() as (port, process):
        before = resident(process.pid)
        began = time.perf_counter()
        tally, peak = asyncio.run(load(port, connections, seconds, process.pid))
        rate = tally.pairs / (time.perf_counter() - began)  # the last answers come after the end
        after = resident(process.pid)
    library.append(library_pairs_per_second(min(seconds / 3, 20.0)))
    rows = [
        (
            "library alone, same mix, before and after",
            " and ".join(f"{one:.0f}" for one in library),
        ),
        (f"mixed load, {connections} connections", f"{rate:.0f} pairs/s"),
        ("of the library's", f"{rate / float(np.mean(library)):.2f}"),
        ("answers by status", told(tally)),
        ("p50 / p99 of 1 passage", milliseconds(tally, 1)),
        ("p50 / p99 of 10 passages", milliseconds(tally, 10)),
        ("p50 / p99 of 100 passages", milliseconds(tally, 100)),
        ("resident before, greatest, after", f"{before}, {peak}, {after} MB"),
    ]
    return rows, tally.lost()


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


async def load(port: int, connections: int, seconds: float, pid: int) -> tuple[Tally, int]:
    """Connections that each send one request after the other; and the greatest memory."""
    tally, texts, peak = Tally(), Texts(), 0
    over = after(seconds)
    clients = [
        asyncio.create_task(one_after_the_other(port, MIX, start, texts, tally, over))
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
    over = after(seconds)
    others = [
        asyncio.create_task(one_after_the_other(port, (1000,), 0, Texts(), huge, over))
        for _ in range(4)
    ]
    await asyncio.sleep(WARM_UP)
    await one_after_the_other(port, (10,), 0, Texts(), small, over)
    await asyncio.gather(*others)
    return small


async def beside_rude(port: int, seconds: float) -> Tally:
    """Clients of ten passages, beside some that hang up at once and some that never finish."""
    tally, over = Tally(), after(seconds)
    stalled = []
    for _ in range(16):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        stalled.append(writer)

    async def hang_up() -> None:
        texts = Texts()
        while not over():
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request(texts.take(1000)))
            await asyncio.sleep(0.2)
            writer.transport.abort()

    rude = [asyncio.create_task(hang_up()) for _ in range(4)]
    await asyncio.gather(
        *(one_after_the_other(port, (10,), 0, Texts(), tally, over) for _ in range(4)), *rude
    )
    for writer in stalled:
        writer.transport.abort()
    return tally


@dataclass(frozen=True)
class Kill:
    """What became of the requests of clients while one of two processes was killed.

    Attributes:
        tally: of all requests; those without an answer are `broken`.
        held: connections that the killed process had at that moment: these may break, no others.
        seconds: until a new process had a request of its own.
    """

    tally: Tally
    held: int
    seconds: float

    def lost(self) -> int:
        """Requests without an answer that the killed process did not have."""
        broken = self.tally.statuses["broken"]
        return self.tally.lost() - min(broken, self.held)


def kill_a_worker(seconds: float, clients: int = 8) -> Kill:
    """Clients of ten passages, one request after the other, while one of two processes is killed.

    Args:
        seconds: that the clients go on at least, and until a new process has taken a request.
        clients: that many.
    """
    with server("--workers", "2", "--threads", "1") as (port, process):
        wait_until(lambda: len(serving_children(process.pid)) == 2)
        return asyncio.run(_kill_a_worker(port, process.pid, seconds, clients))


async def _kill_a_worker(port: int, pid: int, seconds: float, clients: int) -> Kill:
    tally, over = Tally(), asyncio.Event()
    asking = [
        asyncio.create_task(one_after_the_other(port, (10,), 0, Texts(), tally, over.is_set))
        for _ in range(clients)
    ]
    began = time.perf_counter()
    before = serving_children(pid)
    await asyncio.sleep(seconds / 3)
    while not all(connections_of(one, port) for one in before):  # both are at work
        await asyncio.sleep(0.01)
    victim = max(before, key=lambda one: connections_of(one, port))
    os.kill(victim, signal.SIGSTOP)  # so that what it has can be counted
    held = connections_of(victim, port)
    os.kill(victim, signal.SIGKILL)
    killed = time.perf_counter()
    while not any(connections_of(one, port) for one in {*serving_children(pid)} - {*before}):
        if time.perf_counter() - killed > PATIENCE:
            raise TimeoutError("the killed process was not replaced")
        await asyncio.sleep(0.05)
    replaced = time.perf_counter() - killed
    await asyncio.sleep(max(0.0, began + seconds - time.perf_counter()))
    over.set()
    await asyncio.gather(*asking)
    return Kill(tally, held, replaced)


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


@contextmanager
def server(*flags: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """`flashrank-lite serve`, ready."""
    port = free_port()
    command = [sys.executable, "-m", "flashrank_lite", "serve", "--port", str(port)]
    process = subprocess.Popen([*command, "--log-level", "error", *flags])
    try:
        wait_until(lambda: answers(port))
        yield port, process
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Whether a server ranks."""
    try:
        status, _ = asyncio.run(ask(port, ["a text"]))
    except (OSError, asyncio.IncompleteReadError):
        return False
    return status == ANSWERED


def wait_until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError("the server did not start")
        time.sleep(0.1)


def after(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have passed since now."""
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= end


def connections_of(pid: int, port: int) -> int:
    """Established connections to the port that a process has accepted."""
    sockets = set()
    with suppress(OSError):  # it ends, or a descriptor is closed meanwhile
        for one in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                sockets.add(one.readlink().name)
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(
        row[1].endswith(f":{port:04X}") and row[3] == "01" and f"socket:[{row[9]}]" in sockets
        for row in rows
    )


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
