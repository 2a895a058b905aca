"""The way from a query and passages to hits, best first; the only file that knows all of it."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

import flashrank_lite
from flashrank_lite.batching import BATCH_TOKENS, batches
from flashrank_lite.cpu import resolve_threads
from flashrank_lite.device import open_graph
from flashrank_lite.encoding import pad
from flashrank_lite.errors import InvalidInput, RankerClosed
from flashrank_lite.graph import Providers, is_dynamic_int8
from flashrank_lite.heads import Activation, Head, activate, choose_output, read_logits
from flashrank_lite.languages import ScriptWatch
from flashrank_lite.models.manifest import TOKENIZER, read_manifest
from flashrank_lite.models.sources import Token, locate
from flashrank_lite.passages import Passage, RankedPassage, read_passages
from flashrank_lite.prompts import open_encoder

logger = logging.getLogger(__name__)

T = TypeVar("T")
Floats = NDArray[np.float32]


class Ranker:
    """Ranks passages for a query with a cross-encoder.

    One ranker serves any number of threads, can be pickled (it is loaded anew where it is
    unpickled) and used after a fork.

    Args:
        model: None for the model inside the package, the path of a model folder, a name that
            `flashrank-lite models list` shows, or "org/name" on the Hugging Face Hub, which is
            downloaded once (`flashrank_lite.models.sources` has the rule for names).
        revision: of a model on the Hub: a branch, a tag or a commit; None for "main", as it was
            when it was first downloaded.
        file: the graph to run, as a path inside the model, as in "onnx/model.onnx"; None for the
            best one that this processor runs correctly.
        token: for private repositories on the Hub; None for HF_TOKEN or a saved login.
        max_length: tokens of a query and a passage together, special tokens included; None for
            what the model says. Shorter is faster, and truncates more.
        threads: threads of one run; None for FLASHRANK_LITE_THREADS, or else the cores that
            affinity and cgroup quota leave to this process.
        activation: "sigmoid" for scores in [0, 1], "raw" for logits; None for what the model says.
        batch_tokens: padded tokens of one batch, which sets peak memory; None for 512.
        device: "cpu", "cuda" (that, or an error that says what is missing) or "auto" (CUDA where it
            works; `info()` says why not); None for what `providers` say.
        providers: onnxruntime execution providers, preferred first; None for the CPU.

    Raises:
        ModelNotFound: there is no such folder, name, repository or revision.
        AccessDenied, DownloadFailed, CacheNotWritable: it could not be downloaded.
        InvalidModel: it cannot be used as a reranker; ChecksumMismatch: a file was changed.
        InvalidInput: an argument is out of range.
        ProviderUnavailable: a device or provider that was asked for cannot be had.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        revision: str | None = None,
        file: str | None = None,
        token: Token = None,
        max_length: int | None = None,
        threads: int | None = None,
        activation: Activation | None = None,
        batch_tokens: int | None = None,
        device: Literal["cpu", "cuda", "auto"] | None = None,
        providers: Providers | None = None,
    ) -> None:
        self._arguments: dict[str, Any] = {
            "max_length": max_length,
            "threads": threads,
            "activation": activation,
            "batch_tokens": batch_tokens,
            "device": device,
            "providers": providers,
        }
        self._closed = False
        if activation not in (None, "sigmoid", "raw"):
            raise InvalidInput(f"activation must be 'sigmoid', 'raw' or None, not {activation!r}")
        self._batch_tokens = _positive("batch_tokens", batch_tokens) or BATCH_TOKENS
        self._threads = resolve_threads(threads)
        self._source = source = locate(model, revision=revision, file=file, token=token)
        self._folder = source.folder
        self._manifest = manifest = read_manifest(source.folder, source.file, name=source.name)
        self._scripts = ScriptWatch(manifest.name, manifest.languages or source.languages)
        self._activation: Activation = activation or manifest.activation
        length = _positive("max_length", max_length) or manifest.max_length
        if manifest.length_limit is not None and length > manifest.length_limit:
            raise InvalidInput(
                f"max_length={length} is more than the {manifest.length_limit} tokens that the "
                f"model {manifest.name!r} can take: pass {manifest.length_limit} or less"
            )
        self._encoder = open_encoder(self._folder / TOKENIZER, length, manifest.template)
        padding = manifest.padding
        self._pad_id = self._encoder.token_id(padding) or 0 if isinstance(padding, str) else padding
        graph_file = self._folder / manifest.variant.file
        self._graph, self._placement = open_graph(
            graph_file, self._threads.count, device, providers
        )
        head = Head(manifest.head, manifest.relevant)
        self._output, self._head = choose_output(self._graph.outputs, head)
        stated = manifest.variant.batch_invariant
        # a manifest may say that a graph mixes rows, but not deny it of one that is seen to
        self._invariant = not is_dynamic_int8(graph_file) and stated is not False
        # without a mask padding would be read as text
        masked = any(name.endswith("attention_mask") for name in self._graph.inputs)
        self._alone = not self._invariant or not masked
        logger.debug("ranker of %s, %s", self._folder, manifest.variant.file)

    def rank(
        self, query: str, passages: Iterable[Any], top_k: int | None = None
    ) -> list[RankedPassage]:
        """Rank passages, best first; ties keep the order of the input.

        Args:
            query: what the passages are ranked for.
            passages: strings, mappings with `text` (optional `id`, `meta`), or objects with `.text`
                or `.page_content`; any iterable of these. They are never changed.
            top_k: how many hits to return; None for all.

        Raises:
            InvalidInput: an argument or a passage cannot be used; the message names it.
            NonFiniteScores: the model gave NaN or infinite logits.
        """
        return self.rank_many([query], [passages], top_k)[0]

    def score(self, query: str, passages: Iterable[Any]) -> Floats:
        """Score passages: float32, (n,), in the order of the input. Arguments as for `rank`."""
        _check_text("the query", query)
        read = read_passages(passages)
        logits, _ = self._logits([(query, passage.text) for passage in read])
        return activate(logits, self._activation)

    def score_pairs(self, pairs: Iterable[tuple[str, Any]]) -> Floats:
        """Score (query, passage) pairs: float32, (n,), in the order of the input.

        Raises:
            InvalidInput: an entry is not a pair of a str and a passage.
        """
        queries, passages = [], []
        for index, pair in enumerate(pairs):
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise InvalidInput(f"pair {index} is not a (query, passage) tuple: {pair!r:.80}")
            _check_text(f"the query of pair {index}", pair[0])
            queries.append(pair[0])
            passages.append(pair[1])
        texts = [passage.text for passage in read_passages(passages)]
        logits, _ = self._logits(list(zip(queries, texts, strict=True)))
        return activate(logits, self._activation)

    def rank_many(
        self,
        queries: Sequence[str],
        lists_of_passages: Iterable[Iterable[Any]],
        top_k: int | None = None,
    ) -> list[list[RankedPassage]]:
        """Rank one list of passages per query; batches are shared across queries.

        Args:
            queries: the queries.
            lists_of_passages: for each query its passages, as for `rank`.
            top_k: how many hits to return per query; None for all.

        Raises:
            InvalidInput: as for `rank`, or there are not as many lists as queries.
        """
        _positive("top_k", top_k)
        if isinstance(queries, str):
            raise InvalidInput("queries is a single str: wrap it in a list, or use rank")
        queries = list(queries)
        for index, query in enumerate(queries):
            _check_text(f"query {index}" if len(queries) > 1 else "the query", query)
        if isinstance(lists_of_passages, (str, bytes, dict)):
            raise InvalidInput("lists_of_passages must hold one list of passages per query")
        lists = [read_passages(passages) for passages in lists_of_passages]
        if len(lists) != len(queries):
            raise InvalidInput(
                f"{len(queries)} queries but {len(lists)} lists of passages: pass one per query"
            )
        pairs = [
            (query, passage.text)
            for query, read in zip(queries, lists, strict=True)
            for passage in read
        ]
        logits, truncated = self._logits(pairs)
        hits, start = [], 0
        for read in lists:
            part = slice(start, start + len(read))
            hits.append(self._hits(read, logits[part], truncated[part], top_k))
            start += len(read)
        return hits

    async def arank(
        self, query: str, passages: Iterable[Any], top_k: int | None = None
    ) -> list[RankedPassage]:
        """`rank` in a thread, off the event loop."""
        return await _off_loop(self.rank, query, passages, top_k)

    async def ascore(self, query: str, passages: Iterable[Any]) -> Floats:
        """`score` in a thread, off the event loop."""
        return await _off_loop(self.score, query, passages)

    async def ascore_pairs(self, pairs: Iterable[tuple[str, Any]]) -> Floats:
        """`score_pairs` in a thread, off the event loop."""
        return await _off_loop(self.score_pairs, pairs)

    async def arank_many(
        self,
        queries: Sequence[str],
        lists_of_passages: Iterable[Iterable[Any]],
        top_k: int | None = None,
    ) -> list[list[RankedPassage]]:
        """`rank_many` in a thread, off the event loop."""
        return await _off_loop(self.rank_many, queries, lists_of_passages, top_k)

    def info(self) -> dict[str, Any]:
        """What this ranker is and how it runs, JSON-clean.

        `batch_invariant` says whether the graph's results are independent of the rows beside them.
        Where they are not (dynamic int8), passages are run one at a time, so that scores still are.
        `variant_reason` says why this graph; `repository` and `revision` (the commit) are None for
        a model that is not from the Hub.
        """
        return {
            "model": self._manifest.name,
            "path": str(self._folder),
            "source": self._source.source,
            "repository": self._source.repository,
            "revision": self._source.revision,
            "variant": self._manifest.variant.file,
            "variant_reason": self._source.reason or self._manifest.variant_reason,
            "precision": self._manifest.variant.precision,
            "max_length": self._encoder.max_length,
            "activation": self._activation,
            "head": self._head.type or "decided by the first run",
            "batch_tokens": self._batch_tokens,
            "batch_invariant": self._invariant,
            "one_at_a_time": self._alone,
            "threads": self._threads.count,
            "threads_source": self._threads.source,
            "device": self._placement.device,
            "device_source": self._placement.source,
            "providers": list(self._graph.providers),
            "version": flashrank_lite.__version__,
        }

    def close(self) -> None:
        """Free the model; later calls raise RankerClosed. Closing twice is fine."""
        self._closed = True
        self._graph.close()

    def __enter__(self) -> "Ranker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Ranker {self._manifest.name!r} {self._manifest.variant.file}>"

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], "Ranker"], tuple[dict[str, Any]]]:
        if self._closed:
            raise RankerClosed("a closed ranker cannot be pickled: pickle it before it is closed")
        # exactly this model, wherever the other process runs, and never the token
        source = self._source
        model = {
            "bundled": None,
            "folder": str(source.folder.resolve()),
            "hub": source.model,
        }[source.source]
        found = {"model": model, "revision": source.revision, "token": None}
        return _load, ({**self._arguments, **found},)

    def _hits(
        self, read: list[Passage], logits: Floats, truncated: NDArray[np.bool_], top_k: int | None
    ) -> list[RankedPassage]:
        scores = activate(logits, self._activation)
        order = np.argsort(-logits, kind="stable")[:top_k]
        return [
            RankedPassage(
                text=read[row].text,
                score=float(scores[row]),
                logit=float(logits[row]),
                index=int(row),
                id=read[row].id,
                meta=read[row].meta,
                truncated=bool(truncated[row]),
            )
            for row in order
        ]

    def _logits(self, pairs: list[tuple[str, str]]) -> tuple[Floats, NDArray[np.bool_]]:
        """Logit and truncation of each pair; equal pairs are run once, and so tie exactly."""
        if self._closed:
            raise RankerClosed("this ranker is closed: make a new Ranker, or close it later")
        self._scripts.look(text for pair in pairs for text in pair)
        places: dict[tuple[str, str], int] = {}
        which = np.array([places.setdefault(pair, len(places)) for pair in pairs], np.intp)
        logits = np.empty(len(places), np.float32)
        truncated = np.empty(len(places), np.bool_)
        start = 0
        for chunk in self._encoder.chunks(places):
            budget = 0 if self._alone else self._batch_tokens
            for rows in batches([len(pair.ids) for pair in chunk], budget):
                pairs_of_batch = [chunk[row] for row in rows]
                side = self._manifest.padding_side
                feeds = pad(pairs_of_batch, self._pad_id, self._graph.inputs, side)
                array = self._graph.run(feeds, self._output)
                read = read_logits(array, len(rows), self._output, self._head)
                logits[[start + row for row in rows]] = read
            truncated[start : start + len(chunk)] = [pair.truncated for pair in chunk]
            start += len(chunk)
        return logits[which], truncated[which]


def _load(arguments: dict[str, Any]) -> Ranker:
    return Ranker(**arguments)


async def _off_loop(function: Callable[..., T], *arguments: Any) -> T:
    import asyncio  # 60 ms that only those who use it should pay; they have it imported already

    return await asyncio.to_thread(function, *arguments)


def _positive(name: str, value: int | None) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InvalidInput(f"{name} must be a positive whole number or None, not {value!r}")
    return value


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise InvalidInput(f"{name} must be a str, not {type(value).__name__}")
