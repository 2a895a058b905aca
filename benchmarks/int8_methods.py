"""Ways to 8 bits for one checkpoint: ours and onnxruntime's own, by order kept and by speed.

    python -m benchmarks.int8_methods CHECKPOINT --lists LISTS.jsonl

All graphs are made of the same fp32 graph, calibrated on the same texts (those that the exporter
has by default) and read the same batches on one thread. Tau is Kendall's, to fp32's logits, the
mean over the lists.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from flashrank_lite.evaluation import kendall_tau
from flashrank_lite.export import read_checkpoint
from flashrank_lite.export.folder import feeds_of, split_texts
from flashrank_lite.export.graph.int8 import quantise_products
from flashrank_lite.export.graph.read_token import keep_read_token
from flashrank_lite.export.graph.tables import quantise_tables
from flashrank_lite.export.graph.torch_graph import to_onnx
from flashrank_lite.export.texts import bundled_texts

Feeds = dict[str, Any]
OURS = {"ours, fast": False, "ours, accurate": True}
THEIRS = {
    "quantize_static, min-max": CalibrationMethod.MinMax,
    "quantize_static, percentile": CalibrationMethod.Percentile,
    "quantize_static, entropy": CalibrationMethod.Entropy,
}
COLUMNS = ("method", "tau", "largest difference", "seconds", "MB")


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Batches for onnxruntime's calibration."""

    def __init__(self, feeds: list[Feeds]) -> None:
        self._left = iter(feeds)

    def get_next(self) -> Feeds | None:
        return next(self._left, None)


def main() -> None:
    """Print the table, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--lists", type=Path, required=True, help="JSONL: query and candidates")
    parser.add_argument("--count", type=int, default=12, help="lists to measure on")
    parser.add_argument("--passages", type=int, default=100, help="passages of each list")
    parser.add_argument("--batches", type=int, default=48, help="batches that theirs calibrate on")
    parser.add_argument("--only", nargs="+", help="methods, by the beginning of their name")
    arguments = parser.parse_args()
    with arguments.lists.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for _, line in zip(range(arguments.count), lines, strict=False)]
    lists = [
        (row["query"], [c["text"] for c in row["candidates"][: arguments.passages]]) for row in rows
    ]
    source = read_checkpoint(arguments.checkpoint)
    batches = [list(feeds_of(source, [entry])) for entry in lists]
    with tempfile.TemporaryDirectory() as scratch:
        exact: list[Any] = []
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for name, file in graphs(source, Path(scratch), arguments.batches, arguments.only or [""]):
            logits, seconds = run(file, batches)
            exact = exact or logits
            pairs = list(zip(exact, logits, strict=True))
            tau = np.mean([kendall_tau(a, b) for a, b in pairs])
            largest = max(float(np.abs(a - b).max()) for a, b in pairs)
            size = file.stat().st_size / 1e6
            print(
                f"| {name} | {tau:.3f} | {largest:.2f} | {seconds:.1f} | {size:.1f} |", flush=True
            )


def graphs(source: Any, folder: Path, batches: int, only: list[str]) -> Iterator[tuple[str, Path]]:
    """The fp32 graph, then each method's; tables are rounded in none, products in all."""
    calibration, _ = split_texts(bundled_texts())
    feeds = [dict(feed) for feed in feeds_of(source, calibration)]
    model = to_onnx(source.module, folder, source.inputs)
    keep_read_token(model, feeds)
    fp32 = folder / "fp32.onnx"
    fp32.write_bytes(model.SerializeToString())
    yield "fp32", fp32

    def wanted(name: str) -> bool:
        return any(name.startswith(start) for start in only)

    out = folder / "int8.onnx"
    for name, accurate in OURS.items():
        if wanted(name):
            ours = onnx.load(str(fp32))
            quantise_products(ours, feeds, accurate=accurate)
            out.write_bytes(quantise_tables(ours, bits=8).SerializeToString())
            yield name, out
    declared = {entry.name for entry in model.graph.input}
    few = [{k: v for k, v in feed.items() if k in declared} for feed in feeds][:batches]
    if wanted("quantize_dynamic"):
        quantize_dynamic(fp32, out, per_channel=True, reduce_range=True)
        yield "quantize_dynamic, per channel", out
    for name, method in THEIRS.items():
        if wanted(name):
            quantize_static(
                *(fp32, out, Reader(few)),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                reduce_range=True,  # as ours: 7 bits of a weight are right on every processor
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=method,
                extra_options={"CalibTensorRangeSymmetric": False},
            )
            yield f"{name}, per channel", out


def run(file: Path, batches: list[list[Feeds]]) -> tuple[list[Any], float]:
    """Logits of each list, and the time of all on one thread, seconds."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    declared = {entry.name for entry in session.get_inputs()}
    seconds, found = 0.0, []
    for feeds in batches:
        start = time.process_time()
        parts = [
            session.run(None, {k: v for k, v in feed.items() if k in declared})[0] for feed in feeds
        ]
        seconds += time.process_time() - start
        found.append(np.concatenate(parts)[:, 0])
    return found, seconds


if __name__ == "__main__":
    main()
