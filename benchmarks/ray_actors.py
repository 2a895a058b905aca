"""Throughput of Ray Data by the number of actors: `python -m benchmarks.ray_actors`.

Each actor has one CPU and so one thread. The time is that between the first batch that an actor
finished and the last one, so Ray's own start and the opening of models are not in it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data

from flashrank_lite.integrations.ray import ScorePairs

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "questions.jsonl"
BATCH = 50  # pairs


class Timed(ScorePairs):
    """Adds when a batch was finished, and by which process."""

    def __call__(self, batch: Any) -> Any:
        import os

        scored = super().__call__(batch)
        count = len(scored["score"])
        return {"done": np.full(count, time.time()), "actor": np.full(count, os.getpid())}


def main() -> None:
    """Print pairs a second for each number of actors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()

    ray.init(num_cpus=max(args.actors) + 1, include_dashboard=False, log_to_driver=False)
    pairs = ray.data.from_items(_pairs(args.pairs)).materialize()
    for number in range(args.rounds):
        for actors in args.actors:
            rows = pairs.map_batches(
                Timed,
                compute=ray.data.ActorPoolStrategy(size=actors),
                num_cpus=1,
                batch_size=BATCH,
            ).take_all()
            print(f"round {number}, {actors} actors: {_rate(rows):.0f} pairs a second", flush=True)


def _pairs(count: int) -> list[dict[str, str]]:
    """Real texts, each made another one by a number, because equal pairs are scored once."""
    rows = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
    given = [(row["query"], passage["text"]) for row in rows for passage in row["passages"]]
    return [
        {"query": given[n % len(given)][0], "text": f"{n} {given[n % len(given)][1]}"}
        for n in range(count)
    ]


def _rate(rows: list[dict[str, Any]]) -> float:
    times: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        times[row["actor"]].append(row["done"])
    first = min(min(done) for done in times.values())
    last = max(max(done) for done in times.values())
    counted = sum(sum(moment > first for moment in done) for done in times.values())
    return counted / (last - first)


if __name__ == "__main__":
    main()
