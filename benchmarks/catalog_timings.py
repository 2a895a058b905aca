"""Milliseconds for 100 passages of 92 tokens on 2 cores, for each shape of model in the catalog.

    python -m benchmarks.catalog_timings [SHAPE ...]

Weights are random: speed does not depend on their values. What is measured is the processor time of
one thread for rows of 92 tokens beside a query of 10, the least of several runs, so that other work
on the machine counts little; 100 rows on two cores take half of 100 times that. Graphs are fp32,
fused by onnxruntime, and there is no tokenizing. Needs the export extra.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import transformers

TOKENS = 92 + 10 + 3
ROWS = 2
RUNS = 12
MOST_SECONDS = 40.0  # of a shape
VOCABULARY = 1000  # a larger one costs memory and no time
INPUTS = ("input_ids", "attention_mask")


def main() -> None:
    """Print a line for each shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", default=[], metavar="SHAPE")
    names = parser.parse_args().shapes or list(SHAPES)
    print(f"onnxruntime {onnxruntime.__version__}, {platform.machine()}, {_processor()}")
    for name in names:
        print(f"{name}: {1000 * _seconds(*SHAPES[name]):.0f} ms", flush=True)


def bert(**sizes: int) -> torch.nn.Module:
    """BERT, MiniLM, and XLM-RoBERTa, which computes the same."""
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, num_labels=1, attn_implementation="eager", **sizes
    )
    return transformers.BertForSequenceClassification(config)


def modernbert(**sizes: int) -> torch.nn.Module:
    """ModernBERT: Ettin, granite, gte."""
    tokens = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
    config = transformers.ModernBertConfig(
        vocab_size=VOCABULARY,
        num_labels=1,
        cls_token_id=0,
        sep_token_id=0,
        attn_implementation="eager",
        **tokens,
        **sizes,
    )
    return transformers.ModernBertForSequenceClassification(config)


def _bert(hidden: int, layers: int, heads: int, inner: int) -> tuple[Any, dict[str, int]]:
    return bert, {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
    }


def _modernbert(hidden: int, layers: int, heads: int, inner: int) -> tuple[Any, dict[str, int]]:
    return modernbert, _bert(hidden, layers, heads, inner)[1]


SHAPES: Mapping[str, tuple[Callable[..., torch.nn.Module], dict[str, int]]] = {
    "TinyBERT-L2": _bert(128, 2, 2, 512),
    "MiniLM-L2": _bert(384, 2, 12, 1536),
    "MiniLM-L4": _bert(384, 4, 12, 1536),
    "MiniLM-L6": _bert(384, 6, 12, 1536),
    "MiniLM-L12": _bert(384, 12, 12, 1536),
    "BERT-base": _bert(768, 12, 12, 3072),
    "BERT-large": _bert(1024, 24, 16, 4096),
    "Ettin-17m": _modernbert(256, 7, 4, 384),
    "Ettin-32m": _modernbert(384, 10, 6, 576),
    "Ettin-68m": _modernbert(512, 19, 8, 768),
    "ModernBERT-base": _modernbert(768, 22, 12, 1152),
    "Ettin-400m": _modernbert(1024, 28, 16, 2624),
}


def _seconds(make: Callable[..., torch.nn.Module], sizes: dict[str, int]) -> float:
    """Seconds for 100 rows on two cores."""
    torch.manual_seed(0)

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = make(**sizes).eval()

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        _export(Logits(), path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        ids = np.random.default_rng(0).integers(5, VOCABULARY, (ROWS, TOKENS))
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        session.run(None, feeds)
        best, begun = float("inf"), time.monotonic()
        for _ in range(RUNS):
            start = time.process_time()
            session.run(None, feeds)
            best = min(best, time.process_time() - start)
            if time.monotonic() - begun > MOST_SECONDS:
                break
    return best / ROWS * 100 / 2


def _export(module: torch.nn.Module, path: Path) -> None:
    example = torch.arange(39).view(3, 13) + 5
    axes = {name: {0: "batch", 1: "sequence"} for name in INPUTS}
    with warnings.catch_warnings():
        # The TorchScript exporter emits the patterns that onnxruntime's fusions look for.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (example, torch.ones_like(example)),
            str(path),
            input_names=list(INPUTS),
            output_names=["logits"],
            dynamic_axes=axes,
            opset_version=18,
            dynamo=False,
        )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


if __name__ == "__main__":
    main()
