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
import os
import signal
import sys
import time
from dataclasses import dataclass

import numpy as np

from benchmarks.server_clients import (
    MIX,
    PATIENCE,
    QUERY,
    Tally,
    Texts,
    after,
    milliseconds,
    one_after_the_other,
    request,
    told,
)
from benchmarks.server_process import (
    connections_of,
    resident,
    server,
    serving_children,
    wait_until,
)

SCENES = ("load", "huge", "rude", "killed")
WARM_UP = 2.0  # seconds


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


if __name__ == "__main__":
    sys.exit(main())
