"""Passages of a store as a scorer and a ranker see them: texts, states, and what else was kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.call import Call
from flashrank_lite.errors import InvalidInput
from flashrank_lite.models.late_head import LateHead
from flashrank_lite.passages.passage import Passage
from flashrank_lite.runtime.workers import run_side_by_side
from flashrank_lite.scorer import Scores
from flashrank_lite.states.codec import Codec, Precision
from flashrank_lite.states.compare import QueryStates, compare

if TYPE_CHECKING:
    from flashrank_lite.states.segment import Segment
    from flashrank_lite.store import PassageStore

# Tokens that are unpacked at once: 384 columns of 8,192 take 13 MB. Smaller blocks are no leaner
# for the processor's caches, and cost more calls.
BLOCK_TOKENS = 8_192


class StoredPassages(Sequence[Passage]):
    """Some passages of a store, in the order they are ranked in; made by `PassageStore.select`.

    Attributes:
        store: where they are.
        texts: their texts, which a scorer takes for what the store has read of them.
        first_stage: float32, (n,): the scores they were selected with, or None.
    """

    def __init__(
        self,
        store: PassageStore,
        segments: Sequence[Segment],
        numbers: NDArray[np.int64],
        rows: NDArray[np.int64],
        first_stage: NDArray[np.float32] | None = None,
    ) -> None:
        self.store = store
        self._segments = segments
        self._numbers = numbers  # of the segments
        self._rows = rows  # in them
        self.first_stage = first_stage
        self.texts = StoredTexts(self)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> Passage: ...

    @overload
    def __getitem__(self, place: slice) -> list[Passage]: ...

    def __getitem__(self, place: int | slice) -> Passage | list[Passage]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        record = self.record(place)
        first = None if self.first_stage is None else float(self.first_stage[place])
        return Passage(record.get("text", ""), record["id"], record.get("meta", {}), first)

    def record(self, place: int) -> dict[str, Any]:
        """What was kept of one passage beside its states."""
        segment = self._segments[int(self._numbers[place])]
        return segment.record(int(self._rows[place]))

    def blocks(self) -> Iterator[tuple[NDArray[np.int64], Segment, NDArray[np.int64]]]:
        """Places, all of one segment, whose states are unpacked at once; with segment and rows."""
        for number, segment in enumerate(self._segments):
            places = np.flatnonzero(self._numbers == number)
            if len(places):
                tokens = np.cumsum(segment.tokens(self._rows[places]))
                for part in np.split(places, _cuts(tokens)):
                    yield part, segment, self._rows[part]


class StoredTexts(Sequence[str]):
    """The texts of stored passages, read from disk one by one where a scorer asks for them.

    The scorer that the store was made with compares their states instead.
    """

    def __init__(self, passages: StoredPassages) -> None:
        self._passages = passages

    def __len__(self) -> int:
        return len(self._passages)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        record = self._passages.record(place)
        if "text" not in record:
            raise InvalidInput(
                f"{self._passages.store.path} keeps no texts (it was made with texts=False), and "
                "something has to read them: make it with texts, or rank without then= and "
                'first_stage="bm25"'
            )
        text: str = record["text"]
        return text

    @property
    def precision(self) -> Precision:
        """What their states are packed at."""
        return self._passages.store.precision

    def check(self, stamp: dict[str, Any]) -> None:
        """Raises InvalidInput unless the store was made with the model that this describes."""
        self._passages.store.check(stamp)

    def score(
        self, query: QueryStates, head: LateHead, codec: Codec, workers: int, call: Call
    ) -> Scores:
        """Scores of the passages, of the best window each.

        Args:
            query: as compared with packed states.
            head: how.
            codec: what unpacks them.
            workers: blocks that may be compared at the same time.
            call: is asked whether it was cancelled, and told what is done.
        """
        count = len(self)
        scores = Scores(
            np.empty(count, np.float32), np.zeros(count, np.bool_), np.zeros((count, 2), np.int32)
        )
        spans = scores.spans
        assert spans is not None

        def run(block: tuple[NDArray[np.int64], Segment, NDArray[np.int64]]) -> None:
            call.check()
            places, segment, rows = block
            read = segment.read(rows)
            logits = compare(query, codec.unpack(*read.packed), head)
            scores.logits[places] = np.maximum.reduceat(logits, read.starts)
            best = _first_best(logits, read.starts, scores.logits[places])
            spans[places] = read.spans[best]
            scores.truncated[places] = read.truncated
            call.advance(len(places))

        run_side_by_side(run, self._passages.blocks(), workers)
        return scores


def _first_best(
    logits: NDArray[np.float32], starts: NDArray[np.int64], best: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Of each passage the first window with its best logit."""
    owners = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(logits)))
    windows = np.flatnonzero(logits == best[owners])
    _, first = np.unique(owners[windows], return_index=True)
    return windows[first]


def _cuts(tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where to cut, so that each part has about BLOCK_TOKENS; `tokens` count from the start."""
    return np.flatnonzero(np.diff(tokens // BLOCK_TOKENS)) + 1
