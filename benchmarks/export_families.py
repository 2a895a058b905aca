"""Every family that the exporter knows: is text scored as in its library, and what does int8 keep?

    python -m benchmarks.export_families [--width 64] [FAMILY...] [--checkpoint FOLDER...]

The families are small models with random weights (tests/export_families.py), which tell whether
text, tokens and graph are right. The order that int8 keeps of them is a lower bound: trained
weights spread scores more. Give trained checkpoints of your own with --checkpoint. Times are of one
thread on the same batches; below a width of some 256 they say little.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnxruntime.quantization import quantize_dynamic

from benchmarks.int8_methods import THEIRS, opened
from flashrank_lite.encoding.template import Template
from flashrank_lite.errors import FlashRankLiteError
from flashrank_lite.export import export_folder, read_checkpoint
from flashrank_lite.export.checkpoints.recipes import Recipe
from flashrank_lite.export.folder import feeds_of

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import export_families as families

# Folder names tell the prompt of decoders and of T5.
NAMED: dict[str, tuple[str, Callable[[Path], Any]]] = {
    **{name: (name, make) for name, make in families.CLASSIFIERS.items()},
    "Qwen3-Reranker": ("Qwen3-Reranker-tiny", families.qwen3),
    "Qwen3-Reranker, one label": ("Qwen3-Reranker-seq-cls", families.qwen3_classifier),
    "mxbai-rerank-v2 (Qwen2)": ("mxbai-rerank-tiny-v2", families.qwen2),
    "bge-reranker-v2-gemma": ("bge-reranker-v2-gemma-tiny", families.gemma),
    "Gemma 2": ("bge-reranker-capped", families.gemma2),
    "monoT5": ("monot5-tiny", families.t5_generator),
    "RankT5": ("RankT5-tiny", families.t5_generator),
}
GEMMA2 = Recipe(Template(("<bos>", "A: {query}", "\n", "B: {passage}", "\n")), "Yes", "a")
ROUNDS = 7  # of timing
COLUMNS = ("family", "library", "text to score", "int8 tau", "time of int8 / quantize_dynamic")


class Warnings(logging.Handler):
    """Keeps the last warning of the exporter."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self.last = record.getMessage()


def main() -> None:
    """Print the table, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", help=f"of {', '.join(NAMED)}; default: all")
    parser.add_argument("--checkpoint", type=Path, nargs="+", default=[], help="trained models")
    parser.add_argument("--width", type=int, default=64, help="hidden size of the random ones")
    arguments = parser.parse_args()
    width = arguments.width
    families.SIZES.update(hidden_size=width, intermediate_size=2 * width)
    chosen = arguments.families or ([] if arguments.checkpoint else list(NAMED))
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name in chosen:
        folder, make = NAMED[name]
        with tempfile.TemporaryDirectory() as scratch:
            make(Path(scratch) / folder)
            print(row(name, Path(scratch) / folder), flush=True)
    for checkpoint in arguments.checkpoint:
        print(row(checkpoint.name, checkpoint), flush=True)


def row(name: str, checkpoint: Path) -> str:
    """One line of the table."""
    warnings = Warnings()
    logger = logging.getLogger("flashrank_lite.export")
    logger.addHandler(warnings)
    try:
        source = read_checkpoint(checkpoint, recipe=GEMMA2 if name == "Gemma 2" else None)
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "out"
            export_folder(source, out, families.pooled())
            stated = json.loads((out / "reranker.json").read_text(encoding="utf-8"))
            graphs = {v["precision"]: v for v in stated["variants"]}
            fidelity = graphs["fp32"]["fidelity"]
            tau, ratio = "left out" + re.sub(r".*?(\(.*\)).*", r" \1", warnings.last), ""
            if "int8" in graphs:
                tau = f"{graphs['int8']['fidelity']['int8_vs_fp32_kendall_tau']:.3f}"
                ratio = f"{speed(source, out):.2f}"
            exact = f"{fidelity['text_to_score_max_abs_logit']:.1g}"
            return f"| {name} | {fidelity['text_to_score_against']} | {exact} | {tau} | {ratio} |"
    except FlashRankLiteError as error:
        return f"| {name} | | refused: {error} | | |"
    finally:
        logger.removeHandler(warnings)


def speed(source: Any, out: Path) -> float:
    """Time of our int8 graph as a share of that of onnxruntime's dynamic quantisation."""
    dynamic = out / "dynamic.onnx"
    quantize_dynamic(out / "model.onnx", dynamic, **THEIRS)
    feeds = [dict(feed) for feed in feeds_of(source, families.pooled()[:2])]
    ours, theirs = (opened(file, threads=1) for file in (out / "model_int8.onnx", dynamic))
    shares = []
    for _ in range(ROUNDS + 1):  # the first warms up
        spent = []
        for run in (ours, theirs):
            start = time.process_time()
            run(feeds)
            spent.append(time.process_time() - start)
        shares.append(spent[0] / spent[1])
    return statistics.median(shares[1:])


if __name__ == "__main__":
    main()
