"""The bundled model reading passages anew, from a cache and from a store, and what a store keeps.

    python -m benchmarks.read_once speed --counts 1,10,100,1000
    python -m benchmarks.read_once precision --lists NAME=FILE ...

`speed` prints the least of some runs in milliseconds of processor time, which a busy machine
changes little, and of wall time; everything in one process, each round taking all ways in turn.
`--other MODEL` adds models that read query and passage together. `precision` sets the bytes of a
passage against nDCG@10 and Kendall's tau to the order of unstored passages.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.texts import example_query, passages
from flashrank_lite import Ranker
from flashrank_lite.evaluation import kendall_tau, mean_ndcg, read_candidate_lists

PRECISIONS = ("int8", "4bit", "2bit")
MANY = 10_000


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    speed = commands.add_parser("speed")
    speed.add_argument("--counts", default="1,10,100,1000")
    speed.add_argument("--rounds", type=int, default=7)
    speed.add_argument("--other", nargs="*", default=[], help="models beside the bundled one")
    precision = commands.add_parser("precision")
    precision.add_argument("--lists", nargs="+", required=True, metavar="NAME=FILE")
    precision.add_argument("--queries", type=int, help="of each set at most")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.command == "speed":
            _speed([int(n) for n in args.counts.split(",")], args.rounds, args.other, Path(folder))
        else:
            _precision(
                dict(entry.split("=", 1) for entry in args.lists), args.queries, Path(folder)
            )


def _speed(counts: list[int], rounds: int, others: list[str], folder: Path) -> None:
    query, texts = example_query(), passages("mixed", max(counts))
    ways: dict[str, Callable[[int], object]] = {}
    with Ranker() as anew, Ranker(passage_cache="2GB") as cached:
        ways["read anew"] = lambda n: anew.rank(query, texts[:n], 10)
        begun = time.process_time()
        stores = {"2bit": anew.encode_passages(texts, folder / "2bit")}
        seconds = time.process_time() - begun
        for precision in ("4bit", "int8"):
            stores[precision] = anew.encode_passages(texts, folder / precision, precision=precision)
        cached.rank(query, texts)
        ways["from the cache (int8)"] = lambda n: cached.rank(query, texts[:n], 10)
        for name, store in stores.items():
            ways[f"from a store ({name})"] = lambda n, store=store: anew.rank(
                query, store.select(range(n)), 10
            )
        for model in others:
            other = Ranker(model, long="truncate")
            ways[model] = lambda n, ranker=other: ranker.rank(query, texts[:n], 10)
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
        for name, store in stores.items():
            size = store.info()["bytes"] / len(texts)
            print(f"{name}: {size:,.0f} bytes a passage with its text and tables")
        whole = seconds / len(texts) * MANY
        print(f"{whole:.0f} s of processor time to encode {MANY:,}, by {len(texts):,} of them")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak {peak / (1 if sys.platform == 'darwin' else 1024):.0f} MB, of all of this")


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
