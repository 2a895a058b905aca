"""Measures one cell at a time: workers take turns, and their scores are compared."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.cells import Cell
from benchmarks.engines import REFERENCE, Engine
from benchmarks.environments import Environments, NotInstalled
from benchmarks.processes import Worker, WorkerFailed
from benchmarks.results import Record
from benchmarks.texts import example_query, passages

TOLERANCE = 1e-3  # of scores in [0, 1], between engines that run the same fp32 weights
LEAST_ROUNDS = 3
COLD_PASSAGES = 10
SETTLE = 0.05  # seconds between turns: threads of the last engine may spin on after their work
WARMING = 5  # passages, before a list that is only run once in a process


class Bench:
    """What all cells share.

    Args:
        environments: the environments of the engines.
        weights: the folder of a shape's weights, made when first asked for.
        cores: the cores that may be used, by number.
        repeats: rounds of a cell at most.
        seconds: for the rounds of a cell, all engines together; `LEAST_ROUNDS` come first.
        takes: whether an engine takes part.
    """

    def __init__(
        self,
        environments: Environments,
        weights: Callable[[str], Path],
        cores: Sequence[int],
        repeats: int,
        seconds: float,
        takes: Callable[[Engine], bool],
    ) -> None:
        self.environments, self.cores = environments, cores
        self._weights, self.takes = weights, takes
        self._repeats, self._seconds = repeats, seconds

    def start(
        self, engine: Engine, shape: str, cores: int, **options: object
    ) -> tuple[Worker, Record]:
        """A loaded worker, and what it said of its loading.

        Raises:
            WorkerFailed: it could not be loaded.
            NotInstalled: its environment could not be built.
        """
        model = engine.model(self._weights(shape), shape) if engine.folder else ""
        worker = Worker(self.environments.python(engine.environment), self.cores[:cores])
        try:
            return worker, worker.ask("load", kind=engine.kind, model=model, cores=cores, **options)
        except WorkerFailed:
            worker.close()
            raise

    def cell(self, cell: Cell) -> list[Record]:
        """One record an engine: times, processor seconds, peak memory, agreement with ours."""
        engines = [engine for engine in cell.engines if self.takes(engine)]
        texts = passages(cell.kind, cell.count)
        records: dict[str, Record] = {
            engine.name: {"engine": engine.name, "ms": [], "cpu_s": [], "peak_mb": []}
            for engine in engines
        }
        run = self._heavy if cell.heavy else self._light
        scores = run(cell, engines, texts, records)
        compare(engines, scores, records)
        return list(records.values())

    def _light(
        self, cell: Cell, engines: list[Engine], texts: list[str], records: Mapping[str, Record]
    ) -> dict[str, list[float]]:
        """All workers loaded together, one list each in turn; the first round warms up."""
        workers: dict[str, Worker] = {}
        scores: dict[str, list[float]] = {}
        try:
            for engine in engines:
                with _noted(records[engine.name]) as noted:
                    worker, _ = self.start(engine, cell.shape, cell.cores)
                    workers[engine.name] = worker
                    worker.ask("texts", query=example_query(), passages=texts)
                    scores[engine.name] = worker.ask("score")["scores"]
                if noted.failed and engine.name in workers:
                    workers.pop(engine.name).close()
            rounds, begun = 0, time.monotonic()
            while workers and self._more(rounds, begun):
                # every other round the other way round, so that no one always follows the same
                for name in list(workers)[:: 1 if rounds % 2 else -1]:
                    with _noted(records[name]) as noted:
                        time.sleep(SETTLE)
                        _keep(records[name], workers[name].ask("score", callers=cell.callers))
                    if noted.failed:
                        workers.pop(name).close()
                rounds += 1
            for name, worker in workers.items():
                with _noted(records[name]):
                    records[name]["peak_mb"] = [worker.ask("memory")["peak_mb"]]
        finally:
            for worker in workers.values():
                worker.close()
        return scores

    def _heavy(
        self, cell: Cell, engines: list[Engine], texts: list[str], records: Mapping[str, Record]
    ) -> dict[str, list[float]]:
        """A new process each time, one at a time: what it has kept is gone with it."""
        scores: dict[str, list[float]] = {}
        rounds, begun, least = 0, time.monotonic(), 1 if cell.count > 100 else LEAST_ROUNDS
        while self._more(rounds, begun, least):
            for engine in engines:
                record = records[engine.name]
                if "failed" in record:
                    continue
                with _noted(record):
                    worker, _ = self.start(engine, cell.shape, cell.cores)
                    with worker:
                        worker.ask("texts", query=example_query(), passages=texts[:WARMING])
                        worker.ask("score")
                        worker.ask("texts", query=example_query(), passages=texts)
                        answer = worker.ask("score", callers=cell.callers)
                        _keep(record, answer)
                        scores[engine.name] = answer["scores"]
                        record["peak_mb"].append(worker.ask("memory")["peak_mb"])
            rounds += 1
        return scores

    def cold(self, shape: str, engines: Iterable[Engine]) -> list[Record]:
        """New processes, from exec to the first scores; the first start only fills page caches."""
        texts = passages("mixed", COLD_PASSAGES)
        records = {e.name: _cold_record(e.name) for e in engines if self.takes(e)}
        takers = [engine for engine in engines if engine.name in records]
        rounds, begun = 0, time.monotonic()
        while self._more(max(0, rounds - 1), begun):
            for engine in takers:
                record = records[engine.name]
                if "failed" in record:
                    continue
                with _noted(record):
                    found = self._cold_start(engine, shape, texts)
                    if rounds:
                        for name, value in found.items():
                            record[name].append(value)
            rounds += 1
        return list(records.values())

    def _cold_start(self, engine: Engine, shape: str, texts: list[str]) -> dict[str, float]:
        worker, loaded = self.start(engine, shape, len(self.cores))
        with worker:
            worker.ask("texts", query=example_query(), passages=texts)
            answer = worker.ask("score")
            # the way of the texts to the worker is not the engine's time
            total = 1000 * (loaded["ready"] - worker.begun) + answer["ms"]
            return {
                "total_ms": total,
                "interpreter_ms": 1000 * (loaded["started"] - worker.begun),
                "import_ms": loaded["import_ms"],
                "load_ms": loaded["load_ms"],
                "first_ms": answer["ms"],
                "peak_mb": worker.ask("memory")["peak_mb"],
            }

    def _more(self, rounds: int, begun: float, least: int = LEAST_ROUNDS) -> bool:
        if rounds < min(least, self._repeats):
            return True
        # what one more round would take is not to go over the time by much
        spent = time.monotonic() - begun
        return rounds < self._repeats and spent * (rounds + 0.5) / rounds < self._seconds


class _noted:
    """An engine's failure is a result of that engine, not the end of the run."""

    def __init__(self, record: Record) -> None:
        self._record, self.failed = record, False

    def __enter__(self) -> _noted:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, (WorkerFailed, NotInstalled)):
            return False
        self.failed, self._record["failed"] = True, str(error)
        print(f"  {self._record['engine']}: {error}", file=sys.stderr, flush=True)
        return True


def _cold_record(name: str) -> Record:
    fields = ("total_ms", "interpreter_ms", "import_ms", "load_ms", "first_ms", "peak_mb")
    return {"engine": name, **{field: [] for field in fields}}


def _keep(record: Record, answer: Record) -> None:
    record["ms"].append(answer["ms"])
    record["cpu_s"].append(answer["cpu_s"])
    record["callers_differ"] = max(record.get("callers_differ", 0.0), answer["callers_differ"])


def compare(
    engines: Iterable[Engine],
    scores: Mapping[str, Sequence[float]],
    records: Mapping[str, Record],
) -> None:
    """How far the scores are from ours on the plain fp32 file, and whether they may be."""
    if REFERENCE not in scores:
        return
    ours = np.array(scores[REFERENCE])
    for engine in engines:
        if engine.name not in scores or not engine.folder:  # nano is another model
            continue
        theirs = np.array(scores[engine.name])
        record = records[engine.name]
        record["differs"] = float(np.abs(theirs - ours).max())
        record["same_order"] = _same_order(ours, theirs)
        if engine.exact:
            record["agrees"] = bool(record["differs"] <= TOLERANCE)


def _same_order(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Share of the pairs of passages ordered alike, of those further apart than the tolerance."""
    gaps = ours[:, None] - ours[None, :]
    clear = gaps > TOLERANCE
    return float((theirs[:, None] > theirs[None, :])[clear].mean()) if clear.any() else 1.0
