"""`flashrank-lite bench`: how fast models are on this machine, on the user's own passages."""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flashrank_lite.cli import flags
from flashrank_lite.cli.command import Command
from flashrank_lite.cli.tables import Cell, Column, write_table
from flashrank_lite.errors import InvalidInput
from flashrank_lite.reading import read_file

if TYPE_CHECKING:
    from flashrank_lite.cli.screen import Screen
    from flashrank_lite.ranker import Ranker

COUNTS = (1, 10, 100)
REPEATS = 9
BUNDLED = "bundled"

EXAMPLES = """\
examples:
  flashrank-lite bench "where did agriculture first arise" examples/agriculture.jsonl --repeats 3
  flashrank-lite bench "corn" examples/agriculture.jsonl --field title --model nano --threads 1
  flashrank-lite bench "corn" examples/agriculture.jsonl --counts 1,5 --format json

FILE is read as by rank. Models take turns, list by list, so that other load on the machine falls on
all alike: trust the ratios more than the milliseconds.
"""


def run(arguments: argparse.Namespace) -> int:
    """Measure and write the result; the exit status."""
    from flashrank_lite.cli.screen import Screen, write_json

    flags.check_not_typed(arguments.source)
    passages = read_file(arguments.source, flags.read_options(arguments))
    if not passages:
        raise InvalidInput("there are no passages to measure on: give a file that holds some")
    screen = Screen.of_stdout()
    facts = measure(
        arguments.query,
        passages,
        models=arguments.model or [None],
        counts=arguments.counts,
        repeats=arguments.repeats,
        **flags.given(arguments, flags.MODEL),
    )
    if screen.choose(arguments.format, "table", "json") == "json":
        write_json(facts, screen, lines=False)
    else:
        write_measured(facts, screen)
    return 0


def measure(
    query: str,
    passages: Sequence[Any],
    *,
    models: Sequence[str | None],
    counts: Sequence[int] = COUNTS,
    repeats: int = REPEATS,
    **options: Any,
) -> dict[str, Any]:
    """Time lists of the first passages, models taking turns.

    Args:
        query: what the passages are ranked for.
        passages: as for `Ranker.rank`.
        models: names, repositories or folders; None for the bundled one.
        counts: lengths of the lists; longer than `passages` means all of them.
        repeats: timed rounds, after one that warms up.
        options: for every `Ranker`.

    Returns:
        JSON-clean: `models`, each with `info`, `load_ms` and, for each length of list,
        `milliseconds` of every round, `processor_seconds` of a round and `truncated` passages;
        `peak_memory_mb` of this process (10^6 bytes, None where the system does not say) and what
        it ran on.
    """
    from flashrank_lite.ranker import Ranker

    sizes = sorted({min(count, len(passages)) for count in counts})
    rankers: list[Ranker] = []
    found: list[dict[str, Any]] = []
    try:
        for model in models:
            begun = time.perf_counter()
            rankers.append(Ranker(model, **options))
            loaded = 1000 * (time.perf_counter() - begun)
            label = model or BUNDLED
            found.append(
                {"model": label, "load_ms": loaded, "info": rankers[-1].info(), "lists": []}
            )
        for size in sizes:
            results = _take_turns(rankers, query, list(passages[:size]), repeats)
            for entry, result in zip(found, results, strict=True):
                entry["lists"].append(result)
    finally:
        for ranker in rankers:
            ranker.close()
    return {
        "machine": f"{platform.platform()}, Python {platform.python_version()}",
        "repeats": repeats,
        "models": found,
        "peak_memory_mb": _peak_memory(),
    }


def _take_turns(
    rankers: Sequence[Ranker], query: str, passages: list[Any], repeats: int
) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for ranker in rankers:
        hits = ranker.rank(query, passages)  # warms up
        truncated = sum(hit.truncated for hit in hits)
        results.append({"passages": len(passages), "truncated": truncated, "milliseconds": []})
    spent = [0.0] * len(rankers)
    for _ in range(repeats):
        for place, ranker in enumerate(rankers):
            begun, used = time.perf_counter(), time.process_time()
            ranker.rank(query, passages)
            spent[place] += time.process_time() - used
            results[place]["milliseconds"].append(1000 * (time.perf_counter() - begun))
    for result, seconds in zip(results, spent, strict=True):
        result["processor_seconds"] = seconds / repeats
    return results


def write_measured(facts: dict[str, Any], screen: Screen) -> None:
    """Write what was measured as a table; with several models its last column compares."""
    import numpy as np

    columns = [
        Column("passages", right=True),
        Column("model"),
        *(Column(head, right=True) for head in ("median ms", "p95 ms", "passages/s", "cpu s")),
    ]
    several = len(facts["models"]) > 1
    if several:
        columns.append(Column("time / first", right=True))
    rows = []
    for place, first in enumerate(facts["models"][0]["lists"]):
        for entry in facts["models"]:
            result = entry["lists"][place]
            times = np.asarray(result["milliseconds"])
            median, p95 = np.percentile(times, [50, 95])
            row = [
                str(result["passages"]),
                entry["model"],
                f"{median:.1f}",
                f"{p95:.1f}",
                f"{1000 * result['passages'] / median:.0f}",
                f"{result['processor_seconds']:.3f}",
            ]
            if several:
                row.append(f"{np.median(times / np.asarray(first['milliseconds'])):.2f}")
            rows.append([Cell(text) for text in row])
    write_table(columns, rows, screen)
    for entry in facts["models"]:
        info = entry["info"]
        cut = max(result["truncated"] for result in entry["lists"])
        screen.write(
            f"{entry['model']}: {info['graph']}, {info['threads']} threads "
            f"({info['threads_source']}), loaded in {entry['load_ms']:.0f} ms"
            + (f", {cut} passages cut to {info['max_length']} tokens" if cut else "")
        )
    peak = facts["peak_memory_mb"]
    screen.write(f"{facts['repeats']} rounds" + (f"; peak memory {peak:.0f} MB" if peak else ""))


def _counts(value: str) -> tuple[int, ...]:
    try:
        counts = tuple(int(part) for part in value.split(","))
    except ValueError:
        counts = ()
    if not counts or min(counts) < 1:
        raise argparse.ArgumentTypeError(
            f"{value!r} is not a list of whole numbers of at least 1, as in 1,10,100"
        )
    return counts


def _peak_memory() -> float | None:
    try:  # on Linux the other way also counts the process that started us
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if platform.system() == "Darwin" else peak * 1024 / 1e6


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", metavar="QUERY", help="what the passages are ranked for")
    parser.add_argument(
        "source", metavar="FILE", nargs="?", help="the passages; - or none: standard input"
    )
    parser.add_argument(
        "--counts", metavar="N,N", type=_counts, default=COUNTS, help="passages (default: 1,10,100)"
    )
    parser.add_argument(
        "--repeats",
        metavar="N",
        type=flags.positive,
        default=REPEATS,
        help=f"timed rounds (default: {REPEATS})",
    )
    flags.add_format(parser, "table", "json")
    flags.add(parser, flags.READING, "reading FILE")
    parser.add_argument(
        "--model",
        metavar="M",
        action="append",
        help="a name, a repository org/name, or a folder; again for another beside it "
        "(default: the bundled nano)",
    )
    flags.add(parser, flags.MODEL, "the models")


COMMAND = Command(
    name="bench",
    help="measure how fast models rank your passages on this machine",
    description="Measure how long models take to rank the first 1, 10, 100 passages of FILE.",
    examples=EXAMPLES,
    add_flags=_add_flags,
    run=run,
)
