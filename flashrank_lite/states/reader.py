"""Reads texts for a model that compares states: rows of ids, batches of rows, packed states."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from flashrank_lite import call as calls
from flashrank_lite.encoding.apart import ApartEncoder
from flashrank_lite.encoding.pairs import PairEncoder
from flashrank_lite.encoding.tokenizer import Ids
from flashrank_lite.errors import InvalidModel, NonFiniteScores
from flashrank_lite.opened import OpenedModel
from flashrank_lite.runtime.workers import run_side_by_side
from flashrank_lite.states.codec import Codec, Packed
from flashrank_lite.states.compare import Floats, QueryStates
from flashrank_lite.states.graph import StateGraph, open_states
from flashrank_lite.states.layout import Windows
from flashrank_lite.strategies.splitting import Span, split
from flashrank_lite.strategies.windows import MAX_WINDOWS, SIZE, stride_of

Place = tuple[int, int]  # the number of a list, and the place of a text in it


@dataclass(frozen=True, slots=True)
class Query:
    """A query as read, of so many tokens; passages beside it may have `room` of them."""

    states: QueryStates
    cut: bool
    room: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Row:
    """A text as read: ids, whether it has more of them, and where it is wanted."""

    ids: Ids
    truncated: bool
    places: list[Place] = field(default_factory=list)


class TextReader:
    """An opened model's tokenizer and graph.

    Args:
        opened: the model.

    Attributes:
        encoder: makes rows of texts.
        graph: makes states of rows.

    Raises:
        InvalidModel: it has a prompt, or gives no states.
    """

    def __init__(self, opened: OpenedModel) -> None:
        self._opened = opened
        self.graph: StateGraph = open_states(opened, opened.found.manifest.late)
        if not isinstance(opened.encoder, (PairEncoder, ApartEncoder)):
            raise InvalidModel(
                f"{opened.found.folder} has a prompt, and reads query and passage apart: a model "
                "does one or the other, so export it again"
            )
        self.encoder: PairEncoder | ApartEncoder = opened.encoder

    def queries(
        self, texts: Sequence[str], call: calls.Call, *, alone: bool = False
    ) -> dict[str, Query]:
        """Read each query once, a thread for each.

        Args:
            texts: the queries.
            call: is asked whether it was cancelled.
            alone: passages are read without knowing their queries, so all have the same room.
        """
        queries: dict[str, Query] = {}

        def run(text: str) -> None:
            call.check()
            with call.tokenizing():
                pieces = self.encoder.query(text)
                ids = self.encoder.query_row(pieces)
            room = self.encoder.passage_room if alone else self.encoder.room_beside(pieces)
            queries[text] = Query(self.graph.query(ids), pieces.cut, room, len(ids))

        unique = dict.fromkeys(texts)
        run_side_by_side(run, unique, min(self._opened.sessions.workers, len(unique)))
        return queries

    def row(self, text: str) -> Row:
        """A text as one row, whatever the query."""
        pieces = self.encoder.passage(text)
        return Row(*self.encoder.passage_row(pieces, self.encoder.passage_room))

    def run(
        self,
        rows: Sequence[Ids],
        done: Callable[[Sequence[int], Sequence[Floats]], None],
        call: calls.Call,
    ) -> None:
        """Read rows in batches; `done` is told a batch's numbers and states, in any thread."""

        def run(batch: tuple[int, ...], all_threads: bool) -> None:
            chosen = [rows[number] for number in batch]
            done(batch, self.graph.passages(chosen, all_threads=all_threads))

        self._opened.run_in_batches([len(ids) for ids in rows], run, call)

    def pack(self, rows: Sequence[Row], codec: Codec, call: calls.Call) -> list[Packed]:
        """Read rows and pack their states."""
        packed: dict[int, Packed] = {}

        def done(batch: Sequence[int], read: Sequence[Floats]) -> None:
            for number, states in zip(batch, read, strict=True):
                check_finite(states)
                packed[number] = codec.pack(rows[number].ids, states)

        self.run([row.ids for row in rows], done, call)
        return [packed[number] for number in range(len(rows))]

    def windows(self, texts: Sequence[str], codec: Codec, call: calls.Call) -> list[Windows]:
        """Read texts for a store; of a long one windows, as `flashrank_lite.strategies.windows`."""
        rows: list[Row] = []
        spans: list[list[Span]] = []
        room = self.encoder.passage_room
        for text in texts:
            row = self.row(text)
            spans.append([(0, len(text))])
            if not row.truncated:
                rows.append(row)
                continue
            size = min(SIZE, room)
            found = split(text, room, size, stride_of(size), self.encoder.token_spans)
            spans[-1] = list(islice(found, MAX_WINDOWS))
            rows.extend(self.row(text[start:end]) for start, end in spans[-1])
        packed = iter(self.pack(rows, codec, call))
        return [
            Windows(own, list(islice(packed, len(own))), own[-1][1] < len(text))
            for own, text in zip(spans, texts, strict=True)
        ]


def check_finite(values: Floats) -> None:
    """Raises NonFiniteScores for NaN and infinity."""
    if not np.isfinite(values).all():
        raise NonFiniteScores(
            "the model gave NaN or infinite states: its weights or its quantisation are broken (a "
            "float16 graph overflows so); use another variant of it, for instance the fp32 one"
        )
