"""The scorer of models that read query and passage apart, and compare their states afterwards.

What reads a text is `flashrank_lite.states.reader`, and the comparison is numpy's
(`flashrank_lite.states.compare`): a query is read once a call, a passage once whatever the number
of queries, and what was read can be kept, in a `PassageStore` or in a cache.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrank_lite import call as calls
from flashrank_lite.arguments import byte_count
from flashrank_lite.encoding.pairs import CHUNK_PAIRS
from flashrank_lite.errors import InvalidModel
from flashrank_lite.models.checksums import sha256
from flashrank_lite.models.folder import ResolvedModel
from flashrank_lite.models.late_head import LateHead
from flashrank_lite.models.resolve import Model
from flashrank_lite.opened import OpenedModel, no_instruction
from flashrank_lite.options import ModelOptions
from flashrank_lite.scorer import Candidates, Scores
from flashrank_lite.states.cache import StateCache
from flashrank_lite.states.codec import Codec, Precision, open_codec
from flashrank_lite.states.compare import Floats, PassageStates, compare, passage_states
from flashrank_lite.states.layout import Windows
from flashrank_lite.states.reader import Place, Query, Row, TextReader, check_finite
from flashrank_lite.states.stored import StoredTexts

CACHE_PRECISION: Precision = "int8"
COMPARED_TEXTS = 128  # of the cache at once: unpacked, 128 texts of 92 tokens take 18 MB


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
        if options.instruction is not None:
            raise no_instruction(opened)
        head = opened.found.manifest.late
        if head is None:
            raise InvalidModel(
                f"the manifest of {opened.found.folder} has no late_interaction, so nothing says "
                "how states are compared: load it with Ranker, or export it again"
            )
        self._reader = TextReader(opened)
        self._head: LateHead = head
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
            wanted = [one.query for one in lists if len(one.texts)]
            queries = self._reader.queries(wanted, call, alone=self._cache is not None)
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
            return self._reader.encoder.passage_room
        with calls.current().tokenizing():
            return self._reader.encoder.room(query)

    def token_spans(self, text: str) -> NDArray[np.int32]:
        """`TokenScorer.token_spans`."""
        with calls.current().tokenizing():
            return self._reader.encoder.token_spans(text)

    @property
    def passage_room(self) -> int:
        """Tokens of a passage that are read for a store."""
        return self._reader.encoder.passage_room

    @cached_property
    def stamp(self) -> dict[str, Any]:
        """What a store has to have been made with, so that this model can compare its states."""
        manifest, graph = self._opened.found.manifest, self._opened.found.graph.file
        stated = manifest.files_of(graph).get(graph)
        known = None if stated is None else stated.sha256
        roles = self._head.roles
        return {
            "model": manifest.name,
            "graph": graph,
            "sha256": (known or sha256(self._opened.file)).lower(),
            "max_length": self._reader.encoder.max_length,
            **({} if roles is None else {"passage": roles.passage.to_json()}),
        }

    def codec(self, precision: Precision) -> Codec:
        """What packs this model's states."""
        return open_codec(self._head, self._reader.graph.width, precision)

    def read(self, texts: Sequence[str], precision: Precision) -> list[Windows]:
        """Read texts for a store; of a long one windows, as `flashrank_lite.strategies.windows`.

        Raises:
            RankerClosed, NonFiniteScores, CallCancelled: as `score`.
        """
        with self._opened.sessions.in_use():
            self._opened.languages.check(texts)
            return self._reader.windows(texts, self.codec(precision), calls.current())

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

    def _score_stored(self, query: Query, texts: StoredTexts, call: calls.Call) -> Scores:
        texts.check(self.stamp)
        codec = self.codec(texts.precision)
        workers = self._opened.sessions.workers
        found = texts.score(codec.query(query.states), self._head, codec, workers, call)
        return replace(found, truncated=found.truncated | query.cut)

    def _score_texts(
        self,
        lists: Sequence[Candidates],
        queries: Mapping[str, Query],
        scores: Mapping[int, Scores],
        call: calls.Call,
    ) -> Counter[int]:
        """Put the scores of the lists that `scores` numbers into their places.

        Returns:
            How many tokens of passages were read for each of these lists.
        """
        tokens: Counter[int] = Counter()
        places: dict[str, list[Place]] = {}
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
        self, chunk: Sequence[tuple[str, list[Place]]], by_list: Mapping[int, Query]
    ) -> list[Row]:
        """Texts as rows of ids, cut at the tokens that the queries leave."""
        rows: list[Row] = []
        for text, places in chunk:
            pieces = self._reader.encoder.passage(text)
            cuts: dict[int, Row] = {}
            for number, place in places:
                room = by_list[number].room
                kept = min(room, len(pieces.ids))
                if kept not in cuts:
                    cuts[kept] = Row(*self._reader.encoder.passage_row(pieces, room))
                cuts[kept].places.append((number, place))
            rows.extend(cuts.values())
        return rows

    def _read_and_compare(
        self,
        rows: Sequence[Row],
        by_list: Mapping[int, Query],
        scores: Mapping[int, Scores],
        call: calls.Call,
    ) -> None:
        def done(batch: Sequence[int], read: Sequence[Floats]) -> None:
            chosen = [rows[number] for number in batch]
            states = passage_states([row.ids for row in chosen], read, self._head)
            self._compare(states, chosen, by_list, scores)
            call.advance(sum(len(row.places) for row in chosen))

        self._reader.run([row.ids for row in rows], done, call)

    def _compare_cached(
        self,
        cache: StateCache,
        chunk: Sequence[tuple[str, list[Place]]],
        by_list: Mapping[int, Query],
        scores: Mapping[int, Scores],
        call: calls.Call,
    ) -> list[Row]:
        """As a store: what is in the cache and what is not score the same.

        Returns:
            What was read because it was not in the cache.
        """
        texts = [text for text, _ in chunk]
        found = cache.find(texts)
        missing = [place for place, entry in enumerate(found) if entry is None]
        codec = self.codec(CACHE_PRECISION)
        with call.tokenizing():
            rows = [
                replace(self._reader.row(texts[place]), places=chunk[place][1]) for place in missing
            ]
        read = self._reader.pack(rows, codec, call)
        for place, row, packed in zip(missing, rows, read, strict=True):
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
                Row(_NO_IDS, truncated, places)
                for (_, places), (_, truncated) in zip(chunk[part], entries[part], strict=True)
            ]
            self._compare(states, block, as_packed, scores)
            call.advance(sum(len(row.places) for row in block))
        return rows

    def _compare(
        self,
        states: PassageStates,
        rows: Sequence[Row],
        by_list: Mapping[int, Query],
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
            check_finite(logits)
            out.logits[places] = logits[first]
            truncated = np.array([rows[number].truncated for number in numbers], np.bool_)
            out.truncated[places] = truncated | query.cut


_NO_IDS = np.empty(0, np.int32)
