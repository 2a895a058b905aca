"""Writes a model folder: graphs, tokenizer, configuration, and the manifest that vouches for it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flashrank_lite.encoding.apart import ApartEncoder
from flashrank_lite.encoding.collate import pad, pad_alone
from flashrank_lite.errors import InvalidInput, InvalidModel
from flashrank_lite.evaluation import CandidateList
from flashrank_lite.export import fidelity
from flashrank_lite.export.beside import copy_into, write_beside
from flashrank_lite.export.graph.int8 import quantise_products
from flashrank_lite.export.graph.nodes import Feeds
from flashrank_lite.export.graph.read_token import keep_read_token
from flashrank_lite.export.graph.tables import quantise_tables
from flashrank_lite.export.graph.torch_graph import OPSET, check_opset, to_onnx
from flashrank_lite.export.graph.weights import read_graph, save_graph
from flashrank_lite.export.memory import peak_memory
from flashrank_lite.export.source import Source
from flashrank_lite.export.steps import Steps, key_of
from flashrank_lite.ranker import Ranker
from flashrank_lite.runtime.plan import plan
from flashrank_lite.states.graph import query_feeds

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "int8"]
Rounding = Literal["fast", "accurate"]
Figures = dict[Precision, dict[str, Any]]  # of each graph, by name
FILES: dict[Precision, str] = {"int8": "model_int8.onnx", "fp32": "model.onnx"}
NDCG_LOSS = 0.005  # of int8 against fp32: more is said
CALIBRATION_LISTS = 24
CHECKED_LISTS = 40


def export_folder(
    source: Source,
    out: Path,
    texts: fidelity.Texts,
    *,
    precisions: Sequence[Precision] = ("int8", "fp32"),
    int8: Rounding = "fast",
    require_int8: bool = False,
    table_bits: int = 8,
    evaluation: Mapping[str, Sequence[CandidateList]] | None = None,
    opset: int = OPSET,
    resume: bool = False,
) -> Figures:
    """Export `source` into the folder `out`, with a check that its scores are the library's.

    An int8 graph that orders passages unlike fp32 is left out, with a warning: fp32 takes its
    place.

    Args:
        source: the model.
        out: folder to write; files of the same names are replaced when all checks have passed.
        texts: real (query, candidates) lists: every second one to calibrate on, the others to
            compare with.
        precisions: graphs to write.
        int8: "fast", or "accurate" for an order closer to that of fp32 at some cost in speed.
        require_int8: raise where int8 would be left out.
        table_bits: 8 or 4, for large embedding tables of the int8 graph.
        evaluation: labelled lists by name, for nDCG@10 of each graph.
        opset: version of the ONNX operators that is traced, and that the fp32 graph takes; the
            int8 one takes 23 where its attention is one operator.
        resume: take the graphs that an earlier try kept beside `out` when it was refused, as far as
            they would come out the same.

    Returns:
        The fidelity figures of each precision written, as they stand in the manifest.

    Raises:
        InvalidModel: scores differ from those of the checkpoint's library or of torch, or depend on
            neighbours; or int8 is required and orders passages unlike fp32.
        InvalidInput: no texts, an unknown precision or operator version, or `out` is a file or
            where the source lies.
        MissingExtra: sentence-transformers is not installed.
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
    checked = replace(source, max_length=fidelity.checked_length(source))
    kept = out.with_name(f"{out.name}.kept")
    with tempfile.TemporaryDirectory() as scratch:
        steps = Steps(kept, resume=resume)
        work = _Work(checked, Path(scratch), held_out[:CHECKED_LISTS], evaluation or {}, steps)
        feeds = list(feeds_of(checked, calibration[:CALIBRATION_LISTS]))
        try:
            work.write_fp32(feeds, opset)
            if "int8" in precisions and not work.write_int8(
                feeds, int8, table_bits, required=require_int8
            ):
                precisions = ["fp32"]
        except InvalidModel as refused:
            if not steps.keep(work.folder):
                raise
            raise InvalidModel(
                f"{refused}. What was done is in {kept}: --resume goes on from there"
            ) from refused
        # int8 first: it is the one to run, and fp32 is there for those who ask
        precisions = [precision for precision in FILES if precision in precisions]
        work.finish(source, precisions)
        copy_into(work.folder, out, FILES.values())
        steps.drop()
    figures = {precision: work.figures[precision] for precision in precisions}
    logger.info("%s\n%s", out, fidelity.table(figures))
    peak = peak_memory()
    if peak is not None:
        logger.info("Memory at its peak: %.1f GB", peak / 1e9)
    return figures


def check_out(out: Path, *sources: Path) -> None:
    """Refuse a folder that cannot be written, or that holds what is being exported.

    Raises:
        InvalidInput: `out` is a file, or one of `sources`.
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


class _Work:
    """Graphs in a temporary folder, each measured before the next one is made.

    fp32 is compared first: what is wrong with a checkpoint shows before int8 takes its minutes.
    """

    def __init__(
        self,
        source: Source,
        scratch: Path,
        texts: fidelity.Texts,
        evaluation: Mapping[str, Sequence[CandidateList]],
        steps: Steps,
    ) -> None:
        self.folder = scratch / "finished"
        self.folder.mkdir()
        self.figures: Figures = {}
        self._graphs: dict[Precision, list[Path]] = {}  # the files of each
        self._source, self._scratch = source, scratch
        self._texts, self._evaluation, self._steps = texts, evaluation, steps

    def write_fp32(self, feeds: Sequence[Feeds], opset: int) -> None:
        """Trace, and compare with the library and with torch."""
        source = self._source
        key = key_of(source, opset)
        graph = self._steps.take("fp32", key, self.folder)
        if graph is None:
            model = to_onnx(source.module, self._scratch, source.inputs, opset, source.outputs)
            keep_read_token(model, feeds)
            graph = save_graph(model, self.folder / FILES["fp32"])
            self._steps.record("fp32", key, graph)
            del model
        self._graphs["fp32"] = graph
        write_beside(self.folder, source, self._graphs, {})
        with self._open("fp32") as ranker:
            exact = fidelity.against_torch(source, ranker, self._texts)
            self.figures["fp32"] = {
                **fidelity.against_library(source, ranker, self._texts),
                "fp32_vs_torch_max_abs_logit": exact,
                "fp32_vs_torch_longest_tokens": source.max_length,
                **self._measure(ranker),
            }

    def write_int8(
        self, feeds: Sequence[Feeds], rounding: Rounding, table_bits: int, *, required: bool
    ) -> bool:
        """Round the fp32 graph, and compare with it; whether the int8 graph is to be had.

        Raises:
            InvalidModel: it is not, though it is required.
        """
        try:
            graph = self._rounded(feeds, rounding, table_bits)
        except InvalidModel as error:  # it has no product that is worth rounding
            if required:
                raise
            logger.warning("%s has no int8 graph: %s", self._source.name, error)
            return False
        write_beside(self.folder, self._source, self._graphs | {"int8": graph}, {})
        with self._open("fp32") as fp32, self._open("int8") as int8:
            compared = fidelity.against_fp32(fp32, int8, self._texts)
            tau = compared["kendall_tau"]
            if not tau >= fidelity.LEAST_TAU:
                better = "" if rounding == "accurate" else "--int8 accurate, or "
                problem = (
                    f"int8 orders passages unlike fp32 (Kendall's tau {tau:.2f}, less than "
                    f"{fidelity.LEAST_TAU}): try {better}--calibration with text like that of use"
                )
                if required:
                    raise InvalidModel(problem)
                logger.warning("%s has no int8 graph: %s", self._source.name, problem)
                for file in graph:
                    file.unlink()
                return False
            self._graphs["int8"] = graph
            found = self.figures["int8"] = self.figures["fp32"] | {
                **{f"int8_vs_fp32_{name}": value for name, value in compared.items()},
                **self._measure(int8),
            }
        for name in self._evaluation:
            exact = self.figures["fp32"][f"ndcg@10_{name}"]
            found[f"ndcg@10_{name}_fp32"] = exact
            lost = exact - found[f"ndcg@10_{name}"]
            if lost > NDCG_LOSS:
                logger.warning("%s: int8 loses %.4f nDCG@10 on %s", self._source.name, lost, name)
        return True

    def _rounded(self, feeds: Sequence[Feeds], rounding: Rounding, table_bits: int) -> list[Path]:
        """The files of the int8 graph."""
        digest = sha256(b"".join(feed[name].tobytes() for feed in feeds for name in sorted(feed)))
        key = key_of(self._source, rounding, table_bits, digest.hexdigest())
        graph = self._steps.take("int8", key, self.folder)
        if graph is None:
            model = read_graph(self.folder / FILES["fp32"])
            quantise_products(model, feeds, accurate=rounding == "accurate")
            quantise_tables(model, bits=table_bits)
            graph = save_graph(model, self.folder / FILES["int8"])
            self._steps.record("int8", key, graph)
        return graph

    def finish(self, source: Source, precisions: Sequence[Precision]) -> None:
        """Leave the graphs `precisions` in the folder, and write what goes with them."""
        for precision in set(self._graphs) - set(precisions):  # fp32, which int8 was measured by
            for file in self._graphs.pop(precision):
                file.unlink()
        write_beside(self.folder, source, {p: self._graphs[p] for p in precisions}, self.figures)

    def _measure(self, ranker: Ranker) -> dict[str, float]:
        alone = fidelity.alone_against_batch(ranker, self._texts[:8], self._source.activation)
        quality = {
            f"ndcg@10_{name}": fidelity.quality(ranker, lists)
            for name, lists in self._evaluation.items()
        }
        return {"alone_vs_batch_max_abs_score": alone, **quality}

    def _open(self, precision: Precision) -> Ranker:
        return Ranker(
            self.folder,
            file=FILES[precision],
            activation="raw",
            max_length=self._source.max_length,
            long="truncate",  # as the libraries read a passage that does not fit
        )


def feeds_of(source: Source, texts: fidelity.Texts) -> Iterator[Feeds]:
    """Inputs of the graph on real text, as the runtime makes them."""
    encoder = fidelity.encoder_of(source)
    if isinstance(encoder, ApartEncoder):
        yield from _alone(source, encoder, texts)
        return
    for query, passages in texts:
        for chunk in encoder.chunks([(query, passage) for passage in passages]):
            for rows in plan([len(pair.ids) for pair in chunk]).batches:
                pairs = [chunk[row] for row in rows]
                yield pad(pairs, source.padding, source.inputs, source.padding_side)


def _alone(source: Source, encoder: ApartEncoder, texts: fidelity.Texts) -> Iterator[Feeds]:
    """Queries and passages, each of which is read alone."""
    assert source.late is not None
    assert source.late.roles is not None
    for query, passages in texts:
        feeds, _ = query_feeds(encoder.query_row(encoder.query(query)), source.late.roles)
        # What a query is filled up with counts, and so is looked at, though it may not be attended.
        yield {**feeds, "attention_mask": np.ones_like(feeds["attention_mask"])}
        rows = [
            encoder.passage_row(encoder.passage(passage), encoder.passage_room)[0]
            for passage in passages
        ]
        for batch in plan([len(row) for row in rows]).batches:
            yield pad_alone([rows[row] for row in batch], source.padding)
