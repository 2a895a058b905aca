"""The parent's side of a worker: start it on given cores, send requests, report why it failed."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("worker.py")
PATIENCE = 900  # seconds for one answer
_DROPPED = ("FLASHRANK_LITE_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONPATH")


class WorkerFailed(Exception):
    """The engine raised, or its process died; the message has its error or last output."""


class Worker:
    """A process that runs `worker.py` in an engine's environment.

    Args:
        python: the environment's interpreter.
        cores: the cores it may use.
        joined: called in the child before it runs, to put it under limits.
    """

    def __init__(
        self,
        python: Path,
        cores: Sequence[int],
        joined: Callable[[], None] | None = None,
    ) -> None:
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115

        def prepare() -> None:
            os.sched_setaffinity(0, cores)
            if joined:
                joined()

        self.begun = time.monotonic()
        self._process = subprocess.Popen(
            [python, "-I", str(WORKER)],  # isolated: what lies beside the worker is not importable
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            encoding="utf-8",
            env=environment(),
            preexec_fn=prepare,
        )

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send one command and wait for its answer.

        Raises:
            WorkerFailed: the engine raised, the process died, or it took longer than `PATIENCE`.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        timer = threading.Timer(PATIENCE, self._process.kill)
        timer.start()
        try:
            stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line:
            raise WorkerFailed(self._why())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            if stream is not None:
                with suppress(BrokenPipeError):  # what a dead process was still to be told
                    stream.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _why(self) -> str:
        status = self._process.wait()
        self._said.seek(0)
        last = (self._said.read().strip().splitlines() or ["it said nothing"])[-1]
        if status == -9:
            return f"killed: out of memory, or no answer within {PATIENCE} s ({last})"
        return f"exit status {status}: {last}"


def environment() -> dict[str, str]:
    """What every child gets: nothing that favours one engine, no telemetry, no network."""
    kept = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    return kept | {
        "ORT_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
