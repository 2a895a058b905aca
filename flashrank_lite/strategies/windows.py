"""Long passages: read in overlapping windows, scored by the best of them.

A model reads so many tokens of a passage and no more, and what answers the query may stand in its
last line. Windows of all passages go to the wrapped scorer together, so they share its batches.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.arguments import positive, required
from flashrank_lite.errors import InvalidInput
from flashrank_lite.scorer import Candidates, Scorer, Scores, TokenScorer
from flashrank_lite.strategies.splitting import Span, split

Aggregate = Literal["max", "first", "mean"]

# Pages of 14 to 18,000 words, nDCG@10: truncated 0.786; in windows of 496 tokens 0.902, of 256
# 0.888, of 128 0.887, and of 256 by half of that 0.904 for half as many tokens more: alike, within
# what 60 queries tell. Windows of 256 are short enough to show.
SIZE = 256
STRIDE_SHARE = 0.75
# The first 8 windows of these pages 0.820, 16 0.848, 32 0.893, all 0.888; 32 are some 4,700 words.
MAX_WINDOWS = 32
BEST_K = 3
# Windows that are handed on at once: as texts they take some MB, whatever the length of the list.
CHUNK_WINDOWS = 1024

_Window = tuple[int, int, Span]  # the list, the passage in it, its characters


class Windows:
    """Scores each passage by its windows; one that the model reads whole is scored as without.

    The beginning is read as without windows too: as much of it as the model takes. What follows is
    read in windows of `size` tokens.

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
        # Who truncates says so, and only then a text is tokenised once more.
        beginnings = self._scorer.score(lists, instruction=instruction)
        read: list[list[_Read]] = [
            []
            if scores.spans is not None
            else [
                _Read(len(text), float(logit), bool(truncated))
                for text, logit, truncated in zip(
                    one.texts, scores.logits, scores.truncated, strict=True
                )
            ]
            for one, scores in zip(lists, beginnings, strict=True)
        ]
        # a store holds windows of its passages, of which it has said the best
        whole = [scores.spans is not None for scores in beginnings]
        windows = self._windows(lists, read, whole, instruction)
        tokens: Counter[int] = Counter()
        while chunk := list(islice(windows, CHUNK_WINDOWS)):
            tokens.update(self._score(lists, chunk, read, instruction))
        return [
            scores if done else self._scores(passages, scores, tokens[number])
            for number, (passages, scores, done) in enumerate(
                zip(read, beginnings, whole, strict=True)
            )
        ]

    def info(self) -> dict[str, Any]:
        """The wrapped scorer's, and `windows`: how long passages are read."""
        windows = {
            "size": self._size,
            "stride": self._stride or (stride_of(self._size) if self._size else None),
            "aggregate": self._aggregate,
            "max_windows": self._max_windows,
        }
        if self._aggregate == "mean":
            windows["best_k"] = self._best_k
        return {**self._scorer.info(), "windows": windows}

    def close(self) -> None:
        """Close the wrapped scorer."""
        self._scorer.close()

    def _windows(
        self,
        lists: Sequence[Candidates],
        read: Sequence[Sequence["_Read"]],
        whole: Sequence[bool],
        instruction: str | None,
    ) -> Iterator[_Window]:
        """The windows after the beginnings; what stays unread is noted in `read`."""
        most = None if self._max_windows is None else self._max_windows - 1
        for number, one in enumerate(lists):
            if whole[number] or not any(passage.truncated for passage in read[number]):
                continue
            room = self._scorer.room(one.query, instruction=instruction)
            size = room if self._size is None else min(self._size, room)
            stride = min(self._stride or stride_of(size), size)
            for place, (text, passage) in enumerate(zip(one.texts, read[number], strict=True)):
                if not passage.truncated:
                    continue
                spans = split(text, room, size, stride, self._scorer.token_spans)
                _, end = passage.span = next(spans)
                if end == len(text):  # the query was truncated
                    continue
                passage.truncated = False
                if self._aggregate != "first":
                    for start, end in islice(spans, most):
                        yield number, place, (start, end)
                passage.truncated |= end < len(text)

    def _score(
        self,
        lists: Sequence[Candidates],
        windows: Sequence[_Window],
        read: Sequence[Sequence["_Read"]],
        instruction: str | None,
    ) -> dict[int, int]:
        """Score some windows, and add what they say to what is known of their passages.

        Returns:
            The tokens that were read for each list.
        """
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
        return {number: one.tokens for number, one in zip(grouped, scored, strict=True)}

    @property
    def _kept(self) -> int:
        return self._best_k if self._aggregate == "mean" else 1

    def _scores(self, passages: Sequence["_Read"], beginnings: Scores, tokens: int) -> Scores:
        return replace(
            beginnings,
            logits=np.array([np.mean(passage.best) for passage in passages], np.float32),
            truncated=np.array([passage.truncated for passage in passages], np.bool_),
            spans=np.array([passage.span for passage in passages], np.int32).reshape(-1, 2),
            tokens=beginnings.tokens + tokens,
        )


class _Read:
    """What the windows of a passage that were read so far say of it."""

    __slots__ = ("best", "span", "truncated")

    def __init__(self, length: int, logit: float, truncated: bool) -> None:
        self.best = [logit]  # the greatest first
        self.span: Span = (0, length)
        self.truncated = truncated

    def add(self, span: Span, logit: float, truncated: bool, kept: int) -> None:
        """One window more, of which the best `kept` logits are remembered."""
        if logit > self.best[0]:
            self.span = span
        self.best = sorted([*self.best, logit], reverse=True)[:kept]
        self.truncated |= truncated


def stride_of(size: int) -> int:
    """Tokens from the start of one window of `size` tokens to the next, unless it is said."""
    return max(1, int(size * STRIDE_SHARE))


def whole_spans(texts: Sequence[str]) -> NDArray[np.int32]:
    """The span of each text that was read in one piece: int32, (n, 2)."""
    return np.array([(0, len(text)) for text in texts], np.int32).reshape(-1, 2)
