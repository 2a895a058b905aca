"""What a user holds: passages of any shape in, hits out, best first."""

import os
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

import flashrank_lite
from flashrank_lite.arguments import check_text
from flashrank_lite.calibration import Calibration, Method, check_activation, fit, read_activation
from flashrank_lite.call import Call, Progress, current, running
from flashrank_lite.call_options import CallOptions
from flashrank_lite.errors import InvalidInput
from flashrank_lite.hits import RankedPassage
from flashrank_lite.in_flight import InFlight
from flashrank_lite.late_interaction import LateInteraction
from flashrank_lite.logits import Activation, activate
from flashrank_lite.opening import open_scorer
from flashrank_lite.options import Device, ModelOptions, Providers, Token
from flashrank_lite.passages import (
    Passage,
    TextField,
    read_judged,
    read_lists,
    read_pairs,
    read_passages,
)
from flashrank_lite.passages.fields import Chosen, check_text_field
from flashrank_lite.progress import reporting
from flashrank_lite.scorer import Candidates, Scorer, Scores
from flashrank_lite.states.codec import Precision
from flashrank_lite.states.stored import StoredPassages
from flashrank_lite.store import PassageStore
from flashrank_lite.strategies.fusion import FirstStage, Kind
from flashrank_lite.strategies.grouping import GroupBy, best_of_groups
from flashrank_lite.strategies.stack import Long, Strategies, stack

P = ParamSpec("P")
T = TypeVar("T")
Floats = NDArray[np.float32]


def _in_thread(
    method: Callable[Concatenate["Ranker", P], T],
) -> Callable[Concatenate["Ranker", P], Coroutine[Any, Any, T]]:
    """The async twin of a method: in a thread, off the event loop."""

    name = method.__name__

    @wraps(method)
    async def twin(self: "Ranker", /, *arguments: P.args, **options: P.kwargs) -> T:
        import asyncio  # 60 ms that only those who use it should pay; they have it imported already

        call = Call(parent=current())

        def work() -> T:
            with running(call):
                result: T = getattr(self, name)(
                    *arguments, **options
                )  # a subclass may have its own
                return result

        try:
            return await asyncio.to_thread(work)
        except asyncio.CancelledError:
            call.cancel()  # the thread stops before its next batch
            raise

    twin.__name__, twin.__qualname__ = f"a{name}", f"Ranker.a{name}"
    twin.__doc__ = (
        f"`{name}` in a thread, off the event loop; stops within a batch when it is cancelled."
    )
    return twin


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
        activation: "sigmoid" for scores in [0, 1], "raw" for logits, or a `Calibration` (see
            `calibrate`) or the file of one for probabilities; None for what the model says.
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
        weight: of the model in the blend, from 0 to 1; None for 0.8.
        first_stage: "given", or "bm25" to score the passages of the list by BM25 for the blend
            (needs the extra `bm25`); None for "given".
        text: what of a passage is its text, as for `rank`; None for the usual places: `text`,
            `page_content`, `content`.
        passage_cache: bytes, as 64_000_000 or "64MB", in which the states of the passages read
            lately are kept, so that they need not be read again; for models that read query and
            passage apart, as the bundled one. Scores are then those of a store in int8. None for
            no cache.

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
        activation: Activation | Calibration | str | os.PathLike[str] | None = None,
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
        text: TextField | None = None,
        passage_cache: int | str | None = None,
    ) -> None:
        activation = read_activation(activation)
        self._text_field = check_text_field(text)
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
            passage_cache=passage_cache,
        )
        if long is None and max_length is not None:
            long = "truncate"  # in windows, less at once would be no less in all
        self._strategies = Strategies(long, keep, fusion, weight, first_stage)
        if scorer is None:
            scorer = open_scorer(model, options)
        elif model is not None or options != ModelOptions():
            raise InvalidInput(
                "scorer comes opened: pass model and the arguments that open one to the scorer"
            )
        if isinstance(then, (str, os.PathLike)):
            then = open_scorer(then, options.of_another_model())
        self._model, self._then = scorer, then
        self._scorer = stack(scorer, then, self._strategies)
        self._in_flight = InFlight()
        info = scorer.info()
        self._name: str | None = info.get("model")
        check_activation(activation, self._name)
        self._activation: Activation | Calibration = activation or info.get("activation", "sigmoid")

    def rank(
        self,
        query: str,
        passages: Iterable[Any],
        top_k: int | None = None,
        *,
        min_score: float | None = None,
        instruction: str | None = None,
        long: Long | None = None,
        passage_tokens: int | None = None,
        group_by: GroupBy | None = None,
        text: TextField | None = None,
        activation: Activation | Calibration | None = None,
        progress: bool | Progress = False,
    ) -> list[RankedPassage]:
        """Rank passages, best first; ties keep the order of the input.

        Args:
            query: what the passages are ranked for.
            passages: strings, mappings, objects with `.text` or the like, hits, a table, a search
                engine's answer: any shape of `flashrank_lite.passages`. They are never changed.
                Or a `PassageStore`, or what its `select` returned: then nothing is read again.
            top_k: how many hits to return; None for all.
            min_score: hits with a lower `score` are left out; None for no threshold. What a score
                means differs from model to model: `calibrate` makes it a probability.
            instruction: what to look for, for models that take one; None for the ranker's.
            long: "truncate" or "windows" for long passages; None for the ranker's.
            passage_tokens: tokens of each passage that are read at most, from its beginning; None
                for all that `long` reads. Not for the passages of a store, which were read before.
            group_by: of passages that share this, the best alone is a hit: "id", a key of the
                metadata (say, of the document), or a function of the passage. A passage without it
                stands for itself.
            text: what of a passage is its text: the name of a field, a dotted path ("doc.body"), a
                list of these, which are joined (`flashrank_lite.Fields` has another separator than
                a line break), or a function of the passage; None for the ranker's.
            activation: as for `Ranker`, for this call; None for the ranker's.
            progress: True for a bar on standard error, or a function that is called with the
                pairs done and the pairs in all after every batch.

        Raises:
            InvalidInput: an argument or a passage cannot be used; the message names it.
            NonFiniteScores: the model gave NaN or infinite logits.
            RankerClosed: after `close`.
            CallCancelled: the call was cancelled (`flashrank_lite.call`).
        """
        options = CallOptions(
            top_k,
            min_score,
            instruction,
            long,
            passage_tokens,
            group_by,
            text,
            activation,
            progress,
        )
        check_text("the query", query)
        read = self._read(passages, options)
        return self._rank([query], [read], options)[0]

    def score(
        self,
        query: str,
        passages: Iterable[Any],
        *,
        instruction: str | None = None,
        long: Long | None = None,
        passage_tokens: int | None = None,
        text: TextField | None = None,
        activation: Activation | Calibration | None = None,
        progress: bool | Progress = False,
    ) -> Floats:
        """Score passages: float32, (n,), in the order of the input. Arguments as for `rank`.

        Of a cascade the scores are of two models, which do not compare.
        """
        options = CallOptions(
            instruction=instruction,
            long=long,
            passage_tokens=passage_tokens,
            text=text,
            activation=activation,
            progress=progress,
        )
        check_text("the query", query)
        read = self._read(passages, options)
        (scores,) = self._score([_candidates(query, read)], options)
        return self._values(scores, options)

    def score_pairs(
        self,
        pairs: Iterable[Any],
        *,
        instruction: str | None = None,
        long: Long | None = None,
        passage_tokens: int | None = None,
        text: TextField | None = None,
        activation: Activation | Calibration | None = None,
        progress: bool | Progress = False,
    ) -> Floats:
        """Score (query, passage) pairs: float32, (n,), in the order of the input.

        Args:
            pairs: tuples of a query and a passage as for `rank`, or an array of texts, (n, 2).
                Those of one query are a list.
            instruction: as for `rank`, and so are the others.

        Raises:
            InvalidInput: an entry is not a pair of a str and a passage.
        """
        options = CallOptions(
            instruction=instruction,
            long=long,
            passage_tokens=passage_tokens,
            text=text,
            activation=activation,
            progress=progress,
        )
        queries, read = read_pairs(pairs, self._text(options))
        return self._score_pairs(queries, read, options)

    def rank_many(
        self,
        queries: Sequence[str],
        lists_of_passages: Iterable[Any],
        top_k: int | None = None,
        *,
        min_score: float | None = None,
        instruction: str | None = None,
        long: Long | None = None,
        passage_tokens: int | None = None,
        group_by: GroupBy | None = None,
        text: TextField | None = None,
        activation: Activation | Calibration | None = None,
        progress: bool | Progress = False,
    ) -> list[list[RankedPassage]]:
        """Rank one list of passages per query; batches are shared across queries.

        Args:
            queries: the queries.
            lists_of_passages: for each query its passages, as for `rank`; [passages] * len(queries)
                ranks the same for each.
            top_k: how many hits to return per query; None for all.
            min_score: as for `rank`, and so are the others, for all queries.

        Raises:
            InvalidInput: as for `rank`, or there are not as many lists as queries.
        """
        options = CallOptions(
            top_k,
            min_score,
            instruction,
            long,
            passage_tokens,
            group_by,
            text,
            activation,
            progress,
        )
        queries = _queries(queries)
        lists = self._read_lists(lists_of_passages, len(queries), options)
        return self._rank(queries, lists, options)

    def calibrate(
        self,
        queries: Sequence[str],
        lists_of_passages: Iterable[Any],
        labels: Iterable[Any],
        method: Method = "platt",
        *,
        instruction: str | None = None,
        long: Long | None = None,
        text: TextField | None = None,
        progress: bool | Progress = False,
    ) -> Calibration:
        """Fit an activation on judged pairs, so that a score is a probability of being relevant.

        Args:
            queries: the queries.
            lists_of_passages: for each query its judged passages, as for `rank_many`; or one
                passage for each query, if the labels are one for each.
            labels: for each query the labels of its passages, or one for each pair: 1 or True for
                relevant, 0 or False for not. Judge what this ranker will see: the candidates of
                the same search.
            method: "platt" (two numbers: for a few dozen pairs and more) or "isotonic" (any curve
                that does not fall: for a thousand and more).
            instruction: as for `rank`, and so are the others.

        Returns:
            The activation, with the fit's Brier score and reliability table: pass it as
            `activation=`, or `save` it. The order of hits stays as it is.

        Raises:
            InvalidInput: the labels do not fit the passages, or nothing can be fitted on them; or
                this is a cascade, whose logits are of two models.
        """
        options = CallOptions(instruction=instruction, long=long, text=text, progress=progress)
        if self._then is not None:
            raise InvalidInput(
                "a cascade has the logits of two models: calibrate a Ranker of one of them"
            )
        judged = read_judged(_queries(queries), lists_of_passages, labels, self._text(options))
        lists = [_candidates(query, read) for query, read, _ in judged]
        logits = [scores.logits for scores in self._score(lists, options)]
        return fit(
            np.concatenate(logits),
            np.concatenate([label for _, _, label in judged]),
            [query for query, (_, _, label) in enumerate(judged) for _ in label],
            method,
            self._name,
        )

    def encode_passages(
        self,
        passages: Any,
        path: str | os.PathLike[str],
        *,
        precision: Precision | None = None,
        texts: bool = True,
        text: TextField | None = None,
        progress: bool | Progress = False,
    ) -> PassageStore:
        """Read passages once, into a store on disk that `rank` takes instead of passages.

        Args:
            passages: as for `rank`; an iterable is read as it comes, so that memory is bounded.
                Those without an id get a number.
            path: of the store's folder, which must not exist.
            precision: of the states: "int8" (the order of unstored passages), "4bit" (half the
                bytes) or "2bit" (a quarter); None for "2bit". docs/late-interaction.md has the
                table that chose it.
            texts: False to keep no texts and metadata, but ids alone; hits have an empty text then.
            text: as for `rank`, and so is `progress`.

        Raises:
            InvalidInput: there is something at the path, a passage cannot be used, or the model
                reads query and passage together, so that nothing can be kept.
            OSError: the folder cannot be written.
        """
        store = PassageStore.create(os.fspath(path), self.passage_reader(), precision, texts)
        chosen = self._text_field if text is None else text
        try:
            store.add(passages, self, text=chosen, progress=progress)
        except BaseException:
            store.discard_empty()  # so that the path is free for another try
            raise
        return store

    def passage_reader(self) -> LateInteraction:
        """The model, as what reads passages for a store.

        Raises:
            InvalidInput: it reads query and passage together.
        """
        if not isinstance(self._model, LateInteraction):
            raise InvalidInput(
                f"{self._name or type(self._model).__name__!r} reads query and passage together, "
                "so nothing of a passage can be kept: a store takes a late-interaction model, as "
                "the bundled one is; to rank with this one, pass passages"
            )
        return self._model

    arank = _in_thread(rank)
    ascore = _in_thread(score)
    ascore_pairs = _in_thread(score_pairs)
    arank_many = _in_thread(rank_many)

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
            "activation": _activation_info(self._activation),
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

    def _read(self, passages: Any, options: CallOptions) -> Sequence[Passage]:
        if isinstance(passages, (PassageStore, StoredPassages)):
            return self._stored(passages, options)
        return read_passages(passages, self._text(options))

    def _read_lists(
        self, lists: Any, queries: int, options: CallOptions
    ) -> Sequence[Sequence[Passage]]:
        stored = (PassageStore, StoredPassages)
        if isinstance(lists, (list, tuple)) and any(isinstance(one, stored) for one in lists):
            if len(lists) != queries:
                raise InvalidInput(
                    f"{queries} queries but {len(lists)} lists of passages: pass one per query"
                )
            return [self._read(one, options) for one in lists]
        return read_lists(lists, queries, self._text(options))

    def _stored(
        self, passages: PassageStore | StoredPassages, options: CallOptions
    ) -> StoredPassages:
        if options.passage_tokens is not None:
            raise InvalidInput(
                "passage_tokens says how much of a passage is to be read, and those of a store "
                "were read before: leave it out, or pass the texts instead"
            )
        chosen = passages.all() if isinstance(passages, PassageStore) else passages
        chosen.store.check(self.passage_reader().stamp)
        return chosen

    def _text(self, options: CallOptions) -> Chosen:
        return check_text_field(self._text_field if options.text is None else options.text)

    def _rank(
        self, queries: list[str], lists: Sequence[Sequence[Passage]], options: CallOptions
    ) -> list[list[RankedPassage]]:
        candidates = [_candidates(*entry) for entry in zip(queries, lists, strict=True)]
        found = self._score(candidates, options)
        return [
            self._hits(read, scores, options) for read, scores in zip(lists, found, strict=True)
        ]

    def _score_pairs(self, queries: list[str], read: list[Passage], options: CallOptions) -> Floats:
        rows: dict[str, list[int]] = {}  # a query's pairs are one list
        for row, query in enumerate(queries):
            rows.setdefault(query, []).append(row)
        lists = [_candidates(query, [read[row] for row in rows[query]]) for query in rows]
        values = np.empty(len(read), np.float32)
        for places, scores in zip(rows.values(), self._score(lists, options), strict=True):
            values[places] = self._values(scores, options)
        return values

    def _score(self, lists: Sequence[Candidates], options: CallOptions) -> list[Scores]:
        if isinstance(options.activation, Calibration):
            check_activation(options.activation, self._name)
        scorer = self._scorer
        if options.long is not None or options.passage_tokens is not None:
            strategies = replace(
                self._strategies,
                long=options.long or self._strategies.long,
                passage_tokens=options.passage_tokens,
            )
            scorer = stack(self._model, self._then, strategies)
        with self._in_flight.one(), reporting(options.progress):
            found = scorer.score(lists, instruction=options.instruction)
            current().read([scores.tokens for scores in found])
        return found

    def _values(self, scores: Scores, options: CallOptions) -> Floats:
        """What a user sees: the blend, where there is one, or the activated logit."""
        values = activate(scores.logits, options.activation or self._activation)
        return values if scores.fused is None else _first_known(scores.fused, values)

    def _hits(
        self, read: Sequence[Passage], scores: Scores, options: CallOptions
    ) -> list[RankedPassage]:
        values = self._values(scores, options)
        order = scores.order().tolist()
        if options.min_score is not None:
            order = [row for row in order if values[row] >= options.min_score]
        if options.group_by is not None:
            order = best_of_groups(order, read, options.group_by)
        spans = None if scores.spans is None else scores.spans.tolist()
        hits = []
        for row in order[: options.top_k]:
            passage = read[row]  # of a store this reads the disk
            hits.append(
                RankedPassage(
                    text=passage.text,
                    score=float(values[row]),
                    logit=float(scores.logits[row]),
                    index=row if passage.index is None else passage.index,
                    id=passage.id,
                    meta=passage.meta,
                    truncated=bool(scores.truncated[row]),
                    span=None if spans is None else tuple(spans[row]),
                    source=passage.source,
                )
            )
        return hits


def _queries(queries: Sequence[str]) -> list[str]:
    if isinstance(queries, str):
        raise InvalidInput("queries is a single str: wrap it in a list, or use rank")
    queries = list(queries)
    for index, query in enumerate(queries):
        check_text(f"query {index}" if len(queries) > 1 else "the query", query)
    return queries


def _activation_info(activation: Activation | Calibration) -> Any:
    return activation.to_dict() if isinstance(activation, Calibration) else activation


def _first_known(values: Floats, otherwise: Floats) -> Floats:
    return np.where(np.isnan(values), otherwise, values)


def _candidates(query: str, read: Sequence[Passage]) -> Candidates:
    if isinstance(read, StoredPassages):
        return Candidates(query, read.texts, read.first_stage)
    texts = [passage.text for passage in read]
    scores = [passage.first_stage for passage in read]
    if all(score is None for score in scores):
        return Candidates(query, texts)
    return Candidates(query, texts, np.array(scores, np.float32))  # NaN for None
