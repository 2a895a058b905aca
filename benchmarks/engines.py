"""What is compared: an engine is a library, the weights it reads, and how its worker loads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# The folders that weights.py fills for each shape.
PLAIN_FP32, DYNAMIC_INT8 = "plain_fp32", "dynamic_int8"  # torch.onnx; quantize_dynamic of that
OURS_FP32, OURS_INT8 = "ours_fp32", "ours_int8"  # this project's exporter
CHECKPOINT = "checkpoint"  # for sentence-transformers: torch weights, and the two plain graphs
FLASHRANK = "flashrank"  # the same graphs under the names that flashrank looks for

SHAPES = ("minilm-l6", "tinybert-l2", "minilm-l12")


@dataclass(frozen=True)
class Engine:
    """One row of the tables.

    Attributes:
        name: the name that the tables and `--engines` use.
        environment: where its worker runs.
        kind: the worker's way of loading it.
        folder: the folder of the shape's weights; "" for the model inside our wheel.
        exact: it runs the fp32 weights, so its scores must be those of `REFERENCE`.
        quick: whether `--quick` measures it.
    """

    name: str
    environment: str
    kind: str
    folder: str
    exact: bool = False
    quick: bool = False

    def model(self, weights: Path, shape: str) -> str:
        """The folder that its worker loads."""
        return str(weights / shape / self.folder) if self.folder else ""


REFERENCE = "ours, plain fp32"
OURS = "ours, our int8"
NANO = "ours, nano"

ENGINES = (
    Engine(OURS, "flashrank-lite", "flashrank_lite", OURS_INT8, quick=True),
    Engine("flashrank, fp32", "flashrank", "flashrank", f"{FLASHRANK}/{PLAIN_FP32}", True, True),
    Engine("ours, our fp32", "flashrank-lite", "flashrank_lite", OURS_FP32, True),
    Engine("fastembed, fp32", "fastembed", "fastembed", PLAIN_FP32, True),
    Engine(REFERENCE, "flashrank-lite", "flashrank_lite", PLAIN_FP32, True, True),
    Engine("sentence-transformers, torch", "sentence-transformers", "torch", CHECKPOINT, True),
    Engine(NANO, "flashrank-lite", "flashrank_lite", "", quick=True),
    Engine("flashrank, our int8", "flashrank", "flashrank", f"{FLASHRANK}/{OURS_INT8}", quick=True),
    Engine("ours, dynamic int8", "flashrank-lite", "flashrank_lite", DYNAMIC_INT8, quick=True),
    Engine("flashrank, dynamic int8", "flashrank", "flashrank", f"{FLASHRANK}/{DYNAMIC_INT8}"),
    Engine("fastembed, our int8", "fastembed", "fastembed", OURS_INT8),
    Engine("fastembed, dynamic int8", "fastembed", "fastembed", DYNAMIC_INT8),
    Engine(
        "sentence-transformers, onnx fp32", "sentence-transformers-onnx", "onnx", CHECKPOINT, True
    ),
    Engine("sentence-transformers, onnx int8", "sentence-transformers-onnx", "qint8", CHECKPOINT),
    Engine("openvino, sorted", "openvino", "openvino", PLAIN_FP32),
)

# (what is compared, the peer, ours): how many times our time the peer's is.
RATIOS = (
    ("flashrank fp32 / our int8", "flashrank, fp32", OURS),
    ("flashrank / ours, same fp32 file", "flashrank, fp32", REFERENCE),
    ("flashrank / ours, same int8 file (ours)", "flashrank, our int8", OURS),
    (
        "flashrank / ours, same int8 file (dynamic)",
        "flashrank, dynamic int8",
        "ours, dynamic int8",
    ),
    ("fastembed / ours, same fp32 file", "fastembed, fp32", REFERENCE),
    ("fastembed fp32 / our int8", "fastembed, fp32", OURS),
    ("fastembed / ours, same int8 file (ours)", "fastembed, our int8", OURS),
    (
        "fastembed / ours, same int8 file (dynamic)",
        "fastembed, dynamic int8",
        "ours, dynamic int8",
    ),
    ("sentence-transformers torch / our int8", "sentence-transformers, torch", OURS),
    ("sentence-transformers onnx fp32 / our int8", "sentence-transformers, onnx fp32", OURS),
    ("sentence-transformers onnx int8 / our int8", "sentence-transformers, onnx int8", OURS),
    ("openvino sorted / our int8", "openvino, sorted", OURS),
    ("six layers, our int8 / nano", OURS, NANO),
)
