"""The chart: time and memory for 100 passages, each engine a bar, for light and dark pages.

Runs in the environment `chart`: `python -m benchmarks.chart RESULTS FOLDER`.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

from benchmarks.cells import CHARTED

FILES = {
    "chart-light.svg": {"text": "#1f2328", "ours": "#0969da", "peer": "#afb8c1"},
    "chart-dark.svg": {"text": "#e6edf3", "ours": "#4493f8", "peer": "#545d68"},
}


def main() -> int:
    """Write both files; the exit status is 1 when the cell that they show was not measured."""
    results, folder = map(Path, sys.argv[1:3])
    cells = json.loads(results.read_text(encoding="utf-8"))["cells"]
    name = next((name for name in cells if name.startswith(CHARTED)), None)
    if name is None:
        print(f"{results} has no cell {CHARTED}*: nothing to draw", file=sys.stderr)
        return 1
    records = [record for record in cells[name] if record["ms"]]
    records.sort(key=lambda record: -statistics.median(record["ms"]))
    for file, colours in FILES.items():
        _draw(records, colours, folder / file)
    return 0


def _draw(records: list[dict[str, Any]], colours: dict[str, str], file: Path) -> None:
    pyplot.rcParams["svg.fonttype"] = "none"  # text stays text
    pyplot.rcParams["svg.hashsalt"] = "flashrank-lite"  # the same results give the same file
    figure, axes = pyplot.subplots(1, 2, sharey=True, figsize=(10, 0.36 * len(records) + 1))
    names = [record["engine"] for record in records]
    paint = [colours["ours" if name.startswith("ours") else "peer"] for name in names]
    times = [statistics.median(record["ms"]) for record in records]
    peaks = [max(record["peak_mb"], default=0.0) for record in records]
    titles = ("100 passages, milliseconds", "peak memory, MB")
    for axis, values, title in zip(axes, (times, peaks), titles, strict=True):
        bars = axis.barh(names, values, color=paint)
        labels = [f"{value:,.0f}" for value in values]
        axis.bar_label(bars, labels, padding=4, color=colours["text"], fontsize=9)
        axis.set_title(title, color=colours["text"], fontsize=11, loc="left")
        axis.set_xlim(0, 1.15 * max(values))
        axis.tick_params(left=False, bottom=False, labelbottom=False, colors=colours["text"])
        for spine in axis.spines.values():
            spine.set_visible(False)
    figure.tight_layout()
    figure.savefig(file, transparent=True, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
