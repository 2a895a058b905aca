"""results.json → tables in Markdown. It measures nothing, so it can be run again at any time."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells import CHARTED
from benchmarks.engines import NANO, RATIOS
from benchmarks.environments import PROJECT, Environments, NotInstalled

Record = dict[str, Any]
Row = Sequence[str]
# What stands below this line in the report is written by other measurements, and stays.
KEPT = "<!-- The report ends here: what follows stays when it is written anew. -->"
CHARTS = ("chart-light.svg", "chart-dark.svg")


def write_report(
    results: Path, out: Path | None, environments: Environments, chart: bool = True
) -> int:
    """Write the report beside its charts, or print it.

    Args:
        results: the raw results.
        out: the file; None prints, without charts.
        environments: where the one with matplotlib is, or gets built.
        chart: draw too.
    """
    text = report(json.loads(results.read_text(encoding="utf-8")), pictures=bool(out and chart))
    if out is None:
        print(text)
        return 0
    before = out.read_text(encoding="utf-8") if out.exists() else ""
    _, mark, kept = before.partition(KEPT)
    out.write_text(f"{text}\n{mark}{kept}" if mark else text, encoding="utf-8")
    if chart:
        try:
            python = environments.python("chart")
        except NotInstalled as error:
            print(f"no charts: {error}", file=sys.stderr)
            return 1
        command = [str(python), "-m", "benchmarks.chart", str(results), str(out.parent)]
        return subprocess.run(command, check=False, cwd=PROJECT).returncode
    return 0


def report(content: Record, pictures: bool = False) -> str:
    """The whole report of the raw results."""
    return "\n\n".join(part for part in _parts(content, pictures) if part) + "\n"


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and greatest of their time over ours, round by round."""
    each = [a / b for a, b in zip(theirs, ours, strict=False)]
    return statistics.median(each), min(each), max(each)


def _parts(content: Record, pictures: bool) -> Iterator[str]:
    cells: dict[str, list[Record]] = content["cells"]
    yield "# Results"
    yield _setting(content["setting"])
    if pictures and any(name.startswith(CHARTED) for name in cells):
        light, dark = CHARTS
        yield (
            f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
            f'<img alt="Time and memory for 100 passages, each engine" src="{light}"></picture>'
        )
    lists = {name: records for name, records in cells.items() if name.startswith("latency/")}
    for title, group in _grouped(lists).items():
        note = _RATIO_NOTE + (_UNBOUND if ", 1 core" in title else "")
        yield from _section(f"How many times our time: {title}", _ratio_rows(group), note)
    for name, records in lists.items():
        yield from _section(_title(name), _list_rows(name, records))
    yield from _section("Several callers at once", _together_rows(lists))
    for name, records in cells.items():
        if name.startswith("cold/"):
            title = f"Cold start to the first 10 passages, {name.split('/')[1]}, ms"
            yield from _section(title, _cold_rows(records), _COLD_NOTE)
    for record in cells.get("import", []):
        over = statistics.median(record["import_ms"]) - statistics.median(record["bare_ms"])
        yield f"`import flashrank_lite` alone takes {over:.0f} ms over bare Python."
    for name, records in cells.items():
        if name.startswith("floor/"):
            title = f"The floor: 100 mixed passages and their matrix products, {name.split('/')[1]}"
            yield from _section(title, _floor_rows(records), _FLOOR_NOTE)
    yield from _section("Installed", _size_rows(cells.get("size", [])))
    yield from _section(
        "The bundled model in a small function", _function_rows(cells.get("lambda", [])), _CORES
    )
    yield _versions(cells.get("size", []))


_RATIO_NOTE = (
    "Median of the ratios of single rounds, smallest and largest in brackets. "
    "Above 1 we are faster."
)
_UNBOUND = (
    " flashrank and sentence-transformers on onnxruntime do not set the number of threads, and "
    "onnxruntime then takes all cores of the machine, whatever the process may use: they had "
    "two here, as their processor seconds show."
)
_COLD_NOTE = "Medians of new processes: total time from exec, then its parts. Page caches are warm."
_FLOOR_NOTE = (
    "The products' time is from onnxruntime's profile of the same lists. Attention operators that "
    "contain both products and a softmax are listed separately, and count towards the floor."
)
_CORES = (
    "Under a control group with the stated memory and the share of a core that AWS Lambda gives "
    "with it (a whole core at 1,769 MB)."
)


def _setting(setting: Record) -> str:
    return (
        f"{setting['date']}; {setting['processor']} ({', '.join(setting['instructions'])}), "
        f"{setting['cores']} cores, {setting['memory_gb']} GB; {setting['system']}; Python "
        f"{setting['python']}; load before the run {setting['load_at_start']:.1f}. Engines took "
        "turns, so compare the ratios, not the milliseconds."
    )


def _title(name: str) -> str:
    _, shape, _, cores, *callers = name.split("/")
    together = f", {callers[0].replace('-', ' ')} at once" if callers else ""
    number = cores.partition("-")[0]
    return f"{shape}, {_texts(name)}, {number} core{'' if number == '1' else 's'}{together}"


def _callers(name: str) -> int:
    last = name.rpartition("/")[2]
    return int(last.partition("-")[0]) if last.endswith("-callers") else 1


def _texts(name: str) -> str:
    kind, _, count = name.split("/")[2].partition("-")
    return f"{count} {kind}"


def _ratio_rows(cells: dict[str, list[Record]]) -> Iterator[Row]:
    """A row a comparison, a column a cell of those that differ in their texts alone."""
    yield ["", *(_texts(name) for name in cells)]
    for label, theirs, ours in RATIOS:
        row = [label]
        for records in cells.values():
            times = {record["engine"]: record["ms"] for record in records if record.get("ms")}
            if theirs in times and ours in times:
                middle, least, most = ratios(times[theirs], times[ours])
                row.append(f"{middle:.2f} ({least:.2f}–{most:.2f})")
            else:
                row.append("")
        if any(row[1:]):
            yield row


def _grouped(lists: dict[str, list[Record]]) -> dict[str, dict[str, list[Record]]]:
    """Cells by what they share beside their texts: weights, cores, callers."""
    groups: dict[str, dict[str, list[Record]]] = {}
    for name, records in lists.items():
        title = _title(name).replace(f"{_texts(name)}, ", "")
        groups.setdefault(title, {})[name] = records
    return groups


def _together_rows(lists: dict[str, list[Record]]) -> Iterator[Row]:
    """What callers at once get done together, of what one alone does in the same time."""
    yield ["engine", "texts", "callers", "throughput of one caller's"]
    for name, records in lists.items():
        alone, _, callers = name.rpartition("/")
        if alone not in lists or not callers.endswith("-callers"):
            continue
        number = _callers(name)
        single = {r["engine"]: statistics.median(r["ms"]) for r in lists[alone] if r["ms"]}
        for record in records:
            if record["ms"] and record["engine"] in single:
                share = number * single[record["engine"]] / statistics.median(record["ms"])
                yield [record["engine"], _texts(name), str(number), f"{share:.2f}"]


def _list_rows(name: str, records: list[Record]) -> Iterator[Row]:
    passages = int(_texts(name).split()[0]) * _callers(name)
    yield ["engine", "median ms", "p95 ms", "rounds", "passages/s", "cpu s", "peak MB", "scores"]
    for record in sorted(records, key=lambda r: statistics.median(r["ms"]) if r["ms"] else 1e12):
        if not record["ms"]:
            yield [record["engine"], f"failed: {record.get('failed', 'not run')}", *[""] * 6]
            continue
        times = record["ms"]
        yield [
            record["engine"],
            f"{statistics.median(times):.1f}",
            f"{np.percentile(times, 95):.1f}",
            str(len(times)),
            f"{1000 * passages / statistics.median(times):.0f}",
            f"{statistics.median(record['cpu_s']):.2f}",
            f"{max(record['peak_mb']):.0f}" if record["peak_mb"] else "",
            _scores(record),
        ]


def _scores(record: Record) -> str:
    if "differs" not in record:
        return "another model" if "nano" in record["engine"] else ""
    if "agrees" in record:
        if not record["agrees"]:
            return f"**WRONG** by {record['differs']:.1g}"
        return f"agree within {record['differs']:.1g}"
    return f"{record['same_order']:.1%} of pairs in order"


def _cold_rows(records: list[Record]) -> Iterator[Row]:
    yield ["engine", "all", "interpreter", "import", "load", "first run", "peak MB", "nano / it"]
    done = [record for record in records if record["total_ms"]]
    nano: list[float] = next((r["total_ms"] for r in done if r["engine"] == NANO), [])
    for record in sorted(done, key=lambda r: statistics.median(r["total_ms"])):
        fields = ("total_ms", "interpreter_ms", "import_ms", "load_ms", "first_ms", "peak_mb")
        parts = [f"{statistics.median(record[field]):.0f}" for field in fields]
        share = f"{ratios(nano, record['total_ms'])[0]:.2f}" if nano else ""
        yield [record["engine"], *parts, share]
    for record in records:
        if not record["total_ms"]:
            yield [record["engine"], f"failed: {record.get('failed', 'not run')}", *[""] * 6]


def _floor_rows(records: list[Record]) -> Iterator[Row]:
    yield ["engine", "whole list ms", "products ms", "fused attention ms", "ratio", "the rest"]
    for record in records:
        if "failed" in record:
            yield [record["engine"], f"failed: {record['failed']}", *[""] * 4]
            continue
        whole = statistics.median(record["ms"])
        products, attention = record["products_ms"], record["fused_attention_ms"]
        rest = {
            name: value
            for name, value in record["operators_ms"].items()
            if not any(part in name for part in ("MatMul", "Gemm", "Attention"))
        }
        most = sorted(rest, key=lambda name: -rest[name])[:4]
        yield [
            record["engine"],
            f"{whole:.0f}",
            f"{products:.0f}",
            f"{attention:.0f}",
            f"{whole / (products + attention):.2f}",
            ", ".join(f"{name} {rest[name]:.0f}" for name in most),
        ]


def _size_rows(records: list[Record]) -> Iterator[Row]:
    yield ["environment", "MB", "wheel MB"]
    for record in records:
        size, wheel = record.get("megabytes"), record.get("wheel_megabytes")
        yield [
            record["environment"],
            f"{size:.0f}" if size else f"not measured {record.get('failed', '')}".strip(),
            f"{wheel:.1f}" if wheel else "",
        ]


def _function_rows(records: list[Record]) -> Iterator[Row]:
    yield ["memory MB", "cores", "cold start ms", "10 passages ms", "100 passages ms", "peak MB"]
    for record in records:
        if not record.get("warm_100_ms"):
            said = f"failed: {record.get('failed', 'not run')}"
            yield [str(record["memory_mb"]), str(record["cores"]), said, "", "", ""]
            continue
        fields = ("cold_ms", "warm_10_ms", "warm_100_ms")
        yield [
            f"{record['memory_mb']:,}",
            str(record["cores"]),
            *(f"{statistics.median(record[field]):,.0f}" for field in fields),
            f"{max(record['peak_mb']):.0f}",
        ]


def _versions(records: list[Record]) -> str:
    told = (
        *("flashrank-lite", "FlashRank", "fastembed", "sentence-transformers", "optimum-onnx"),
        *("transformers", "torch", "openvino", "onnxruntime", "tokenizers", "numpy"),
    )
    lines = [
        f"- {record['environment']}: "
        + ", ".join(f"{n} {v}" for n, v in record["versions"].items() if n in told)
        for record in records
        if "versions" in record
    ]
    return "\n".join(["## Versions", "", *lines]) if lines else ""


def _section(title: str, rows: Iterable[Row], note: str = "") -> Iterator[str]:
    head, *body = [list(row) for row in rows] or [[]]
    if not body:
        return
    yield f"## {title}"
    if note:
        yield note
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    yield "\n".join("| " + " | ".join(line) + " |" for line in lines)
