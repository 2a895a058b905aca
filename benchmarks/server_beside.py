"""The load of `benchmarks.server_load` on this server and on infinity, with the same weights.

    python -m benchmarks.server_beside --ours FOLDER FOLDER --infinity PROGRAM CHECKPOINT

FOLDER is a model that `flashrank-lite export` wrote of CHECKPOINT. PROGRAM is `infinity_emb`, in an
environment of its own: `pip install "infinity-emb[server,torch]"`. CHECKPOINT is served by its
engine torch and has to hold float32 weights: float16 ones it runs as they are, whatever --dtype
says, which is slower on a CPU. Its engine optimum (0.0.78) opens no local folder: it hands
optimum-onnx 0.1.0 a whole path as the name of the file, which that refuses.

Prints a table in Markdown: all servers in turn, the same clients, on the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.server_clients import milliseconds, told
from benchmarks.server_load import load
from benchmarks.server_process import answers, free_port, server, wait_until


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ours", nargs="+", default=[], metavar="FOLDER")
    parser.add_argument("--infinity", nargs=2, metavar=("PROGRAM", "CHECKPOINT"))
    parser.add_argument("--seconds", type=float, default=45.0)
    parser.add_argument("--connections", type=int, default=64)
    arguments = parser.parse_args()
    print("| server | pairs/s | p50 / p99 of 10 passages | resident, greatest | answers |")
    print("|---|---:|---:|---:|---|")

    def measure(name: str, port: int, pid: int) -> None:
        began = time.perf_counter()
        tally, peak = asyncio.run(load(port, arguments.connections, arguments.seconds, pid))
        rate = tally.pairs / (time.perf_counter() - began)
        times = milliseconds(tally, 10)
        print(f"| {name} | {rate:.0f} | {times} | {peak} MB | {told(tally)} |", flush=True)

    for folder in arguments.ours:
        with server("--model", f"default={Path(folder).resolve()}") as (port, process):
            measure(f"flashrank-lite, {Path(folder).name}", port, process.pid)
    if arguments.infinity:
        with infinity(*arguments.infinity) as (port, pid):
            measure("infinity, torch, float32", port, pid)


@contextmanager
def infinity(program: str, checkpoint: str) -> Iterator[tuple[int, int]]:
    """infinity's server, once it has answered a request."""
    port = free_port()
    flags = f"--engine torch --device cpu --dtype float32 --port {port}".split()
    command = [program, "v2", "--model-id", str(Path(checkpoint).resolve()), *flags]
    environment = {**os.environ, "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [*command, "--served-model-name", "default"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: process.poll() is not None or answers(port))
        if process.poll() is not None:
            sys.exit("infinity ended: run it by hand to see why")
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
