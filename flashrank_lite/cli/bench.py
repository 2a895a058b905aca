"""``flashrank-lite bench``: how fast models are on this machine, on the user's own passages."""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flashrank_lite.cli.reading import FORMATS, read_passages, read_source
from flashrank_lite.errors import InvalidInput

if TYPE_CHECKING:
    from flashrank_lite.ranker import Ranker

COUNTS = (1, 10, 100)
REPEATS = 9
BUNDLED = "bundled"

_EXAMPLES = """\
examples:
  flashrank-lite bench "where did agriculture first arise" examples/agriculture.jsonl
  flashrank-lite bench "refund policy" faq.csv --field answer --model ./mine --model ./other
  flashrank-lite bench "refund policy" faq.csv --counts 1,50 --threads 1 --format json

FILE is read as by rank. Models take turns, list by list, so that what else the machine does falls
on all alike: trust the ratios more than the milliseconds.
"""


def add_to(commands: Any, run_checked: Any, positive: Any) -> None:
    """Add the command; `positive` reads a whole number of at least 1."""
    parser: argparse.ArgumentParser = commands.add(
        "bench",
        run_checked,
        help="measure how fast models rank your passages on this machine",
        description="Measure how long models take to rank the first 1, 10, 100 passages of FILE.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("query", metavar="QUERY", help="what the passages are ranked for")
    parser.add_argument(
        "file", metavar="FILE", nargs="?", help="the passages; - or none: standard input"
    )
    parser.add_argument(
        "--model",
        metavar="M",
        action="append",
        help="a name, a repository org/name, or a folder; again for another beside it "
        "(default: the bundled nano)",
    )
    parser.add_argument(
        "--threads", metavar="N", type=positive, help="default: the cores we may use"
    )
    parser.add_argument(
        "--batch-tokens", metavar="N", type=positive, help="tokens that run at once"
    )
    parser.add_argument("--max-length", metavar="N", type=positive, help="tokens per pair at most")
    parser.add_argument(
        "--counts", metavar="N,N", type=_counts, default=COUNTS, help="passages (default: 1,10,100)"
    )
    parser.add_argument("--repeats", metavar="N", type=positive, default=REPEATS)
    parser.add_argument(
        "--input", choices=FORMATS, help="how to read FILE, when its name does not say it"
    )
    parser.add_argument(
        "--field", metavar="NAME", help='field or column of the text (default: "text")'
    )
    parser.add_argument(
        "--format", choices=("table", "json"), help="default: table on a terminal, else json"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure and write the result; the exit status."""
    data, name = read_source(arguments.file)
    passages = read_passages(data, name, arguments.input, arguments.field)
    if not passages:
        raise InvalidInput(f"{name} holds no passages to measure on: give a file that does")

    from flashrank_lite.cli import rendering

    screen = rendering.Screen.of_stdout()
    facts = measure(
        arguments.query,
        passages,
        models=arguments.model or [None],
        counts=arguments.counts,
        repeats=arguments.repeats,
        threads=arguments.threads,
        batch_tokens=arguments.batch_tokens,
        max_length=arguments.max_length,
    )
    if (arguments.format or ("table" if screen.terminal else "json")) == "json":
        rendering.write_json(facts, screen, lines=False)
    else:
        for line in table(facts):
            screen.write(line)
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


def table(facts: dict[str, Any]) -> list[str]:
    """What was measured as lines of text; with several models the last column compares."""
    from statistics import median

    several = len(facts["models"]) > 1
    head = ["passages", "model", "median ms", "p95 ms", "passages/s", "cpu s"]
    rows = [[*head, "time / first"] if several else head]
    for place, first in enumerate(facts["models"][0]["lists"]):
        for entry in facts["models"]:
            result = entry["lists"][place]
            times = result["milliseconds"]
            row = [
                str(result["passages"]),
                entry["model"],
                f"{median(times):.1f}",
                f"{percentile(times, 0.95):.1f}",
                f"{1000 * result['passages'] / median(times):.0f}",
                f"{result['processor_seconds']:.3f}",
            ]
            if several:
                pairs = zip(times, first["milliseconds"], strict=True)
                row.append(f"{median(mine / theirs for mine, theirs in pairs):.2f}")
            rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            f"{cell:<{width}}" if column == 1 else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    for entry in facts["models"]:
        info = entry["info"]
        cut = max(result["truncated"] for result in entry["lists"])
        lines.append(
            f"{entry['model']}: {info['graph']}, {info['threads']} threads "
            f"({info['threads_source']}), loaded in {entry['load_ms']:.0f} ms"
            + (f", {cut} passages cut to {info['max_length']} tokens" if cut else "")
        )
    peak = facts["peak_memory_mb"]
    lines.append(f"{facts['repeats']} rounds" + (f"; peak memory {peak:.0f} MB" if peak else ""))
    return lines


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of them lies, by linear interpolation."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


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
