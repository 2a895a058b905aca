"""What a new process pays: import, load, first answer, memory; medians over several processes."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

from benchmarks.texts import example_query, web_passages

CHILD = """
import json, resource, sys, time
query, passages = json.load(sys.stdin)
begin = time.perf_counter()
import flashrank_lite
imported = time.perf_counter()
ranker = flashrank_lite.Ranker(threads=int(sys.argv[1]) or None)
loaded = time.perf_counter()
ranker.rank(query, passages)
first = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
times = [1000 * (b - a) for a, b in zip((begin, imported, loaded), (imported, loaded, first))]
print(json.dumps([*times, 1000 * (first - begin), peak]))
"""
FIGURES = ("import, ms", "load, ms", "first 10 passages, ms", "all of it, ms", "peak memory, MB")


def main() -> None:
    """Print one row a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--processes", type=int, default=9)
    args = parser.parse_args()
    job = json.dumps([example_query(), web_passages(10)])
    command = [sys.executable, "-c", CHILD, str(args.threads)]
    runs = [
        json.loads(
            subprocess.run(command, input=job, capture_output=True, text=True, check=True).stdout
        )
        for _ in range(args.processes + 1)
    ][1:]  # the first one fills the page cache
    print("| bundled model | median |\n|---|---|")
    for name, values in zip(FIGURES, zip(*runs, strict=True), strict=True):
        print(f"| {name} | {statistics.median(values):.0f} |")


if __name__ == "__main__":
    main()
