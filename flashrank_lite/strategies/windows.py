"""Long passages: read in overlapping windows, scored by the best of them.

A model reads so many tokens of a passage and no more, and what answers the query may stand in its
last line. Windows of all passages go to the wrapped scorer together, so they share its batches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.arguments import positive, required
from flashrank_lite.errors import InvalidInput
from flashrank_lite.scorer import Candidates, Scorer, Scores, TokenScorer
from flashrank_lite.strategies.splitting import Span, longer_than, split

Aggregate = Literal["max", "first", "mean"]

SIZE = 256
STRIDE = 192
MAX_WINDOWS = 64
BEST_K = 3
# Windows that are handed on at once: as texts they take some MB, whatever the length of the list.
CHUNK_WINDOWS = 1024

_Window = tuple[int, int, Span]  # the list, the passage in it, its characters


class Windows:
    """Scores each passage by its windows; one that fits a window is scored as without.

    Args:
        scorer: what scores the windows, pair by pair; a `TokenScorer`, as a `CrossEncoder` is.
        size: tokens of a window at most; less where the query leaves less. None for all that it
            leaves.
        stride: tokens from the start of one window to the next; None for three quarters of the
            size.
        aggregate: a passage's logit out of those of its windows: "max" the best, "first" that of
            its beginning (nothing else is read), "mean" the mean of the best `best_k`.
        max_windows: windows of a passage at most; of a longer one the rest is not read, and
            `truncated` says so. None for no bound.
        best_k: windows of which "mean" takes the mean.

    Raises:
        InvalidInput: an argument is out of range, or the scorer cannot say where its tokens lie.
    """

    def __init__(
        self,
        scorer: Scorer,
        size: int | None = SIZE,
        stride: int | None = None,
        aggregate: Aggregate = "max",
        *,
        max_windows: int | None = MAX_WINDOWS,
        best_k: int = BEST_K,
    ) -> None:
        if not isinstance(scorer, TokenScorer):
            raise InvalidInput(
                f"a {type(scorer).__name__} cannot be asked for windows: it has no `room` and "
                "`token_spans` (see `flashrank_lite.scorer.TokenScorer`). Put Windows around the "
                "scorers that read texts, as in Cascade([Windows(a), Windows(b)], keep=[25])"
            )
        if aggregate not in get_args(Aggregate):
            raise InvalidInput(f"aggregate must be 'max', 'first' or 'mean', not {aggregate!r:.80}")
        self._scorer: TokenScorer = scorer
        self._size = positive("size", size)
        self._stride = positive("stride", stride)
        self._aggregate = aggregate
        self._max_windows = positive("max_windows", max_windows)
        self._best_k = required("best_k", best_k)
        if size is not None and stride is not None and stride > size:
            raise InvalidInput(
                f"stride={stride} is more than size={size}: the text between two windows would "
                "not be read. Use a stride of at most the size"
            )

    def score(self, lists: Sequence[Candidates], *, instruction: str | None = None) -> list[Scores]:
        """Score every list, as `Scorer.score` says; `spans` are those of the best windows."""
        sizes = [self._window(one.query, instruction) for one in lists]
        long = [
            [longer_than(text, size, self._scorer.token_spans) for text in one.texts]
            for one, size in zip(lists, sizes, strict=True)
        ]
        if not any(map(any, long)):
            scored = self._scorer.score(lists, instruction=instruction)
            return [
                replace(scores, spans=whole_spans(one.texts))
                for one, scores in zip(lists, scored, strict=True)
            ]
        read = [[_Read() for _ in one.texts] for one in lists]
        windows = self._windows(lists, sizes, long, read)
        while chunk := list(islice(windows, CHUNK_WINDOWS)):
            self._score(lists, chunk, read, instruction)
        return [self._scores(passages) for passages in read]

    def info(self) -> dict[str, Any]:
        """The wrapped scorer's, and `windows`: how long passages are read."""
        windows = {
            "size": self._size,
            "stride": self._stride,
            "aggregate": self._aggregate,
            "max_windows": self._max_windows,
        }
        if self._aggregate == "mean":
            windows["best_k"] = self._best_k
        return {**self._scorer.info(), "windows": windows}

    def close(self) -> None:
        """Close the wrapped scorer."""
        self._scorer.close()

    def _window(self, query: str, instruction: str | None) -> int:
        room = self._scorer.room(query, instruction=instruction)
        return room if self._size is None else min(self._size, room)

    def _windows(
        self,
        lists: Sequence[Candidates],
        sizes: Sequence[int],
        long: Sequence[Sequence[bool]],
        read: Sequence[Sequence["_Read"]],
    ) -> Iterator[_Window]:
        """The windows of all passages, in their order; what is left unread is noted in `read`."""
        most = 1 if self._aggregate == "first" else self._max_windows
        for number, (one, size) in enumerate(zip(lists, sizes, strict=True)):
            stride = min(self._stride or max(1, size * 3 // 4), size)
            for place, text in enumerate(one.texts):
                if not long[number][place]:
                    yield number, place, (0, len(text))
                    continue
                spans = split(text, size, stride, self._scorer.token_spans)
                end = 0
                for start, end in islice(spans, most):
                    yield number, place, (start, end)
                read[number][place].truncated |= end < len(text)

    def _score(
        self,
        lists: Sequence[Candidates],
        windows: Sequence[_Window],
        read: Sequence[Sequence["_Read"]],
        instruction: str | None,
    ) -> None:
        """Score some windows, and add what they say to what is known of their passages."""
        grouped: dict[int, list[_Window]] = {}
        for window in windows:
            grouped.setdefault(window[0], []).append(window)
        candidates = [
            Candidates(
                lists[number].query,
                [lists[number].texts[place][start:end] for _, place, (start, end) in group],
            )
            for number, group in grouped.items()
        ]
        scored = self._scorer.score(candidates, instruction=instruction)
        for group, scores in zip(grouped.values(), scored, strict=True):
            for (number, place, span), logit, truncated in zip(
                group, scores.logits, scores.truncated, strict=True
            ):
                read[number][place].add(span, float(logit), bool(truncated), self._kept)

    @property
    def _kept(self) -> int:
        return self._best_k if self._aggregate == "mean" else 1

    def _scores(self, passages: Sequence["_Read"]) -> Scores:
        return Scores(
            np.array([np.mean(passage.best) for passage in passages], np.float32),
            np.array([passage.truncated for passage in passages], np.bool_),
            np.array([passage.span for passage in passages], np.int32).reshape(-1, 2),
        )


class _Read:
    """What the windows of a passage that were read so far say of it."""

    __slots__ = ("best", "span", "truncated")

    def __init__(self) -> None:
        self.best: list[float] = []  # logits, the greatest first
        self.span: Span = (0, 0)
        self.truncated = False

    def add(self, span: Span, logit: float, truncated: bool, kept: int) -> None:
        """One window more, of which the best `kept` logits are remembered."""
        if not self.best or logit > self.best[0]:
            self.span = span
        self.best = sorted([*self.best, logit], reverse=True)[:kept]
        self.truncated |= truncated


def whole_spans(texts: Sequence[str]) -> NDArray[np.int32]:
    """The span of each text that was read in one piece: int32, (n, 2)."""
    return np.array([(0, len(text)) for text in texts], np.int32).reshape(-1, 2)
