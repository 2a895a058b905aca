"""What `/metrics` shows: counts and times in Prometheus' format, of all processes together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

if TYPE_CHECKING:
    from flashrank_lite.server.scheduler import Scheduler

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client reads it when it is imported
_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STAGES = ("read", "queue", "tokenize", "score", "total")


class Metrics:
    """Counters of one application.

    Attributes:
        requests: answered, by dialect and status.
        errors: by code.
        pairs, tokens, truncated: scored.
        seconds: by stage: reading the body, waiting in the queue, making token ids (a part of
            being scored), being scored, all of it.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        name = "flashrank_lite_"
        self.requests = Counter(
            name + "requests", "Requests answered", ("dialect", "status"), registry=registry
        )
        self.errors = Counter(name + "errors", "Requests refused", ("code",), registry=registry)
        self.pairs = Counter(name + "pairs", "Pairs scored", ("model",), registry=registry)
        self.tokens = Counter(name + "tokens", "Tokens read", ("model",), registry=registry)
        self.truncated = Counter(
            name + "truncated_passages", "Passages not read whole", ("model",), registry=registry
        )
        seconds = Histogram(
            name + "seconds", "Time by stage", ("stage",), buckets=_SECONDS, registry=registry
        )
        self.seconds = {stage: seconds.labels(stage) for stage in _STAGES}
        self._queue_length = Gauge(
            name + "queue_length",
            "Requests of which something waits to be scored",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._queue_tokens = Gauge(
            name + "queue_tokens",
            "Tokens that wait to be scored, about",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._memory = Gauge(
            name + "resident_memory_bytes",
            "Resident memory",
            registry=registry,
            multiprocess_mode="livesum",
        )

    def expose(self, scheduler: Scheduler) -> bytes:
        """The text that Prometheus scrapes."""
        self._queue_length.set(scheduler.waiting())
        self._queue_tokens.set(scheduler.tokens_waiting())
        self._memory.set(resident_bytes())
        if SHARED_FOLDER not in os.environ:
            return generate_latest(self._registry)
        _forget_the_dead(Path(os.environ[SHARED_FOLDER]))
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


def _forget_the_dead(folder: Path) -> None:
    """Leave out what processes that are no more said of themselves last."""
    for file in folder.glob("gauge_live*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            mark_process_dead(int(pid))  # type: ignore[no-untyped-call]


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
