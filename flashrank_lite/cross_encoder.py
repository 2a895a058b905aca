"""A model, opened: pairs of texts in, logits out. What a Ranker adds is the user's side of it."""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.arguments import check_text, positive
from flashrank_lite.encoding.collate import Pair, pad
from flashrank_lite.encoding.pairs import PairEncoder
from flashrank_lite.encoding.prompts import PromptEncoder, open_encoder
from flashrank_lite.errors import InvalidInput, RankerClosed
from flashrank_lite.languages import ScriptWatch
from flashrank_lite.logits import Head, choose_output, read_logits
from flashrank_lite.models import sources
from flashrank_lite.models.folder import read_manifest
from flashrank_lite.models.manifest import TOKENIZER, Manifest
from flashrank_lite.runtime.graph import is_dynamic_int8
from flashrank_lite.runtime.plan import BATCH_TOKENS, batches, lane_budget, suits_lanes
from flashrank_lite.runtime.providers import open_graph
from flashrank_lite.runtime.sessions import Providers
from flashrank_lite.runtime.threads import resolve_threads
from flashrank_lite.runtime.workers import side_by_side

logger = logging.getLogger(__name__)


class Model:
    """A cross-encoder, found and opened. Arguments and errors are those of `Ranker`.

    Attributes:
        manifest: what it says of itself.
        closed: whether `close` was called.
        variant_reason: why this graph.
    """

    def __init__(
        self,
        model: sources.Model = None,
        *,
        revision: str | None = None,
        file: str | None = None,
        token: sources.Token = None,
        max_length: int | None = None,
        threads: int | None = None,
        batch_tokens: int | None = None,
        instruction: str | None = None,
        device: str | None = None,
        providers: Providers | None = None,
    ) -> None:
        self.closed = False
        self._batch_tokens = positive("batch_tokens", batch_tokens) or BATCH_TOKENS
        self._threads = resolve_threads(threads)
        self._source = source = sources.locate(model, revision=revision, file=file, token=token)
        self.manifest = manifest = read_manifest(source.folder, source.file, name=source.name)
        self.variant_reason = source.reason or manifest.variant_reason
        self._scripts = ScriptWatch(manifest.name, manifest.languages or source.languages)
        self._encoder: PairEncoder | PromptEncoder = open_encoder(
            source.folder / TOKENIZER, _length(max_length, manifest), manifest.template
        )
        if instruction is not None:
            self._encoder = self._asking(instruction)
        padding = manifest.padding
        self._pad_id = self._encoder.token_id(padding) or 0 if isinstance(padding, str) else padding
        graph_file = source.folder / manifest.variant.file
        self._graph, self._placement = open_graph(
            graph_file, self._threads.count, device, providers
        )
        head = Head(manifest.head, manifest.relevant)
        self._output, self._head = choose_output(self._graph.outputs, head)
        # a manifest may say that a graph mixes rows, but not deny it of one that is seen to
        dynamic = is_dynamic_int8(graph_file)
        self._invariant = not dynamic and manifest.variant.batch_invariant is not False
        # without a mask padding would be read as text
        masked = any(name.endswith("attention_mask") for name in self._graph.inputs)
        self._alone = not self._invariant or not masked
        logger.debug("opened %s, %s", source.folder, manifest.variant.file)

    def logits(
        self, pairs: list[tuple[str, str]], instruction: str | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Logit and truncation of each (query, passage); equal pairs are run once, so tie exactly.

        Args:
            pairs: the texts.
            instruction: what a model that is asked in words is told to look for; None for the
                default.

        Returns:
            Two arrays of shape (n,), in the order of the pairs.

        Raises:
            RankerClosed: after `close`.
            InvalidInput: the instruction cannot be used.
            NonFiniteScores: the model gave NaN or infinite logits.
        """
        if self.closed:
            raise RankerClosed("this ranker is closed: make a new Ranker, or close it later")
        encoder = self._encoder if instruction is None else self._asking(instruction)
        self._scripts.look(text for pair in pairs for text in pair)
        places: dict[tuple[str, str], int] = {}
        which = np.array([places.setdefault(pair, len(places)) for pair in pairs], np.intp)
        logits = np.empty(len(places), np.float32)
        truncated = np.empty(len(places), np.bool_)
        start = 0
        for chunk in encoder.chunks(places):
            part = slice(start, start + len(chunk))
            self._run(chunk, logits[part])
            truncated[part] = [pair.truncated for pair in chunk]
            start += len(chunk)
        return logits[which], truncated[which]

    def found_again(self) -> dict[str, Any]:
        """The arguments that find exactly this model and graph, in any process, but for the token.

        Another processor might choose another graph, which would give other scores.
        """
        source = self._source
        model = {
            "bundled": None,
            "folder": str(source.folder.resolve()),
            "hub": source.model,
        }[source.source]
        return {"model": model, "revision": source.revision, "file": self.manifest.variant.file}

    def info(self) -> dict[str, Any]:
        """What `Ranker.info` says of the model and of how it runs."""
        return {
            "model": self.manifest.name,
            "path": str(self._source.folder),
            "source": self._source.source,
            "repository": self._source.repository,
            "revision": self._source.revision,
            "variant": self.manifest.variant.file,
            "variant_reason": self.variant_reason,
            "precision": self.manifest.variant.precision,
            "max_length": self._encoder.max_length,
            "instruction": _instruction(self._encoder),
            "head": self._head.type or "decided by the first run",
            "batch_tokens": self._batch_tokens,
            "batches_at_once": self._graph.lanes,
            "batch_invariant": self._invariant,
            "one_at_a_time": self._alone,
            "threads": self._threads.count,
            "threads_source": self._threads.source,
            "device": self._placement.device,
            "device_source": self._placement.source,
            "providers": list(self._graph.providers),
        }

    def close(self) -> None:
        """Free the session; closing twice is fine."""
        self.closed = True
        self._graph.close()

    def _run(self, pairs: list[Pair], logits: NDArray[np.float32]) -> None:
        """Put the logit of each pair into its place."""
        lengths = [len(pair.ids) for pair in pairs]
        lanes, budget = self._graph.lanes, self._batch_tokens
        in_lanes = lanes > 1 and suits_lanes(lengths, lanes)
        if in_lanes:
            budget = lane_budget(lengths, budget, lanes)

        def run(rows: list[int]) -> None:
            batch = [pairs[row] for row in rows]
            feeds = pad(batch, self._pad_id, self._graph.inputs, self.manifest.padding_side)
            array = self._graph.run(feeds, self._output, wide=not in_lanes)
            logits[rows] = read_logits(array, len(rows), self._output, self._head)

        plan = list(batches(lengths, 0 if self._alone else budget))
        side_by_side(run, plan, min(lanes, len(plan)) if in_lanes else 1)

    def _asking(self, instruction: str) -> PromptEncoder:
        check_text("instruction", instruction)
        if not isinstance(self._encoder, PromptEncoder) or self._encoder.instruction is None:
            raise InvalidInput(
                f"the model {self.manifest.name!r} takes no instruction: it was not trained to be "
                "told what to look for. Leave instruction out, or load a model that is, as those "
                "of the Qwen3-Reranker family"
            )
        return self._encoder.asking(instruction)


def _instruction(encoder: PairEncoder | PromptEncoder) -> str | None:
    return encoder.instruction if isinstance(encoder, PromptEncoder) else None


def _length(wanted: int | None, manifest: Manifest) -> int:
    length = positive("max_length", wanted) or manifest.max_length
    if manifest.length_limit is not None and length > manifest.length_limit:
        raise InvalidInput(
            f"max_length={length} is more than the {manifest.length_limit} tokens that the "
            f"model {manifest.name!r} can take: pass {manifest.length_limit} or less"
        )
    return length
