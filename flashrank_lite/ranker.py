"""What a user holds: passages of any shape in, hits out, best first."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import flashrank_lite
from flashrank_lite.arguments import check_text, positive
from flashrank_lite.call import Call, current, running
from flashrank_lite.cross_encoder import CrossEncoder
from flashrank_lite.errors import InvalidInput
from flashrank_lite.hits import RankedPassage
from flashrank_lite.logits import Activation, activate
from flashrank_lite.options import Device, ModelOptions, Providers, Token
from flashrank_lite.passages import Passage, read_passages
from flashrank_lite.scorer import Candidates, Scorer, Scores
from flashrank_lite.strategies.fusion import FirstStage, Kind
from flashrank_lite.strategies.grouping import GroupBy, best_of_groups
from flashrank_lite.strategies.in_flight import InFlight
from flashrank_lite.strategies.stack import Long, Strategies, stack

T = TypeVar("T")
Floats = NDArray[np.float32]


class Ranker:
    """Ranks passages for a query.

    One ranker serves any number of threads, can be pickled (its model is opened anew where it is
    unpickled) and used after a fork.

    Args:
        model: None for the model inside the package, the path of a model folder, a name that
            `flashrank-lite models list` shows, or "org/name" on the Hugging Face Hub, which is
            downloaded once (`flashrank_lite.models.resolve` has the rule for names).
        scorer: anything that scores candidates (`flashrank_lite.scorer.Scorer`), instead of a
            model; it comes opened, so the arguments that open a model do not go with it.
        revision: of a model on the Hub: a branch, a tag or a commit; None for "main", as it was
            when it was first downloaded.
        file: the graph to run, as a path inside the model, as in "onnx/model.onnx"; None for the
            best one that this processor runs correctly.
        token: for private repositories on the Hub; None for HF_TOKEN or a saved login.
        max_length: tokens of a query and a passage together, special tokens included; None for
            what the model says. Shorter is faster, and truncates more.
        threads: threads of a call, a batch on each or one on all; None for
            FLASHRANK_LITE_THREADS, or else the cores that affinity, cgroup quota and
            OMP_NUM_THREADS leave to this process.
        activation: "sigmoid" for scores in [0, 1], "raw" for logits; None for what the model says.
        instruction: what a model that is asked in words is told to look for, as those of the
            Qwen3-Reranker family are; None for what the model says. Others take none.
        batch_tokens: padded tokens of the batches of a call that run at the same time, which sets
            peak memory; None for 512.
        device: "cpu", "cuda" (that, or an error that says what is missing) or "auto" (CUDA where it
            works; `info()` says why not); None for what `providers` say.
        providers: onnxruntime execution providers, preferred first; None for the CPU.
        long: "windows" to read a passage that does not fit the model in overlapping windows and
            score it by the best, "truncate" to read its beginning only; None for "windows", but
            "truncate" where `max_length` says how much is to be read, or with a scorer that cannot
            say where its tokens lie.
        then: a second, stronger model (as `model`) or scorer, which reads the best `keep` passages
            of the first again; the others stay below them, in the first's order. It is opened with
            the same token, threads, batch_tokens, device and providers.
        keep: how many that are; None for 25.
        fusion: sort by a blend of the model and the first stage, whose scores the passages carry
            (else it is the order they are in): "rrf" blends ranks, "linear" and "z" scores brought
            to one scale. `score` is then the blend, in [0, 1]. None for the model alone.
        weight: of the model in the blend, from 0 to 1; None for what was measured to be best.
        first_stage: "given", or "bm25" to score the passages of the list by BM25 for the blend
            (pip install "flashrank-lite[bm25]"); None for "given".

    Raises:
        ModelNotFound: there is no such folder, name, repository or revision.
        AccessDenied, DownloadFailed, CacheNotWritable: it could not be downloaded.
        InvalidModel: it cannot be used as a reranker; ChecksumMismatch: a file was changed.
        InvalidInput: an argument is out of range.
        ProviderUnavailable: a device or provider that was asked for is not available.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        scorer: Scorer | None = None,
        revision: str | None = None,
        file: str | None = None,
        token: Token = None,
        max_length: int | None = None,
        threads: int | None = None,
        activation: Activation | None = None,
        instruction: str | None = None,
        batch_tokens: int | None = None,
        device: Device | None = None,
        providers: Providers | None = None,
        long: Long | None = None,
        then: str | os.PathLike[str] | Scorer | None = None,
        keep: int | None = None,
        fusion: Kind | None = None,
        weight: float | None = None,
        first_stage: FirstStage | None = None,
    ) -> None:
        if activation not in (None, "sigmoid", "raw"):
            raise InvalidInput(f"activation must be 'sigmoid', 'raw' or None, not {activation!r}")
        options = ModelOptions(
            revision=revision,
            file=file,
            token=token,
            max_length=max_length,
            threads=threads,
            batch_tokens=batch_tokens,
            instruction=instruction,
            device=device,
            providers=providers,
        )
        if long is None and max_length is not None:
            long = "truncate"  # in windows, less at once would be no less in all
        self._strategies = Strategies(long, keep, fusion, weight, first_stage)
        if scorer is None:
            scorer = CrossEncoder(model, options)
        elif model is not None or options != ModelOptions():
            raise InvalidInput(
                "scorer comes opened: pass model and the arguments that open one to the scorer"
            )
        if isinstance(then, (str, os.PathLike)):
            then = CrossEncoder(then, options.of_another_model())
        self._model, self._then = scorer, then
        self._scorer = stack(scorer, then, self._strategies)
        self._in_flight = InFlight()
        self._activation: Activation = activation or scorer.info().get("activation", "sigmoid")

    def rank(
        self,
        query: str,
        passages: Iterable[Any],
        top_k: int | None = None,
        *,
        instruction: str | None = None,
        long: Long | None = None,
        group_by: GroupBy | None = None,
    ) -> list[RankedPassage]:
        """Rank passages, best first; ties keep the order of the input.

        Args:
            query: what the passages are ranked for.
            passages: strings, mappings with `text` (optional `id`, `meta`), or objects with `.text`
                or `.page_content`; any iterable of these. They are never changed.
            top_k: how many hits to return; None for all.
            instruction: what to look for, for models that take one; None for the ranker's.
            long: "truncate" or "windows" for long passages; None for the ranker's.
            group_by: of passages that share this, the best alone is a hit: "id", a key of the
                metadata (say, of the document), or a function of the passage. A passage without it
                stands for itself.

        Raises:
            InvalidInput: an argument or a passage cannot be used; the message names it.
            NonFiniteScores: the model gave NaN or infinite logits.
            RankerClosed: after `close`.
            CallCancelled: the call was cancelled (`flashrank_lite.call`).
        """
        return self.rank_many(
            [query], [passages], top_k, instruction=instruction, long=long, group_by=group_by
        )[0]

    def score(
        self,
        query: str,
        passages: Iterable[Any],
        *,
        instruction: str | None = None,
        long: Long | None = None,
    ) -> Floats:
        """Score passages: float32, (n,), in the order of the input. Arguments as for `rank`.

        Of a cascade the scores are of two models, which do not compare.
        """
        check_text("the query", query)
        candidates = _candidates(query, read_passages(passages))
        (scores,) = self._score([candidates], instruction, long)
        return self._values(scores)

    def score_pairs(
        self,
        pairs: Iterable[tuple[str, Any]],
        *,
        instruction: str | None = None,
        long: Long | None = None,
    ) -> Floats:
        """Score (query, passage) pairs: float32, (n,), in the order of the input.

        Args:
            pairs: queries, and passages as for `rank`. Those of one query are a list.
            instruction: as for `rank`.
            long: as for `rank`.

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
        rows: dict[str, list[int]] = {}  # a query's pairs are one list
        for row, query in enumerate(queries):
            rows.setdefault(query, []).append(row)
        read = read_passages(passages)
        lists = [_candidates(query, [read[row] for row in rows[query]]) for query in rows]
        values = np.empty(len(read), np.float32)
        found = self._score(lists, instruction, long)
        for places, scores in zip(rows.values(), found, strict=True):
            values[places] = self._values(scores)
        return values

    def rank_many(
        self,
        queries: Sequence[str],
        lists_of_passages: Iterable[Iterable[Any]],
        top_k: int | None = None,
        *,
        instruction: str | None = None,
        long: Long | None = None,
        group_by: GroupBy | None = None,
    ) -> list[list[RankedPassage]]:
        """Rank one list of passages per query; batches are shared across queries.

        Args:
            queries: the queries.
            lists_of_passages: for each query its passages, as for `rank`.
            top_k: how many hits to return per query; None for all.
            instruction: as for `rank`, for all queries.
            long: as for `rank`.
            group_by: as for `rank`; each list by itself.

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
        candidates = [_candidates(*entry) for entry in zip(queries, lists, strict=True)]
        found = self._score(candidates, instruction, long)
        return [
            self._hits(read, scores, top_k, group_by)
            for read, scores in zip(lists, found, strict=True)
        ]

    async def arank(
        self,
        query: str,
        passages: Iterable[Any],
        top_k: int | None = None,
        *,
        instruction: str | None = None,
        long: Long | None = None,
        group_by: GroupBy | None = None,
    ) -> list[RankedPassage]:
        """`rank` in a thread, off the event loop; stops within a batch when it is cancelled."""
        return await _off_loop(
            self.rank, query, passages, top_k, instruction=instruction, long=long, group_by=group_by
        )

    async def ascore(
        self,
        query: str,
        passages: Iterable[Any],
        *,
        instruction: str | None = None,
        long: Long | None = None,
    ) -> Floats:
        """`score` in a thread, as `arank`."""
        return await _off_loop(self.score, query, passages, instruction=instruction, long=long)

    async def ascore_pairs(
        self,
        pairs: Iterable[tuple[str, Any]],
        *,
        instruction: str | None = None,
        long: Long | None = None,
    ) -> Floats:
        """`score_pairs` in a thread, as `arank`."""
        return await _off_loop(self.score_pairs, pairs, instruction=instruction, long=long)

    async def arank_many(
        self,
        queries: Sequence[str],
        lists_of_passages: Iterable[Iterable[Any]],
        top_k: int | None = None,
        *,
        instruction: str | None = None,
        long: Long | None = None,
        group_by: GroupBy | None = None,
    ) -> list[list[RankedPassage]]:
        """`rank_many` in a thread, as `arank`."""
        return await _off_loop(
            self.rank_many,
            queries,
            lists_of_passages,
            top_k,
            instruction=instruction,
            long=long,
            group_by=group_by,
        )

    def info(self) -> dict[str, Any]:
        """What this ranker is and how it runs, JSON-clean.

        `batch_invariant` says whether the graph's results are independent of the rows beside them.
        Where they are not (dynamic int8), each passage is run alone, so that scores still are.
        `workers` is how many batches may run side by side, each on one of the `threads`; 1 where a
        batch has all of them. `graph_reason` says why this graph; `graph_activation` what the graph
        itself ends in; `repository` and `revision` (the commit) are None for a model that is not
        from the Hub.
        """
        return {
            **self._scorer.info(),
            "activation": self._activation,
            "version": flashrank_lite.__version__,
        }

    def close(self) -> None:
        """Free the model: calls in flight finish, later ones raise RankerClosed."""
        self._in_flight.close(self._scorer.close)

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
        info = self._scorer.info()
        return f"<Ranker {info.get('model', type(self._scorer).__name__)!r}>"

    def _score(
        self, lists: Sequence[Candidates], instruction: str | None, long: Long | None
    ) -> list[Scores]:
        scorer = self._scorer
        if long is not None:
            scorer = stack(self._model, self._then, replace(self._strategies, long=long))
        with self._in_flight.one():
            return scorer.score(lists, instruction=instruction)

    def _values(self, scores: Scores) -> Floats:
        """What a user sees: the blend, where there is one, or the activated logit."""
        values = activate(scores.logits, self._activation)
        return values if scores.fused is None else _first_known(scores.fused, values)

    def _hits(
        self, read: list[Passage], scores: Scores, top_k: int | None, group_by: GroupBy | None
    ) -> list[RankedPassage]:
        values = self._values(scores)
        order = scores.order().tolist()
        if group_by is not None:
            order = best_of_groups(order, read, group_by)
        return [
            RankedPassage(
                text=read[row].text,
                score=float(values[row]),
                logit=float(scores.logits[row]),
                index=row,
                id=read[row].id,
                meta=read[row].meta,
                truncated=bool(scores.truncated[row]),
                span=None if scores.spans is None else tuple(scores.spans[row].tolist()),
            )
            for row in order[:top_k]
        ]


def _first_known(values: Floats, otherwise: Floats) -> Floats:
    return np.where(np.isnan(values), otherwise, values)


def _candidates(query: str, read: list[Passage]) -> Candidates:
    texts = [passage.text for passage in read]
    scores = [passage.first_stage for passage in read]
    if all(score is None for score in scores):
        return Candidates(query, texts)
    return Candidates(query, texts, np.array(scores, np.float32))  # NaN for None


async def _off_loop(function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    import asyncio  # 60 ms that only those who use it should pay; they have it imported already

    call = Call(parent=current())

    def work() -> T:
        with running(call):
            return function(*arguments, **options)

    try:
        return await asyncio.to_thread(work)
    except asyncio.CancelledError:
        call.cancel()  # the thread stops before its next batch
        raise
