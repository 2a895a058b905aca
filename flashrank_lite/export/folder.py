"""Writes a model folder: graphs, tokenizer, configuration, and the manifest that vouches for it."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import torch

from flashrank_lite.batching import batches
from flashrank_lite.encoding import JOINED_INPUTS, PairEncoder, pad
from flashrank_lite.errors import InvalidInput
from flashrank_lite.evaluation import CandidateList
from flashrank_lite.export import fidelity
from flashrank_lite.export.int8 import quantise_products
from flashrank_lite.export.nodes import Feeds
from flashrank_lite.export.tables import quantise_tables
from flashrank_lite.export.torch_graph import to_onnx
from flashrank_lite.models.manifest import FORMAT, MANIFEST, TOKENIZER
from flashrank_lite.ranker import Ranker

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "int8"]
Figures = dict[Precision, dict[str, float]]  # of each graph, by name
FILES: dict[Precision, str] = {"int8": "model_int8.onnx", "fp32": "model.onnx"}
CONFIG = "config.json"
NDCG_LOSS = 0.005  # of int8 against fp32: more is said
CALIBRATION_LISTS = 24
CHECKED_LISTS = 40


@dataclass(frozen=True)
class Source:
    """A cross-encoder to be exported.

    Attributes:
        module: takes ``inputs`` of shape (n, tokens), returns logits of shape (n, 1) or (n, 2).
        inputs: the names of its inputs, in the order it takes them: of ``JOINED_INPUTS`` or
            all of ``SEPARATE_INPUTS``.
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
    inputs: tuple[str, ...] = JOINED_INPUTS
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
    evaluation: Mapping[str, Sequence[CandidateList]] | None = None,
) -> Figures:
    """Export ``source`` into the folder ``out`` and prove that it is faithful.

    Args:
        source: the model.
        out: folder to write; files of the same names are replaced when all checks have passed.
        texts: real (query, candidates) lists, to calibrate on and to compare with.
        precisions: graphs to write, the preferred one first.
        table_bits: 8 or 4, for large embedding tables of the int8 graph.
        evaluation: labelled lists by name, for nDCG@10 of each graph.

    Returns:
        The fidelity figures of each precision, as they stand in the manifest.

    Raises:
        InvalidModel: the graph is not faithful to torch, or its scores depend on neighbours.
        InvalidInput: no texts, or an unknown precision.
    """
    texts = [(query, passages) for query, passages in texts if passages]
    if not texts or not precisions or set(precisions) - set(FILES):
        raise InvalidInput(
            f"precisions must be of {sorted(FILES)} and texts must not be empty: "
            "pass real queries with their candidate passages"
        )
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        graphs: dict[Precision, onnx.ModelProto] = {"fp32": to_onnx(source.module, source.inputs)}
        if "int8" in precisions:
            encoder = PairEncoder(source.tokenizer, source.max_length)
            graphs["int8"] = onnx.ModelProto()
            graphs["int8"].CopyFrom(graphs["fp32"])
            feeds = _feeds(encoder, texts[:CALIBRATION_LISTS], source.inputs)
            quantise_products(graphs["int8"], feeds)
            quantise_tables(graphs["int8"], bits=table_bits)
        rankers: dict[Precision, Ranker] = {}
        for precision, graph in graphs.items():
            folder = Path(scratch) / precision
            _write(folder, source, {precision: graph}, {})
            rankers[precision] = stack.enter_context(Ranker(folder, activation="raw"))
        figures = _prove(source, rankers, texts[:CHECKED_LISTS], evaluation or {})
        finished = Path(scratch) / "finished"
        _write(finished, source, {p: graphs[p] for p in precisions}, figures)
        _replace(finished, out)
    for precision in precisions:
        logger.info("%s/%s\n%s", out, FILES[precision], fidelity.table(figures[precision]))
    return {precision: figures[precision] for precision in precisions}


def _prove(
    source: Source,
    rankers: dict[Precision, Ranker],
    texts: fidelity.Texts,
    evaluation: Mapping[str, Sequence[CandidateList]],
) -> Figures:
    fp32 = rankers["fp32"]
    encoder = PairEncoder(source.tokenizer, source.max_length)
    relevant = (source.head or {}).get("relevant", 1)
    exact = fidelity.against_torch(source.module, source.inputs, relevant, fp32, encoder, texts)
    figures: Figures = {"fp32": {"fp32_vs_torch_max_abs_logit": exact}}
    if "int8" in rankers:
        compared = fidelity.against_fp32(fp32, rankers["int8"], texts)
        figures["int8"] = {f"int8_vs_fp32_{name}": value for name, value in compared.items()}
        figures["int8"] |= figures["fp32"]
    for precision, ranker in rankers.items():
        found = figures[precision]
        found["alone_vs_batch_max_abs_score"] = fidelity.alone_against_batch(ranker, texts[:8])
        for name, lists in evaluation.items():
            found[f"ndcg@10_{name}"] = fidelity.quality(ranker, lists)
    for name in evaluation if "int8" in rankers else ():
        exact, rounded = (figures[p][f"ndcg@10_{name}"] for p in ("fp32", "int8"))
        figures["int8"][f"ndcg@10_{name}_fp32"] = exact
        if exact - rounded > NDCG_LOSS:
            logger.warning("%s: int8 loses %.4f nDCG@10 on %s", source.name, exact - rounded, name)
    return figures


def _feeds(encoder: PairEncoder, texts: fidelity.Texts, inputs: tuple[str, ...]) -> Iterator[Feeds]:
    for query, passages in texts:
        pairs = [encoder.pair(encoder.query(query), encoder.passage(p)) for p in passages]
        for rows in batches([len(pair.ids) for pair in pairs]):
            yield pad([pairs[row] for row in rows], 0, inputs)


def _write(
    folder: Path, source: Source, graphs: dict[Precision, onnx.ModelProto], figures: Figures
) -> None:
    folder.mkdir(parents=True)
    # Where the checkpoint once lay is nobody's business.
    config = {key: value for key, value in source.config.items() if key != "_name_or_path"}
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    # Compact: a third smaller, and quicker to read.
    tokenizer = json.loads(source.tokenizer.read_text(encoding="utf-8"))
    tokenizer["truncation"] = tokenizer["padding"] = None
    (folder / TOKENIZER).write_text(
        json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")), encoding="utf-8"
    )
    variants = []
    for precision, graph in graphs.items():
        path = folder / FILES[precision]
        onnx.save(graph, str(path))
        variants.append(
            {
                "file": path.name,
                "precision": precision,
                **_facts(path),
                "batch_invariant": True,
                "fidelity": figures.get(precision, {}),
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
        "files": {name: _facts(folder / name) for name in (TOKENIZER, CONFIG)},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _replace(finished: Path, out: Path) -> None:
    """Move the files into ``out``, the manifest last; graphs of an earlier export go."""
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(finished.iterdir(), key=lambda file: file.name == MANIFEST)
    for name in set(FILES.values()) - {file.name for file in files}:
        (out / name).unlink(missing_ok=True)
    for file in files:
        partial = out / f"{file.name}.partial"
        shutil.copyfile(file, partial)
        partial.replace(out / file.name)


def _facts(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
