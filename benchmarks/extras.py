"""Measurements other than lists: the floor, the import, installed sizes, small functions."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engines import ENGINES, NANO, OURS, Engine
from benchmarks.environments import Environments, NotInstalled, wheel_megabytes
from benchmarks.measure import COLD_PASSAGES, Bench
from benchmarks.processes import Worker, WorkerFailed, environment
from benchmarks.results import Record
from benchmarks.texts import example_query, passages

FLOOR_ENGINES = (OURS, "ours, our fp32", NANO)
IMPORT_STARTS = 15
LAMBDA_MEMORY_MB = (512, 1024, 1769, 3008)  # 1,769 MB is where a function has one whole core
LAMBDA_CORE_MB = 1769
_CGROUPS = Path("/sys/fs/cgroup")
_PERIOD = 100_000  # microseconds of a cgroup's quota


def floor(bench: Bench, shape: str, rounds: int) -> list[Record]:
    """100 mixed passages beside the time of their matrix products, by onnxruntime's profile.

    A profiled worker and a plain one take turns; products are summed over all rounds, and divided
    by the batches that run side by side.
    """
    records: list[Record] = []
    for engine in ENGINES:
        if engine.name in FLOOR_ENGINES and bench.takes(engine):
            record: Record = {"engine": engine.name}
            try:
                record |= _floor(bench, engine, shape, rounds)
            except (WorkerFailed, NotInstalled) as error:
                record["failed"] = str(error)
            records.append(record)
    return records


def _floor(bench: Bench, engine: Engine, shape: str, rounds: int) -> Record:
    cores = len(bench.cores)
    with tempfile.TemporaryDirectory() as folder:
        profiled, _ = bench.start(engine, shape, cores, profile=folder)
        plain, _ = bench.start(engine, shape, cores)
        with profiled, plain:
            times: list[float] = []
            for worker in (profiled, plain):
                worker.ask("texts", query=example_query(), passages=passages("mixed", 100))
            plain.ask("score")
            for _ in range(rounds):
                profiled.ask("score")
                times.append(plain.ask("score")["ms"])
            profile = profiled.ask("profile")
    shared = rounds * profile["at_once"]
    each = {name: value / shared for name, value in profile["operators_ms"].items()}
    return {
        "ms": times,
        "products_ms": sum(v for n, v in each.items() if _is_product(n)),
        "fused_attention_ms": sum(v for n, v in each.items() if "Attention" in n),
        "operators_ms": each,
    }


def _is_product(operator: str) -> bool:
    return "MatMul" in operator or "Gemm" in operator


def imports(environments: Environments) -> Record:
    """Milliseconds of `import flashrank_lite` over bare Python, processes taking turns."""
    python = environments.python("flashrank-lite")
    times: dict[str, list[float]] = {"pass": [], "import flashrank_lite": []}
    for number in range(IMPORT_STARTS + 1):
        for code, found in times.items():
            begun = time.perf_counter()
            subprocess.run([python, "-I", "-c", code], check=True, env=environment())
            if number:
                found.append(1000 * (time.perf_counter() - begun))
    bare, ours = times.values()
    return {"bare_ms": bare, "import_ms": ours}


def sizes(environments: Environments, names: list[str], scratch: Path) -> list[Record]:
    """Installed megabytes and versions of each environment, and of our wheel."""
    records: list[Record] = []
    for name in names:
        record: Record = {"environment": name}
        try:
            record |= {
                "megabytes": environments.megabytes(name),
                "versions": environments.versions(name),
            }
            if name == "flashrank-lite":
                record["wheel_megabytes"] = wheel_megabytes(environments, scratch)
        except (NotInstalled, OSError, subprocess.CalledProcessError) as error:
            record["failed"] = str(error)
        records.append(record)
    return records


@dataclass(frozen=True)
class Limit:
    """What a function of some memory has: that memory, and its share of the cores."""

    memory_mb: int

    @property
    def cores(self) -> float:
        """Cores, as AWS Lambda grants them with memory."""
        return self.memory_mb / LAMBDA_CORE_MB


def functions(environments: Environments, all_cores: list[int], rounds: int) -> list[Record]:
    """The bundled model under Lambda's limits: cold start, then lists of 10 and 100."""
    records: list[Record] = []
    for megabytes in LAMBDA_MEMORY_MB:
        limit = Limit(megabytes)
        record: Record = {"memory_mb": megabytes, "cores": round(limit.cores, 2), "cold_ms": []}
        records.append(record)
        try:
            for _ in range(max(1, rounds)):
                with limited(limit) as (join, _):
                    _function(environments.python("flashrank-lite"), all_cores, join, record)
        except (WorkerFailed, OSError) as error:
            record["failed"] = str(error)
            print(f"  {megabytes} MB: {error}", file=sys.stderr, flush=True)
    return records


def _function(python: Path, cores: list[int], join: Callable[[], None], record: Record) -> None:
    with Worker(python, cores, join) as worker:
        loaded = worker.ask("load", kind="flashrank_lite", model="", cores=len(cores))
        worker.ask("texts", query=example_query(), passages=passages("mixed", COLD_PASSAGES))
        first = worker.ask("score")["ms"]
        record["cold_ms"].append(1000 * (loaded["ready"] - worker.begun) + first)
        for count in (10, 100):
            worker.ask("texts", query=example_query(), passages=passages("mixed", count))
            times = [worker.ask("score")["ms"] for _ in range(3)]
            record.setdefault(f"warm_{count}_ms", []).append(statistics.median(times))
        record.setdefault("peak_mb", []).append(worker.ask("memory")["peak_mb"])


@contextmanager
def limited(limit: Limit) -> Iterator[tuple[Callable[[], None], list[Path]]]:
    """Control groups with these limits; yields what a child calls to be in them, and the groups.

    Raises:
        OSError: control groups cannot be made here; it takes root and a writable /sys/fs/cgroup.
    """
    name = f"flashrank-lite-bench-{os.getpid()}"
    memory, quota = limit.memory_mb * 2**20, int(limit.cores * _PERIOD)
    if (_CGROUPS / "cgroup.controllers").exists():  # version 2
        groups = {
            _CGROUPS / name: {"memory.max": memory, "cpu.max": f"{quota} {_PERIOD}"},
        }
    else:
        groups = {
            _CGROUPS / "memory" / name: {"memory.limit_in_bytes": memory},
            _CGROUPS / "cpu" / name: {"cpu.cfs_period_us": _PERIOD, "cpu.cfs_quota_us": quota},
        }
    made: list[Path] = []
    try:
        for group, values in groups.items():
            group.mkdir()
            made.append(group)
            for file, value in values.items():
                (group / file).write_text(str(value), encoding="ascii")

        def join() -> None:
            for group in made:
                (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")

        yield join, made
    finally:
        for group in made:
            _remove(group)


def _remove(group: Path) -> None:
    for _ in range(50):  # a process that has just ended still counts for a moment
        try:
            group.rmdir()
            return
        except OSError:
            time.sleep(0.05)
    print(f"left behind: {group}", file=sys.stderr)
