"""What a user holds: passages of any shape in, hits out, best first."""

import os
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

import flashrank_lite
from flashrank_lite.arguments import check_text, positive
from flashrank_lite.cross_encoder import Model
from flashrank_lite.errors import InvalidInput, RankerClosed
from flashrank_lite.hits import RankedPassage
from flashrank_lite.logits import Activation, activate
from flashrank_lite.models.sources import Token
from flashrank_lite.passages import Passage, read_passages
from flashrank_lite.runtime.sessions import Providers

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
        threads: threads of a call, a batch on each or one on all; None for
            FLASHRANK_LITE_THREADS, or else the cores that affinity and cgroup quota leave to this
            process.
        activation: "sigmoid" for scores in [0, 1], "raw" for logits; None for what the model says.
        instruction: what a model that is asked in words is told to look for, as those of the
            Qwen3-Reranker family are; None for what the model says. Others take none.
        batch_tokens: padded tokens of the batches of a call that run at the same time, which sets
            peak memory; None for 512.
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
        instruction: str | None = None,
        batch_tokens: int | None = None,
        device: Literal["cpu", "cuda", "auto"] | None = None,
        providers: Providers | None = None,
    ) -> None:
        self._arguments: dict[str, Any] = {
            "max_length": max_length,
            "threads": threads,
            "activation": activation,
            "instruction": instruction,
            "batch_tokens": batch_tokens,
            "device": device,
            "providers": providers,
        }
        if activation not in (None, "sigmoid", "raw"):
            raise InvalidInput(f"activation must be 'sigmoid', 'raw' or None, not {activation!r}")
        self._model = Model(
            model,
            revision=revision,
            file=file,
            token=token,
            max_length=max_length,
            threads=threads,
            instruction=instruction,
            batch_tokens=batch_tokens,
            device=device,
            providers=providers,
        )
        self._activation: Activation = activation or self._model.manifest.activation

    def rank(
        self,
        query: str,
        passages: Iterable[Any],
        top_k: int | None = None,
        *,
        instruction: str | None = None,
    ) -> list[RankedPassage]:
        """Rank passages, best first; ties keep the order of the input.

        Args:
            query: what the passages are ranked for.
            passages: strings, mappings with `text` (optional `id`, `meta`), or objects with `.text`
                or `.page_content`; any iterable of these. They are never changed.
            top_k: how many hits to return; None for all.
            instruction: what to look for, for models that take one; None for the ranker's.

        Raises:
            InvalidInput: an argument or a passage cannot be used; the message names it.
            NonFiniteScores: the model gave NaN or infinite logits.
        """
        return self.rank_many([query], [passages], top_k, instruction=instruction)[0]

    def score(
        self, query: str, passages: Iterable[Any], *, instruction: str | None = None
    ) -> Floats:
        """Score passages: float32, (n,), in the order of the input. Arguments as for `rank`."""
        check_text("the query", query)
        read = read_passages(passages)
        logits, _ = self._model.logits([(query, passage.text) for passage in read], instruction)
        return activate(logits, self._activation)

    def score_pairs(
        self, pairs: Iterable[tuple[str, Any]], *, instruction: str | None = None
    ) -> Floats:
        """Score (query, passage) pairs: float32, (n,), in the order of the input.

        Args:
            pairs: queries, and passages as for `rank`.
            instruction: as for `rank`.

        Raises:
            InvalidInput: an entry is not a pair of a str and a passage.
        """
        queries, passages = [], []
        for index, pair in enumerate(pairs):
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise InvalidInput(f"pair {index} is not a (query, passage) tuple: {pair!r:.80}")
            check_text(f"the query of pair {index}", pair[0])
            queries.append(pair[0])
            passages.append(pair[1])
        texts = [passage.text for passage in read_passages(passages)]
        logits, _ = self._model.logits(list(zip(queries, texts, strict=True)), instruction)
        return activate(logits, self._activation)

    def rank_many(
        self,
        queries: Sequence[str],
        lists_of_passages: Iterable[Iterable[Any]],
        top_k: int | None = None,
        *,
        instruction: str | None = None,
    ) -> list[list[RankedPassage]]:
        """Rank one list of passages per query; batches are shared across queries.

        Args:
            queries: the queries.
            lists_of_passages: for each query its passages, as for `rank`.
            top_k: how many hits to return per query; None for all.
            instruction: as for `rank`, for all queries.

        Raises:
            InvalidInput: as for `rank`, or there are not as many lists as queries.
        """
        positive("top_k", top_k)
        if isinstance(queries, str):
            raise InvalidInput("queries is a single str: wrap it in a list, or use rank")
        queries = list(queries)
        for index, query in enumerate(queries):
            check_text(f"query {index}" if len(queries) > 1 else "the query", query)
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
        logits, truncated = self._model.logits(pairs, instruction)
        hits, start = [], 0
        for read in lists:
            part = slice(start, start + len(read))
            hits.append(self._hits(read, logits[part], truncated[part], top_k))
            start += len(read)
        return hits

    async def arank(
        self,
        query: str,
        passages: Iterable[Any],
        top_k: int | None = None,
        *,
        instruction: str | None = None,
    ) -> list[RankedPassage]:
        """`rank` in a thread, off the event loop."""
        return await _off_loop(self.rank, query, passages, top_k, instruction=instruction)

    async def ascore(
        self, query: str, passages: Iterable[Any], *, instruction: str | None = None
    ) -> Floats:
        """`score` in a thread, off the event loop."""
        return await _off_loop(self.score, query, passages, instruction=instruction)

    async def ascore_pairs(
        self, pairs: Iterable[tuple[str, Any]], *, instruction: str | None = None
    ) -> Floats:
        """`score_pairs` in a thread, off the event loop."""
        return await _off_loop(self.score_pairs, pairs, instruction=instruction)

    async def arank_many(
        self,
        queries: Sequence[str],
        lists_of_passages: Iterable[Iterable[Any]],
        top_k: int | None = None,
        *,
        instruction: str | None = None,
    ) -> list[list[RankedPassage]]:
        """`rank_many` in a thread, off the event loop."""
        return await _off_loop(
            self.rank_many, queries, lists_of_passages, top_k, instruction=instruction
        )

    def info(self) -> dict[str, Any]:
        """What this ranker is and how it runs, JSON-clean.

        `batch_invariant` says whether the graph's results are independent of the rows beside them.
        Where they are not (dynamic int8), each passage is run alone, so that scores still are.
        `batches_at_once` is how many may run side by side, each on one of the `threads`; 1 where a
        batch has all of them. `variant_reason` says why this graph; `repository` and `revision`
        (the commit) are None for a model that is not from the Hub.
        """
        return {
            **self._model.info(),
            "activation": self._activation,
            "version": flashrank_lite.__version__,
        }

    def close(self) -> None:
        """Free the model; later calls raise RankerClosed. Closing twice is fine."""
        self._model.close()

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
        return f"<Ranker {self._model.manifest.name!r} {self._model.manifest.variant.file}>"

    def __reduce__(
        self,
    ) -> tuple[Callable[[dict[str, Any], str], "Ranker"], tuple[dict[str, Any], str]]:
        if self._model.closed:
            raise RankerClosed("a closed ranker cannot be pickled: pickle it before it is closed")
        arguments = {**self._arguments, **self._model.found_again()}
        return _load, (arguments, self._model.variant_reason)

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


def _load(arguments: dict[str, Any], variant_reason: str) -> Ranker:
    ranker = Ranker(**arguments)
    # why it was chosen, not that it was asked for by now
    ranker._model.variant_reason = variant_reason
    return ranker


async def _off_loop(function: Callable[..., T], *arguments: Any, instruction: str | None) -> T:
    import asyncio  # 60 ms that only those who use it should pay; they have it imported already

    return await asyncio.to_thread(function, *arguments, instruction=instruction)
