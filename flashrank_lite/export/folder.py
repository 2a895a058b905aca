"""Writes a model folder: graphs, tokenizer, configuration, and the manifest that vouches for it."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import torch

from flashrank_lite.batching import batches
from flashrank_lite.encoding import PairEncoder, pad
from flashrank_lite.errors import InvalidInput
from flashrank_lite.evaluation import CandidateList
from flashrank_lite.export import fidelity
from flashrank_lite.export.int8 import Feeds, quantise_products
from flashrank_lite.export.tables import quantise_tables
from flashrank_lite.export.torch_graph import INPUTS, to_onnx
from flashrank_lite.models.manifest import FORMAT, MANIFEST, TOKENIZER
from flashrank_lite.ranker import Ranker

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "int8"]
FILES: dict[Precision, str] = {"int8": "model_int8.onnx", "fp32": "model.onnx"}
CALIBRATION_LISTS = 24
CHECKED_LISTS = 40


@dataclass(frozen=True)
class Source:
    """A cross-encoder to be exported.

    Attributes:
        module: takes ``inputs`` of shape (n, tokens), returns logits of shape (n, 1) or (n, 2).
        inputs: the names of its inputs, in the order it takes them.
        tokenizer: path of its tokenizer.json.
        config: what config.json shall hold.
        name: of the model.
        activation: "sigmoid" or "raw", what its scores are by default.
        max_length: tokens of a pair, special tokens included.
        head: as in the manifest.
    """

    module: torch.nn.Module
    tokenizer: Path
    config: dict[str, Any]
    name: str
    max_length: int
    inputs: tuple[str, ...] = INPUTS
    activation: Literal["sigmoid", "raw"] = "sigmoid"
    head: dict[str, Any] | None = None
    languages: tuple[str, ...] = ()
    license: str | None = None


def export_folder(
    source: Source,
    out: Path,
    texts: fidelity.Texts,
    *,
    precisions: Sequence[Precision] = ("int8", "fp32"),
    table_bits: int = 8,
    evaluation: dict[str, Sequence[CandidateList]] | None = None,
) -> dict[str, Any]:
    """Export ``source`` into the folder ``out`` and prove that it is faithful.

    Args:
        source: the model.
        out: folder to write; files of the same names are replaced, all at once at the end.
        texts: real (query, candidates) lists, to calibrate on and to compare with.
        precisions: graphs to write, the preferred one first.
        table_bits: 8 or 4, for large embedding tables of the int8 graph.
        evaluation: labelled lists by name, for nDCG@10 of each graph.

    Returns:
        The fidelity figures, as they stand in the manifest.

    Raises:
        InvalidModel: the graph is not faithful to torch, or its scores depend on neighbours.
        InvalidInput: no texts, or an unknown precision.
    """
    if not texts or not precisions or set(precisions) - set(FILES):
        raise InvalidInput(
            f"precisions must be of {sorted(FILES)} and texts must not be empty: "
            "pass real queries with their candidate passages"
        )
    with tempfile.TemporaryDirectory() as scratch:
        folders = {p: Path(scratch) / p for p in ("fp32", "int8")}
        graph = to_onnx(source.module, source.inputs)
        _write(folders["fp32"], source, ["fp32"], {"fp32": graph}, {})
        encoder = PairEncoder(source.tokenizer, source.max_length)
        with Ranker(folders["fp32"], activation="raw") as fp32:
            checked = texts[:CHECKED_LISTS]
            figures: dict[str, Any] = {
                "fp32_vs_torch_max_abs_logit": fidelity.against_torch(
                    source.module,
                    source.inputs,
                    (source.head or {}).get("relevant", 1),
                    fp32,
                    encoder,
                    checked,
                )
            }
            rankers = {"fp32": fp32}
            if "int8" in precisions:
                int8 = onnx.ModelProto()
                int8.CopyFrom(graph)
                quantise_products(int8, _feeds(encoder, texts[:CALIBRATION_LISTS]))
                quantise_tables(int8, bits=table_bits)
                _write(folders["int8"], source, ["int8"], {"int8": int8}, {})
                rankers["int8"] = Ranker(folders["int8"], activation="raw")
                compared = fidelity.against_fp32(fp32, rankers["int8"], checked)
                figures |= {f"int8_vs_fp32_{name}": value for name, value in compared.items()}
            first = rankers[precisions[0]]
            figures["alone_vs_batch_max_abs_score"] = fidelity.alone_against_batch(
                first, checked[:8]
            )
            for name, lists in (evaluation or {}).items():
                for precision, value in fidelity.quality(rankers, lists).items():
                    figures[f"ndcg@10_{name}_{precision}"] = value
        graphs: dict[Precision, onnx.ModelProto] = {"fp32": graph}
        if "int8" in precisions:
            graphs["int8"] = int8
        finished = Path(scratch) / "finished"
        _write(finished, source, precisions, graphs, figures)
        out.mkdir(parents=True, exist_ok=True)
        for file in finished.iterdir():
            shutil.copy2(file, out / file.name)
    logger.info("wrote %s\n%s", out, fidelity.table(figures))
    return figures


def _feeds(encoder: PairEncoder, texts: fidelity.Texts) -> Iterator[Feeds]:
    for query, passages in texts:
        pairs = [encoder.pair(encoder.query(query), encoder.passage(p)) for p in passages]
        for rows in batches([len(pair.ids) for pair in pairs]):
            yield pad([pairs[row] for row in rows], 0)


def _write(
    folder: Path,
    source: Source,
    precisions: Sequence[Precision],
    graphs: dict[Precision, onnx.ModelProto],
    figures: dict[str, Any],
) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps(source.config, indent=2) + "\n", encoding="utf-8"
    )
    # Compact: a third smaller, and quicker to read.
    tokenizer = json.loads(source.tokenizer.read_text(encoding="utf-8"))
    tokenizer["truncation"] = tokenizer["padding"] = None
    (folder / TOKENIZER).write_text(
        json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")), encoding="utf-8"
    )
    variants = []
    for precision in precisions:
        path = folder / FILES[precision]
        onnx.save(graphs[precision], str(path))
        variants.append(
            {
                "file": path.name,
                "precision": precision,
                **_facts(path),
                "batch_invariant": True,
                "fidelity": figures,
            }
        )
    manifest = {
        "format": FORMAT,
        "name": source.name,
        "head": source.head or {"type": "logit"},
        "activation": source.activation,
        "max_length": source.max_length,
        "languages": list(source.languages),
        "license": source.license,
        "variants": variants,
        "files": {name: _facts(folder / name) for name in (TOKENIZER, "config.json")},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _facts(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
