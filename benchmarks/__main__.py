"""`python -m benchmarks` measures, `python -m benchmarks report RESULTS` writes it up."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import cells, extras
from benchmarks.engines import ENGINES, SHAPES
from benchmarks.environments import PROJECT, Environments, NotInstalled, fingerprint
from benchmarks.measure import TOLERANCE, Bench
from benchmarks.report import write_report
from benchmarks.results import Record, Results

WORK = PROJECT / "build" / "benchmarks"
QUICK_SECONDS, FULL_SECONDS = 15.0, 60.0


def main() -> int:
    """Measure, or write the report; the exit status is 1 if an engine's scores are wrong."""
    args = _arguments()
    given = dict(entry.split("=", 1) for entry in args.python)
    environments = Environments(
        args.work / "environments", {name: Path(path) for name, path in given.items()}
    )
    if args.command == "report":
        return write_report(args.results, args.out, environments)
    cores = sorted(os.sched_getaffinity(0))[: args.cores]
    bench = Bench(
        environments,
        Weights(environments, args.work / "weights"),
        cores,
        args.repeats,
        args.seconds or (QUICK_SECONDS if args.quick else FULL_SECONDS),
        lambda engine: not args.engines or any(part in engine.name for part in args.engines),
    )
    results = Results(args.out, args.resume)
    plan = _plan(bench, args.quick, args.repeats, args.work)
    chosen = [name for name in plan if not args.only or any(part in name for part in args.only)]
    if args.list:
        print(*chosen, sep="\n")
        return 0
    begun = time.monotonic()
    for number, name in enumerate(chosen):
        if results.has(name):
            continue
        spent = (time.monotonic() - begun) / 60
        print(f"[{number + 1}/{len(chosen)}, {spent:.0f} min] {name}", file=sys.stderr, flush=True)
        results.add(name, plan[name]())
    disagreeing = _disagreeing(results)
    for line in disagreeing:
        print(f"WRONG SCORES, this comparison is worth nothing: {line}", file=sys.stderr)
    write_report(args.out, None, environments, chart=False)
    return 1 if disagreeing else 0


def _plan(
    bench: Bench, quick: bool, repeats: int, work: Path
) -> dict[str, Callable[[], list[Record]]]:
    """Every cell by its name, in the order they are measured."""
    count = len(bench.cores)
    plan: dict[str, Callable[[], list[Record]]] = {}
    for cell in cells.cells(quick, count):
        plan[cell.name] = partial(bench.cell, cell)
    starting = cells.cold_engines(quick)
    for shape in cells.COLD[: 1 if quick else None]:
        plan[f"cold/{shape}"] = partial(bench.cold, shape, starting)
    plan["import"] = lambda: [extras.imports(bench.environments)]
    measured = dict.fromkeys(
        engine.environment
        for engine in ENGINES
        if bench.takes(engine) and (engine.quick or not quick)
    )
    plan["size"] = partial(extras.sizes, bench.environments, list(measured), work)
    if not quick:
        plan[f"floor/{SHAPES[0]}"] = partial(extras.floor, bench, SHAPES[0], min(5, repeats))
        plan["lambda"] = partial(
            extras.functions, bench.environments, list(bench.cores), min(3, repeats)
        )
    return plan


class Weights:
    """The folder of all shapes' weights; each is made when it is not there or not of now."""

    def __init__(self, environments: Environments, folder: Path) -> None:
        self._environments, self._folder = environments, folder
        self._failed: dict[str, str] = {}

    def __call__(self, shape: str) -> Path:
        """The folder, with this shape's weights in it.

        Raises:
            NotInstalled: they could not be made.
        """
        if shape not in self._failed:
            self._failed[shape] = self._make(shape)
        if self._failed[shape]:
            raise NotInstalled(self._failed[shape])
        return self._folder

    def _make(self, shape: str) -> str:
        stamp = self._folder / shape / "made.txt"
        now = fingerprint("flashrank_lite/export", "benchmarks/weights.py", "benchmarks/texts.py")
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == now:
            return ""
        print(f"making the weights of {shape}", file=sys.stderr, flush=True)
        python = self._environments.python("weights")
        command = ["-m", "benchmarks.weights", "--shape", shape, "--out", str(stamp.parent)]
        done = subprocess.run(
            [python, *command], cwd=PROJECT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            return f"the weights of {shape} could not be made: {last}"
        stamp.write_text(now, encoding="utf-8")
        return ""


def _disagreeing(results: Results) -> list[str]:
    found = []
    for name, records in results.content["cells"].items():
        for record in records:
            if record.get("agrees") is False:
                far = f"{record['differs']:.2g} from ours on the same weights"
                found.append(f"{record['engine']} in {name}: {far}")
            if record.get("callers_differ", 0) > TOLERANCE:
                found.append(f"{record['engine']} in {name}: callers got different scores")
    return found


def _arguments() -> argparse.Namespace:
    reporting = sys.argv[1:2] == ["report"]
    name = "python -m benchmarks" + (" report" if reporting else "")
    parser = argparse.ArgumentParser(prog=name, description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK, help="environments and weights")
    parser.add_argument(
        "--python",
        nargs="+",
        default=[],
        metavar="ENVIRONMENT=PATH",
        help="interpreters to use instead of building the environment",
    )
    if reporting:
        parser.add_argument("command", choices=["report"])
        parser.add_argument("results", type=Path)
        parser.add_argument("--out", type=Path, default=Path(__file__).with_name("RESULTS.md"))
        return parser.parse_args()
    parser.set_defaults(command="run")
    parser.add_argument("--quick", action="store_true", help="flashrank alone, mixed texts")
    parser.add_argument("--only", nargs="+", metavar="PART", help="cells whose name has a PART")
    parser.add_argument("--engines", nargs="+", metavar="PART", help="engines likewise")
    parser.add_argument("--list", action="store_true", help="name the cells and measure nothing")
    parser.add_argument("--repeats", type=int, default=15, help="rounds of a cell at most")
    parser.add_argument(
        "--seconds", type=float, help="for the rounds of a cell (15 quick, else 60)"
    )
    parser.add_argument("--cores", type=int, default=2, help="of those this process may use")
    parser.add_argument("--resume", action="store_true", help="keep the cells that --out holds")
    parser.add_argument("--out", type=Path, default=WORK / "results.json", help="the raw results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
