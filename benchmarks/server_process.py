"""A server in a process of its own: started, asked whether it ranks, and looked into."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.server_clients import ANSWERED, PATIENCE, ask


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
