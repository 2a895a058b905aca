"""Ways to 8 bits for one checkpoint: ours, ours less a part of it, and onnxruntime's own.

    python -m benchmarks.int8_methods CHECKPOINT --lists NAME=FILE[:COUNT] ... [--graphs FOLDER]
    python -m benchmarks.int8_methods CHECKPOINT --lists ... --graphs FOLDER --times

All graphs are made of the same fp32 graph, calibrated on the same texts (those that the exporter
has by default) and read the same batches. Tau is Kendall's to fp32's logits, the mean over the
lists. With --times the graphs in FOLDER are timed: side by side, round after round on one thread,
each time as a share of fp32's in the same round. That needs an idle machine, the rest does not.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from benchmarks.lists import NAMED, read_sets, texts_of
from flashrank_lite.evaluation import kendall_tau
from flashrank_lite.export import read_checkpoint
from flashrank_lite.export.folder import feeds_of, split_texts
from flashrank_lite.export.graph import calibration
from flashrank_lite.export.graph.int8 import quantise_products
from flashrank_lite.export.graph.read_token import keep_read_token
from flashrank_lite.export.graph.rounding import WEIGHT_MAX, Matrix, round_matrix
from flashrank_lite.export.graph.tables import quantise_tables
from flashrank_lite.export.graph.torch_graph import to_onnx
from flashrank_lite.export.texts import bundled_texts

Feeds = dict[str, Any]
Floats = NDArray[np.float32]
EXACT = "fp32"
# Of onnxruntime's own: 7 bits of a weight, as ours, are right on every processor; a type is needed
# for what its shape inference does not follow (operators of its own).
THEIRS: dict[str, Any] = {
    "per_channel": True,
    "reduce_range": True,
    "extra_options": {"DefaultTensorType": onnx.TensorProto.FLOAT},
}
CALIBRATORS = {
    "min-max": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Batches for onnxruntime's calibration."""

    def __init__(self, feeds: Sequence[Feeds]) -> None:
        self._left = iter(feeds)

    def get_next(self) -> Feeds | None:
        return next(self._left, None)


class Maker:
    """Makes the graph of each method from one fp32 graph.

    Args:
        fp32: the graph.
        feeds: batches to calibrate on.
        few: how many of them onnxruntime's calibration gets: it keeps what all of them came to.
    """

    def __init__(self, fp32: onnx.ModelProto, feeds: Sequence[Feeds], few: int) -> None:
        self._fp32, self._feeds = fp32, feeds
        declared = {entry.name for entry in fp32.graph.input}
        self._few = [{k: v for k, v in feed.items() if k in declared} for feed in feeds][:few]
        self.methods: dict[str, Callable[[Path], None]] = {
            "ours, fast": self._ours,
            "ours, accurate": lambda out: self._ours(out, accurate=True),
            "fast, without smoothing": lambda out: self._ours(out, smoothing=_unsmoothed),
            "fast, matrices not fitted": lambda out: self._ours(out, round_matrix=_unfitted),
            "fast, matrices to the nearest": lambda out: self._ours(out, round_matrix=_nearest),
            "fast, without any": lambda out: self._ours(
                out, smoothing=_unsmoothed, round_matrix=_nearest
            ),
            "quantize_dynamic": self._dynamic,
            **{
                f"quantize_static, {name}": lambda out, by=by: self._static(out, by)
                for name, by in CALIBRATORS.items()
            },
        }

    def _ours(self, out: Path, *, accurate: bool = False, **instead: Any) -> None:
        model = onnx.ModelProto()
        model.CopyFrom(self._fp32)
        with patch.multiple(calibration, **instead):
            quantise_products(model, self._feeds, accurate=accurate)
        out.write_bytes(quantise_tables(model, bits=8).SerializeToString())

    def _dynamic(self, out: Path) -> None:
        quantize_dynamic(self._fp32, out, **THEIRS)

    def _static(self, out: Path, by: CalibrationMethod) -> None:
        model = onnx.ModelProto()
        model.CopyFrom(self._fp32)
        quantize_static(
            *(model, out, Reader(self._few)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gather"],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=by,
            **THEIRS,
        )


def _unsmoothed(rows: Sequence[Floats]) -> Floats:
    return np.ones(rows[0].shape[1], np.float32)


def _unfitted(weight: Floats, exact: Floats, rounded: Floats) -> Matrix:
    found = round_matrix(weight, rounded, rounded)
    lost = (exact.mean(0) - rounded.mean(0)) @ weight
    return Matrix(found.stored, found.scale, (found.bias + lost).astype(np.float32))


def _nearest(weight: Floats, exact: Floats, rounded: Floats) -> Matrix:
    scale = np.abs(weight).max(0).clip(1e-8) / WEIGHT_MAX
    stored = np.rint(weight / scale).astype(np.int8)
    bias = exact.mean(0) @ weight - rounded.mean(0) @ (stored * scale)
    return Matrix(stored, scale.astype(np.float32), bias.astype(np.float32))


def main() -> None:
    """Print the table, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--lists", nargs="+", required=True, metavar=NAMED, help="to measure on")
    parser.add_argument("--passages", type=int, default=100, help="of each list, at most")
    parser.add_argument("--batches", type=int, default=48, help="batches that theirs calibrate on")
    parser.add_argument("--only", nargs="+", default=[""], help="methods, by how their name begins")
    parser.add_argument("--graphs", type=Path, help="keep the graphs here, and take what is there")
    parser.add_argument("--times", action="store_true", help="time the graphs that are there")
    parser.add_argument("--rounds", type=int, default=5, help="of timing")
    arguments = parser.parse_args()
    source = read_checkpoint(arguments.checkpoint)
    sets = {
        name: [list(feeds_of(source, [entry])) for entry in texts_of(lists, arguments.passages)]
        for name, lists in read_sets(arguments.lists).items()
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.graphs or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.times:
            print_times(folder, sets, arguments.rounds, arguments.only)
        else:
            print_order(made(source, folder, arguments.batches, arguments.only), sets)


def made(source: Any, folder: Path, few: int, only: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """The fp32 graph, then each method's that is wanted."""
    feeds = [dict(feed) for feed in feeds_of(source, split_texts(bundled_texts())[0])]
    fp32 = folder / f"{EXACT}.onnx"
    if not fp32.exists():
        model = to_onnx(source.module, folder, source.inputs)
        keep_read_token(model, feeds)
        fp32.write_bytes(model.SerializeToString())
    yield EXACT, fp32
    for name, make in Maker(onnx.load(str(fp32)), feeds, few).methods.items():
        if any(name.startswith(start) for start in only):
            out = folder / f"{name}.onnx"
            if not out.exists():
                make(out)
            yield name, out


def print_order(graphs: Iterator[tuple[str, Path]], sets: dict[str, list[list[Feeds]]]) -> None:
    """A row a graph: tau, largest difference of logits, and size."""
    columns = [f"tau, {name} | largest difference" for name in sets]
    print(f"| method | {' | '.join(columns)} | MB |\n|---|{'---:|' * (2 * len(sets) + 1)}")
    exact: dict[str, list[Floats]] = {}
    for name, file in graphs:
        run = opened(file, threads=0)
        cells = []
        for one, batches in sets.items():
            found = [run(feeds) for feeds in batches]
            pairs = list(zip(exact.setdefault(one, found), found, strict=True))
            cells.append(f"{np.mean([kendall_tau(a, b) for a, b in pairs]):.3f}")
            cells.append(f"{max(float(np.abs(a - b).max()) for a, b in pairs):.2f}")
        size = file.stat().st_size / 1e6
        print(f"| {name} | {' | '.join(cells)} | {size:.1f} |", flush=True)


def print_times(
    folder: Path, sets: dict[str, list[list[Feeds]]], rounds: int, only: Sequence[str]
) -> None:
    """A row a graph: processor seconds and their share of fp32's, medians of the rounds."""
    batches = [feeds for lists in sets.values() for feeds in lists]
    wanted = [EXACT, *only]
    files = [
        file
        for file in sorted(folder.glob("*.onnx"), key=lambda file: file.stem != EXACT)
        if any(file.stem.startswith(start) for start in wanted)
    ]
    runs = {file.stem: opened(file, threads=1) for file in files}
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):  # the first warms up
        for name in list(runs)[:: 1 if number % 2 else -1]:
            start = time.process_time()
            for feeds in batches:
                runs[name](feeds)
            spent[name].append(time.process_time() - start)
    print("| method | seconds | time / fp32 |\n|---|---:|---:|")
    for name, seconds in spent.items():
        shares = [a / b for a, b in zip(seconds[1:], spent[EXACT][1:], strict=True)]
        print(
            f"| {name} | {statistics.median(seconds[1:]):.2f} | {statistics.median(shares):.3f} |"
        )


def opened(file: Path, threads: int) -> Callable[[list[Feeds]], Floats]:
    """A graph as a function from the batches of a list to its logits."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    declared = {entry.name for entry in session.get_inputs()}

    def run(feeds: list[Feeds]) -> Floats:
        parts = [
            session.run(None, {k: v for k, v in feed.items() if k in declared})[0] for feed in feeds
        ]
        return np.asarray(np.concatenate(parts)[:, 0], np.float32)

    return run


if __name__ == "__main__":
    main()
