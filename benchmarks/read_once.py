"""The bundled model reading passages anew, from a cache and from a store, and what a store keeps.

    python -m benchmarks.read_once speed --counts 1,10,100,1000
    python -m benchmarks.read_once memory
    python -m benchmarks.read_once precision --lists NAME=FILE ...

`speed` prints the least of some runs in milliseconds of processor time, which a busy machine
changes little, and of wall time; everything in one process, each round taking all ways in turn.
`memory` prints what a process has at most that goes one way alone, after ranking 100 passages.
`--other NAME=MODEL` adds models that read query and passage together, `--flashrank FOLDER` the
package FlashRank over weights where it looks for them (`benchmarks.weights` lays them out).
`precision` sets the bytes of a passage against nDCG@10 and Kendall's tau to the order of unstored
passages.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import worker
from benchmarks.texts import example_query, passages
from flashrank_lite import PassageStore, Ranker
from flashrank_lite.evaluation import kendall_tau, mean_ndcg, read_candidate_lists

PRECISIONS = ("int8", "4bit", "2bit")
STORES = {f"from a store ({precision})": precision for precision in reversed(PRECISIONS)}
ANEW, CACHED, FLASHRANK = "read anew", "from the cache (int8)", "flashrank"
MANY = 10_000
FEW = 100  # passages that `memory` ranks

Way = Callable[[int], object]  # ranks so many passages


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    speed = commands.add_parser("speed")
    speed.add_argument("--counts", default="1,10,100,1000")
    speed.add_argument("--rounds", type=int, default=7)
    memory = commands.add_parser("memory")
    for command in (speed, memory):
        command.add_argument("--other", nargs="*", default=[], metavar="NAME=MODEL")
        command.add_argument("--flashrank", metavar="FOLDER")
    precision = commands.add_parser("precision")
    precision.add_argument("--lists", nargs="+", required=True, metavar="NAME=FILE")
    precision.add_argument("--queries", type=int, help="of each set at most")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.command == "precision":
            _precision(
                dict(entry.split("=", 1) for entry in args.lists), args.queries, Path(folder)
            )
            return
        others = dict(entry.split("=", 1) for entry in args.other)
        if args.flashrank:
            others[FLASHRANK] = args.flashrank
        if args.command == "speed":
            counts = [int(number) for number in args.counts.split(",")]
            _speed(counts, args.rounds, others, Path(folder))
        else:
            _memory(others, Path(folder))


def _open(name: str, texts: list[str], folder: Path, others: dict[str, str]) -> Way:
    """One of the ways to rank the first of `texts`."""
    query = example_query()
    if name == FLASHRANK:
        score = worker.flashrank(others[name], 0, lambda: None)
        return lambda count: score(query, texts[:count])
    if name in STORES:
        ranker, store = Ranker(), PassageStore.open(folder / STORES[name])
        return lambda count: ranker.rank(query, store.select(range(count)), 10)
    if name == CACHED:
        cached = Ranker(passage_cache="2GB")
        cached.rank(query, texts)
        return lambda count: cached.rank(query, texts[:count], 10)
    other = Ranker(others.get(name), long="truncate" if name in others else "windows")
    return lambda count: other.rank(query, texts[:count], 10)


def _encode(texts: list[str], folder: Path) -> float:
    """Make the stores; the seconds of processor time that the default one takes."""
    seconds = 0.0
    with Ranker() as ranker:
        ranker.rank(example_query(), texts[:8])
        for precision in STORES.values():
            begun = time.process_time()
            store = ranker.encode_passages(texts, folder / precision, precision=precision)
            seconds = seconds or time.process_time() - begun
            size = store.info()["bytes"] / len(texts)
            print(f"{precision}: {size:,.0f} bytes a passage on disk, with its text and tables")
    return seconds


def _speed(counts: list[int], rounds: int, others: dict[str, str], folder: Path) -> None:
    texts = passages("mixed", max(counts))
    whole = _encode(texts, folder) / len(texts) * MANY
    print(f"{whole:.0f} s of processor time to encode {MANY:,}, by {len(texts):,} of them")
    names = [ANEW, CACHED, *STORES, *others]
    ways = {name: _open(name, texts, folder, others) for name in names}
    print("| ms of processor time (wall) |", " | ".join(map(str, counts)), "|")
    print("|---|" + "---|" * len(counts))
    least = {name: [(np.inf, np.inf)] * len(counts) for name in ways}
    for place, count in enumerate(counts):
        for _ in range(rounds if count < 1000 else max(2, rounds // 2)):
            for name, way in ways.items():
                processor, wall = time.process_time(), time.perf_counter()
                way(count)
                took = time.process_time() - processor, time.perf_counter() - wall
                before = least[name][place]
                least[name][place] = min(took[0], before[0]), min(took[1], before[1])
    for name, row in least.items():
        cells = [f"{1000 * used:.1f} ({1000 * wall:.1f})" for used, wall in row]
        print(f"| {name} |", " | ".join(cells), "|")


def _memory(others: dict[str, str], folder: Path) -> None:
    _encode(passages("mixed", FEW), folder)
    print(f"| MB at most, after ranking {FEW} passages | |")
    print("|---|---|")
    context = multiprocessing.get_context("spawn")
    for name in (ANEW, CACHED, *STORES, *others):
        with context.Pool(1) as pool:
            peak = pool.apply(_peak, (name, folder, others))
        print(f"| {name} | {peak:.0f} |", flush=True)


def _peak(name: str, folder: Path, others: dict[str, str]) -> float:
    """What this process has at most, going one way, in MB."""
    way = _open(name, passages("mixed", FEW), folder, others)
    for _ in range(3):
        way(FEW)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 1024)


def _precision(files: dict[str, str], queries: int | None, folder: Path) -> None:
    print("| set | states | nDCG@10 | tau | largest difference of a logit | bytes a passage |")
    print("|---|---|---|---|---|---|")
    for name, file in files.items():
        lists = read_candidate_lists(file)[:queries]
        texts = list(dict.fromkeys(text for one in lists for text in one.texts))
        number = {text: place for place, text in enumerate(texts)}
        with Ranker(activation="raw") as ranker:
            # in one call, which reads a text once that stands in many lists
            pairs = [(one.query, text) for one in lists for text in one.texts]
            ends = np.cumsum([len(one.texts) for one in lists])
            anew = np.split(ranker.score_pairs(pairs), ends[:-1])
            print(f"| {name} | anew | {mean_ndcg(lists, anew):.4f} | | | |", flush=True)
            for precision in PRECISIONS:
                path = folder / f"{name}-{precision}"
                store = ranker.encode_passages(texts, path, precision=precision, texts=False)
                found = [
                    ranker.score(one.query, store.select([number[text] for text in one.texts]))
                    for one in lists
                ]
                tau = np.mean([kendall_tau(a, b) for a, b in zip(anew, found, strict=True)])
                apart = max(float(abs(a - b).max()) for a, b in zip(anew, found, strict=True))
                size = store.info()["bytes"] / len(texts)
                print(
                    f"| {name} | {precision} | {mean_ndcg(lists, found):.4f} | {tau:.4f} | "
                    f"{apart:.2f} | {size:,.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
