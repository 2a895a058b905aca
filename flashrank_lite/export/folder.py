"""Writes a model folder: graphs, tokenizer, configuration, and the manifest that vouches for it."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal

from flashrank_lite.encoding.collate import pad
from flashrank_lite.encoding.prompts import open_encoder
from flashrank_lite.errors import InvalidInput
from flashrank_lite.evaluation import CandidateList
from flashrank_lite.export import fidelity
from flashrank_lite.export.card import CARD, is_foreign, model_card
from flashrank_lite.export.int8 import quantise_products
from flashrank_lite.export.nodes import Feeds
from flashrank_lite.export.read_token import keep_read_token
from flashrank_lite.export.source import Source
from flashrank_lite.export.tables import quantise_tables
from flashrank_lite.export.torch_graph import OPSET, check_opset, to_onnx
from flashrank_lite.export.weights import data_file, save_graph
from flashrank_lite.models.checksums import facts_of
from flashrank_lite.models.manifest import FORMAT, MANIFEST, TOKENIZER
from flashrank_lite.ranker import Ranker
from flashrank_lite.runtime.plan import batches

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "int8"]
Figures = dict[Precision, dict[str, float]]  # of each graph, by name
FILES: dict[Precision, str] = {"int8": "model_int8.onnx", "fp32": "model.onnx"}
CONFIG = "config.json"
UNTOLD = ("_name_or_path", "auto_map")  # where the checkpoint once lay, and its own code
NDCG_LOSS = 0.005  # of int8 against fp32: more is said
CALIBRATION_LISTS = 24
CHECKED_LISTS = 40


def export_folder(
    source: Source,
    out: Path,
    texts: fidelity.Texts,
    *,
    precisions: Sequence[Precision] = ("int8", "fp32"),
    table_bits: int = 8,
    evaluation: Mapping[str, Sequence[CandidateList]] | None = None,
    opset: int = OPSET,
) -> Figures:
    """Export ``source`` into the folder ``out`` and prove that it is faithful.

    Args:
        source: the model.
        out: folder to write; files of the same names are replaced when all checks have passed.
        texts: real (query, candidates) lists: every second one to calibrate on, the others to
            compare with.
        precisions: graphs to write.
        table_bits: 8 or 4, for large embedding tables of the int8 graph.
        evaluation: labelled lists by name, for nDCG@10 of each graph.
        opset: version of the ONNX operators that is traced, and that the fp32 graph takes; the
            int8 one takes 23 where its attention is one operator.

    Returns:
        The fidelity figures of each precision, as they stand in the manifest.

    Raises:
        InvalidModel: the graph is not faithful to torch, or its scores depend on neighbours.
        InvalidInput: no texts, an unknown precision or operator version, or ``out`` is a file or
            where the source lies.
    """
    texts = [(query, passages) for query, passages in texts if passages]
    if not texts or not precisions or set(precisions) - set(FILES):
        raise InvalidInput(
            f"precisions must be of {sorted(FILES)} and texts must not be empty: "
            "pass real queries with their candidate passages"
        )
    check_opset(opset)
    check_out(out, *filter(None, (source.checkpoint, source.tokenizer.parent)))
    calibration, held_out = split_texts(texts)
    # int8 first: it is the one to run, and fp32 is there for those who ask
    precisions = [precision for precision in FILES if precision in precisions]
    checked = replace(source, max_length=fidelity.checked_length(source))
    with tempfile.TemporaryDirectory() as scratch:
        finished = Path(scratch) / "finished"
        finished.mkdir()
        graphs: dict[Precision, list[Path]] = {}  # the files of each
        feeds = list(_feeds(checked, calibration[:CALIBRATION_LISTS]))
        model = to_onnx(source.module, Path(scratch), source.inputs, opset)
        keep_read_token(model, feeds)
        graphs["fp32"] = save_graph(model, finished / FILES["fp32"])
        if "int8" in precisions:  # of the graph that was just written: there is no second copy
            quantise_products(model, feeds)
            quantise_tables(model, bits=table_bits)
            graphs["int8"] = save_graph(model, finished / FILES["int8"])
        del model
        _describe(finished, source, graphs, {})
        figures = _prove(checked, finished, graphs, held_out[:CHECKED_LISTS], evaluation or {})
        for precision in set(graphs) - set(precisions):  # fp32, which int8 was measured by
            for file in graphs.pop(precision):
                file.unlink()
        _describe(finished, source, {p: graphs[p] for p in precisions}, figures)
        _replace(finished, out)
    logger.info("%s\n%s", out, fidelity.table({p: figures[p] for p in precisions}))
    return {precision: figures[precision] for precision in precisions}


def check_out(out: Path, *sources: Path) -> None:
    """Refuse a folder that cannot be written, or that holds what is being exported.

    Raises:
        InvalidInput: ``out`` is a file, or one of ``sources``.
    """
    if out.exists() and not out.is_dir():
        raise InvalidInput(f"{out} is a file: name a folder to write the export to")
    if out.resolve() in {source.resolve() for source in sources}:
        raise InvalidInput(
            f"{out} is the folder of the checkpoint, which the export would overwrite: name another"
        )


def split_texts(texts: fidelity.Texts) -> tuple[fidelity.Texts, fidelity.Texts]:
    """Lists to calibrate on and lists to measure with: no figure is of text that int8 was fit to.

    A single list has to serve for both.
    """
    return (texts[::2], texts[1::2]) if len(texts) > 1 else (texts, texts)


def _prove(
    source: Source,
    folder: Path,
    precisions: Iterable[Precision],
    texts: fidelity.Texts,
    evaluation: Mapping[str, Sequence[CandidateList]],
) -> Figures:
    with ExitStack() as stack:
        rankers = {p: stack.enter_context(_open(folder, p, source)) for p in precisions}
        fp32 = rankers["fp32"]
        exact = fidelity.against_torch(source, fp32, texts)
        figures: Figures = {
            "fp32": {
                "fp32_vs_torch_max_abs_logit": exact,
                "fp32_vs_torch_longest_tokens": source.max_length,
            }
        }
        if "int8" in rankers:
            compared = fidelity.against_fp32(fp32, rankers["int8"], texts)
            figures["int8"] = {f"int8_vs_fp32_{name}": value for name, value in compared.items()}
            figures["int8"] |= figures["fp32"]
        for precision, ranker in rankers.items():
            found = figures[precision]
            found["alone_vs_batch_max_abs_score"] = fidelity.alone_against_batch(ranker, texts[:8])
            for name, lists in evaluation.items():
                found[f"ndcg@10_{name}"] = fidelity.quality(ranker, lists)
    for name in evaluation if "int8" in figures else ():
        exact, rounded = (figures[p][f"ndcg@10_{name}"] for p in ("fp32", "int8"))
        figures["int8"][f"ndcg@10_{name}_fp32"] = exact
        if exact - rounded > NDCG_LOSS:
            logger.warning("%s: int8 loses %.4f nDCG@10 on %s", source.name, exact - rounded, name)
    return figures


def _open(folder: Path, precision: Precision, source: Source) -> Ranker:
    file, length = FILES[precision], source.max_length
    return Ranker(folder, file=file, activation="raw", max_length=length)


def _feeds(source: Source, texts: fidelity.Texts) -> Iterator[Feeds]:
    encoder = open_encoder(source.tokenizer, source.max_length, source.template)
    for query, passages in texts:
        for chunk in encoder.chunks([(query, passage) for passage in passages]):
            for rows in batches([len(pair.ids) for pair in chunk]):
                pairs = [chunk[row] for row in rows]
                yield pad(pairs, source.padding, source.inputs, source.padding_side)


def _describe(
    folder: Path, source: Source, graphs: Mapping[Precision, Sequence[Path]], figures: Figures
) -> None:
    """Write what goes with the graphs; each is a list of its files, the graph itself first."""
    config = {key: value for key, value in source.config.items() if key not in UNTOLD}
    config["pad_token_id"] = source.padding
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    # Compact: a third smaller, and quicker to read.
    tokenizer = json.loads(source.tokenizer.read_text(encoding="utf-8"))
    tokenizer["truncation"] = tokenizer["padding"] = None
    (folder / TOKENIZER).write_text(
        json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")), encoding="utf-8"
    )
    variants = []
    for precision, (file, *data) in graphs.items():
        beside = {path.name: facts_of(path).to_dict() for path in data}
        variants.append(
            {
                "file": file.name,
                "precision": precision,
                **facts_of(file).to_dict(),
                **({"data": beside} if beside else {}),
                "batch_invariant": True,
                "requires": [],  # 7-bit weights are right, if not fast, on every processor
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
        "inputs": list(source.inputs),
        "padding_side": source.padding_side,
        **({"template": source.template.to_json()} if source.template else {}),
        "variants": variants,
        "files": {name: facts_of(folder / name).to_dict() for name in (TOKENIZER, CONFIG)},
    }
    for name, file in source.licences.items():
        shutil.copyfile(file, folder / name)
    report = fidelity.table({p: figures.get(p, {}) for p in graphs}) if figures else ""
    (folder / CARD).write_text(model_card(source, variants, report), encoding="utf-8")
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _replace(finished: Path, out: Path) -> None:
    """Move the files into ``out``, the manifest last; graphs of an earlier export go.

    A model card that somebody wrote stays.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(finished.iterdir(), key=lambda file: file.name == MANIFEST)
    graphs = {path.name for name in FILES.values() for path in (Path(name), data_file(Path(name)))}
    for name in graphs - {file.name for file in files}:
        (out / name).unlink(missing_ok=True)
    for file in files:
        if file.name == CARD and is_foreign(out / CARD):
            continue
        partial = out / f"{file.name}.partial"
        shutil.move(file, partial)
        partial.replace(out / file.name)
