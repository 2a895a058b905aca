"""The scorer of models that read query and passage apart, and compare their states afterwards.

One graph plays both roles: asked for `passage_states` it runs the passages' half alone, asked for
`query_states` the query's, so the weights are in memory once. The comparison is numpy's
(`flashrank_lite.states.compare`): a query is read once a call, a passage once whatever the number
of queries, and what was read can be kept, in a `PassageStore` or in a cache.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrank_lite import call as calls
from flashrank_lite.arguments import byte_count
from flashrank_lite.encoding.collate import pad_separate
from flashrank_lite.encoding.pairs import CHUNK_PAIRS, PairEncoder
from flashrank_lite.encoding.tokenizer import Ids
from flashrank_lite.errors import InvalidModel, NonFiniteScores
from flashrank_lite.models.checksums import sha256
from flashrank_lite.models.folder import ResolvedModel
from flashrank_lite.models.late_head import LateHead
from flashrank_lite.models.resolve import Model
from flashrank_lite.opened import OpenedModel, no_instruction
from flashrank_lite.options import ModelOptions
from flashrank_lite.runtime.plan import plan
from flashrank_lite.runtime.workers import run_side_by_side
from flashrank_lite.scorer import Candidates, Scores
from flashrank_lite.states.cache import StateCache
from flashrank_lite.states.codec import Codec, Packed, Precision, open_codec, words_of
from flashrank_lite.states.compare import (
    Floats,
    PassageStates,
    QueryStates,
    compare,
    query_states,
    starts_of,
    unit,
)
from flashrank_lite.states.segment import Windows
from flashrank_lite.states.stored import StoredTexts
from flashrank_lite.strategies.splitting import Span, split
from flashrank_lite.strategies.windows import MAX_WINDOWS, SIZE, stride_of

PASSAGE_STATES = "passage_states"
QUERY_STATES = "query_states"
CACHE_PRECISION: Precision = "int8"
COMPARED_TEXTS = 128  # of the cache at once: unpacked, 128 texts of 92 tokens take 18 MB
QUERY_WEIGHTS = "query_weights"  # of every token: in MaxSim, and in the share of exact matches


class LateInteraction:
    """A model that gives the states of query and passage, found and opened.

    Args:
        model: as `Ranker` takes it: None for the bundled model, a folder, a name, "org/name".
        options: how it is opened.

    Raises:
        As `Ranker`.
    """

    def __init__(
        self, model: Model | ResolvedModel = None, options: ModelOptions | None = None
    ) -> None:
        options = options or ModelOptions()
        limit = byte_count("passage_cache", options.passage_cache)
        self._opened = opened = OpenedModel(model, options)
        manifest = opened.found.manifest
        given = {output.name for output in opened.sessions.outputs}
        if manifest.late is None or not {PASSAGE_STATES, QUERY_STATES, QUERY_WEIGHTS} <= given:
            raise InvalidModel(
                f"{opened.file} does not give the states of query and passage ({PASSAGE_STATES}, "
                f"{QUERY_STATES}, {QUERY_WEIGHTS}), or its manifest no late_interaction: load it "
                "with Ranker, or export it again"
            )
        if not isinstance(opened.encoder, PairEncoder):
            raise InvalidModel(
                f"{opened.found.folder} has a prompt, and reads query and passage apart: a model "
                "does one or the other, so export it again"
            )
        if options.instruction is not None:
            raise no_instruction(opened)
        self._encoder: PairEncoder = opened.encoder
        self._head: LateHead = manifest.late
        self._width = _width(opened)
        self._cache = None if limit is None else StateCache(limit)

    def score(self, lists: Sequence[Candidates], *, instruction: str | None = None) -> list[Scores]:
        """`Scorer.score`; each text is read once, whatever the number of queries.

        Raises:
            RankerClosed: after `close`.
            InvalidInput: there is an instruction, or a store that another model made.
            NonFiniteScores: the model gave NaN or infinite states.
            CallCancelled: the call was cancelled.
        """
        if instruction is not None:
            raise no_instruction(self._opened)
        with self._opened.sessions.in_use():
            call = calls.current()
            for one in lists:
                stored = isinstance(one.texts, StoredTexts)
                self._opened.languages.check([one.query, *(() if stored else one.texts)])
            call.expect(sum(len(one.texts) for one in lists))
            queries = self._queries([one.query for one in lists if len(one.texts)], call)
            scores: dict[int, Scores] = {}
            anew: dict[int, Scores] = {}
            for number, one in enumerate(lists):
                if isinstance(one.texts, StoredTexts) and len(one.texts):
                    scores[number] = self._score_stored(queries[one.query], one.texts, call)
                else:
                    count = len(one.texts)
                    empty = Scores(np.empty(count, np.float32), np.zeros(count, np.bool_))
                    scores[number] = anew[number] = empty
            read = self._score_texts(lists, queries, anew, call)
        for number, one in enumerate(lists):
            if len(one.texts):
                tokens = queries[one.query].tokens + read[number]
                scores[number] = replace(scores[number], tokens=tokens)
        return [scores[number] for number in range(len(lists))]

    def room(self, query: str, *, instruction: str | None = None) -> int:
        """`TokenScorer.room`."""
        if self._cache is not None:
            return self._encoder.passage_room
        with calls.current().tokenizing():
            return self._encoder.room(query)

    def token_spans(self, text: str) -> NDArray[np.int32]:
        """`TokenScorer.token_spans`."""
        with calls.current().tokenizing():
            return self._encoder.token_spans(text)

    @property
    def passage_room(self) -> int:
        """Tokens of a passage that are read for a store."""
        return self._encoder.passage_room

    @cached_property
    def stamp(self) -> dict[str, Any]:
        """What a store has to have been made with, so that this model can compare its states."""
        manifest, graph = self._opened.found.manifest, self._opened.found.graph.file
        stated = manifest.files_of(graph).get(graph)
        known = None if stated is None else stated.sha256
        return {
            "model": manifest.name,
            "graph": graph,
            "sha256": (known or sha256(self._opened.file)).lower(),
            "max_length": self._encoder.max_length,
        }

    def codec(self, precision: Precision) -> Codec:
        """What packs this model's states."""
        return open_codec(self._head, self._width, precision)

    def read(self, texts: Sequence[str], precision: Precision) -> list[Windows]:
        """Read texts for a store; of a long one windows, as `flashrank_lite.strategies.windows`.

        Raises:
            RankerClosed, NonFiniteScores, CallCancelled: as `score`.
        """
        with self._opened.sessions.in_use():
            self._opened.languages.check(texts)
            rows: list[_Row] = []
            spans: list[list[Span]] = []
            for text in texts:
                row = self._row(text)
                spans.append([(0, len(text))])
                if not row.truncated:
                    rows.append(row)
                    continue
                size = min(SIZE, self.passage_room)
                windows = split(text, self.passage_room, size, stride_of(size), self.token_spans)
                spans[-1] = list(islice(windows, MAX_WINDOWS))
                rows.extend(self._row(text[start:end]) for start, end in spans[-1])
            packed = iter(self._pack(rows, self.codec(precision), calls.current()))
        return [
            Windows(own, list(islice(packed, len(own))), own[-1][1] < len(text))
            for own, text in zip(spans, texts, strict=True)
        ]

    def info(self) -> dict[str, Any]:
        """What `Ranker.info` says of the model and of how it runs."""
        cache = {} if self._cache is None else {"passage_cache": self._cache.info()}
        return {
            **self._opened.info(
                instruction=None,
                head="logit",
                graph_activation=None,
                activation=self._opened.found.manifest.activation,
            ),
            **cache,
        }

    def close(self) -> None:
        """Free the model; calls in flight finish first, later ones raise RankerClosed."""
        self._opened.sessions.close()

    def __reduce__(self) -> tuple[Callable[..., "LateInteraction"], tuple[Any, ...]]:
        """Opened anew where it is unpickled: the same model and graph, without the token."""
        return LateInteraction, self._opened.reload_arguments()

    def _queries(self, texts: Sequence[str], call: calls.Call) -> dict[str, "_Query"]:
        """Read each query once, a thread for each."""
        queries: dict[str, _Query] = {}

        def run(text: str) -> None:
            call.check()
            queries[text] = self._query(text, call)

        unique = dict.fromkeys(texts)
        run_side_by_side(run, unique, min(self._opened.sessions.workers, len(unique)))
        return queries

    def _query(self, text: str, call: calls.Call) -> "_Query":
        with call.tokenizing():
            pieces = self._encoder.query(text)
            ids = self._encoder.query_row(pieces)
        feeds = self._feeds([ids], [ids[-1:]])  # one token stands for the passages
        # a query is short: one thread reads it as quickly as all
        states, weights = self._opened.sessions.run_for(
            feeds, [QUERY_STATES, QUERY_WEIGHTS], all_threads=False
        )
        room = self.passage_room if self._cache is not None else self._encoder.room_beside(pieces)
        return _Query(query_states(ids, states[0], weights[0]), pieces.cut, room, len(ids))

    def _feeds(self, queries: list[Ids], passages: list[Ids]) -> dict[str, NDArray[np.int64]]:
        side = self._opened.found.manifest.padding_side
        return pad_separate(queries, passages, self._opened.pad_id, side)

    def _score_stored(self, query: "_Query", texts: StoredTexts, call: calls.Call) -> Scores:
        texts.check(self.stamp)
        codec = self.codec(texts.precision)
        workers = self._opened.sessions.workers
        found = texts.score(codec.query(query.states), self._head, codec, workers, call)
        return replace(found, truncated=found.truncated | query.cut)

    def _score_texts(
        self,
        lists: Sequence[Candidates],
        queries: Mapping[str, "_Query"],
        scores: Mapping[int, Scores],
        call: calls.Call,
    ) -> Counter[int]:
        """Put the scores of the lists that `scores` numbers into their places.

        Returns:
            How many tokens of passages were read for each of these lists.
        """
        tokens: Counter[int] = Counter()
        places: dict[str, list[_Place]] = {}
        for number in scores:
            for place, text in enumerate(lists[number].texts):
                places.setdefault(text, []).append((number, place))
        by_list = {number: queries[lists[number].query] for number in scores if lists[number].texts}
        rest = iter(places.items())
        while chunk := list(islice(rest, CHUNK_PAIRS)):
            if self._cache is None:
                with call.tokenizing():
                    rows = self._rows(chunk, by_list)
                self._read_and_compare(rows, by_list, scores, call)
            else:
                rows = self._compare_cached(self._cache, chunk, by_list, scores, call)
            for row in rows:
                tokens.update(dict.fromkeys((number for number, _ in row.places), len(row.ids)))
        return tokens

    def _rows(
        self, chunk: Sequence[tuple[str, list["_Place"]]], by_list: Mapping[int, "_Query"]
    ) -> list["_Row"]:
        """Texts as rows of ids, cut at the tokens that the queries leave."""
        rows: list[_Row] = []
        for text, places in chunk:
            pieces = self._encoder.passage(text)
            cuts: dict[int, _Row] = {}
            for number, place in places:
                room = by_list[number].room
                kept = min(room, len(pieces.ids))
                if kept not in cuts:
                    cuts[kept] = _Row(*self._encoder.passage_row(pieces, room))
                cuts[kept].places.append((number, place))
            rows.extend(cuts.values())
        return rows

    def _read_and_compare(
        self,
        rows: Sequence["_Row"],
        by_list: Mapping[int, "_Query"],
        scores: Mapping[int, Scores],
        call: calls.Call,
    ) -> None:
        def done(batch: Sequence[int], read: Sequence[Floats]) -> None:
            chosen = [rows[number] for number in batch]
            words = [words_of(row.ids) for row in chosen]
            states = PassageStates(
                unit(np.concatenate(read)),
                None,
                starts_of([len(one) for one in read]),
                unit(np.stack([one.mean(axis=0) for one in read])),
                np.concatenate(words),
                starts_of([len(one) for one in words]),
            )
            self._compare(states, chosen, by_list, scores)
            call.advance(sum(len(row.places) for row in chosen))

        self._run([row.ids for row in rows], done, call)

    def _compare_cached(
        self,
        cache: StateCache,
        chunk: Sequence[tuple[str, list["_Place"]]],
        by_list: Mapping[int, "_Query"],
        scores: Mapping[int, Scores],
        call: calls.Call,
    ) -> list["_Row"]:
        """As a store: what is in the cache and what is not score the same.

        Returns:
            What was read because it was not in the cache.
        """
        texts = [text for text, _ in chunk]
        found = cache.find(texts)
        missing = [place for place, entry in enumerate(found) if entry is None]
        codec = self.codec(CACHE_PRECISION)
        with call.tokenizing():
            rows = [replace(self._row(texts[place]), places=chunk[place][1]) for place in missing]
        for place, row, packed in zip(missing, rows, self._pack(rows, codec, call), strict=True):
            found[place] = packed, row.truncated
            cache.keep(texts[place], packed, row.truncated)
        entries = [entry for entry in found if entry is not None]
        as_packed = {
            number: replace(query, states=codec.query(query.states))
            for number, query in by_list.items()
        }
        for start in range(0, len(chunk), COMPARED_TEXTS):
            call.check()
            part = slice(start, start + COMPARED_TEXTS)
            states = codec.join([packed for packed, _ in entries[part]])
            block = [
                _Row(_NO_IDS, truncated, places)
                for (_, places), (_, truncated) in zip(chunk[part], entries[part], strict=True)
            ]
            self._compare(states, block, as_packed, scores)
            call.advance(sum(len(row.places) for row in block))
        return rows

    def _compare(
        self,
        states: PassageStates,
        rows: Sequence["_Row"],
        by_list: Mapping[int, "_Query"],
        scores: Mapping[int, Scores],
    ) -> None:
        """Compare a block of texts with each query that wants some of them."""
        wanted: dict[int, tuple[list[int], list[int]]] = {}
        for number, row in enumerate(rows):
            for one, place in row.places:
                numbers, places = wanted.setdefault(one, ([], []))
                numbers.append(number)
                places.append(place)
        for one, (numbers, places) in wanted.items():
            query, out = by_list[one], scores[one]
            which, first = np.unique(numbers, return_inverse=True)
            block = states if len(which) == len(rows) else states.take(which)
            logits = compare(query.states, block, self._head)
            _check_finite(logits)
            out.logits[places] = logits[first]
            truncated = np.array([rows[number].truncated for number in numbers], np.bool_)
            out.truncated[places] = truncated | query.cut

    def _row(self, text: str) -> "_Row":
        return _Row(*self._encoder.passage_row(self._encoder.passage(text), self.passage_room))

    def _pack(self, rows: Sequence["_Row"], codec: Codec, call: calls.Call) -> list[Packed]:
        packed: dict[int, Packed] = {}

        def done(batch: Sequence[int], read: Sequence[Floats]) -> None:
            for number, states in zip(batch, read, strict=True):
                _check_finite(states)
                packed[number] = codec.pack(rows[number].ids, states)

        self._run([row.ids for row in rows], done, call)
        return [packed[number] for number in range(len(rows))]

    def _run(
        self,
        rows: Sequence[Ids],
        done: Callable[[Sequence[int], Sequence[Floats]], None],
        call: calls.Call,
    ) -> None:
        """Read rows in batches; `done` is told a batch's numbers and states, in any thread."""
        opened = self._opened
        planned = plan(
            [len(ids) for ids in rows],
            budget=opened.batch_tokens,
            workers=opened.sessions.workers,
            alone=opened.alone,
        )

        def run(batch: tuple[int, ...]) -> None:
            call.check()
            chosen = [rows[number] for number in batch]
            feeds = self._feeds([chosen[0][-1:]], chosen)  # one token stands for the query
            (states,) = opened.sessions.run_for(
                feeds, [PASSAGE_STATES], all_threads=planned.all_threads
            )
            left = opened.found.manifest.padding_side == "left"
            done(
                batch,
                [
                    one[-len(ids) :] if left else one[: len(ids)]
                    for one, ids in zip(states, chosen, strict=True)
                ],
            )

        run_side_by_side(run, planned.batches, planned.workers)


_Place = tuple[int, int]  # the number of a list, and the place of a text in it
_NO_IDS = np.empty(0, np.int32)


@dataclass(frozen=True, slots=True)
class _Query:
    """A query as read, of so many tokens; passages beside it may have `room` of them."""

    states: QueryStates
    cut: bool
    room: int
    tokens: int


@dataclass(frozen=True, slots=True)
class _Row:
    """A text as read: ids, whether it has more of them, and where it is wanted."""

    ids: Ids
    truncated: bool
    places: list[_Place] = field(default_factory=list)


def _check_finite(values: Floats) -> None:
    if not np.isfinite(values).all():
        raise NonFiniteScores(
            "the model gave NaN or infinite states: its weights or its quantisation are broken (a "
            "float16 graph overflows so); use another variant of it, for instance the fp32 one"
        )


def _width(opened: OpenedModel) -> int:
    """Columns of a state."""
    (shape,) = (one.shape for one in opened.sessions.outputs if one.name == PASSAGE_STATES)
    width = shape[-1] if shape else None
    if width is None:
        raise InvalidModel(
            f"{opened.file} does not state how wide its {PASSAGE_STATES} are: export it again"
        )
    return width
