"""One request's work: its pairs, in the order they are scored, and what became of them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from flashrank_lite.hits import RankedPassage
from flashrank_lite.server.registry import ServedModel
from flashrank_lite.strategies.stack import Long

# English has some four characters a token, other scripts about one, in two to four bytes each.
BYTES_PER_TOKEN = 4
SPECIAL_TOKENS = 3
OVERLAP = 4 / 3  # of windows, each of which begins three quarters after the one before
MOST_IN_WINDOWS = 8000  # tokens of a passage: some 31 windows of 256


@dataclass(frozen=True)
class Options:
    """How a request is scored; requests with equal options share batches."""

    instruction: str | None = None
    long: Long | None = None
    passage_tokens: int | None = None


class Job:
    """Pairs to be scored for one request.

    Args:
        model: what scores them.
        pairs: (query, text), in the request's order.
        options: how.

    Attributes:
        hits: what was found for each pair, in the order of the pairs; None until it is scored.
        cost: tokens that the model will read for all pairs, about, known before any is tokenised.
        cost_left: of the pairs that were not handed to the model yet.
        tokens: that the model has read for the pairs that are scored.
        done: set when all pairs are scored, or with the error.
        queue_seconds: from the start until the first pair was handed to the model.
        scoring_seconds: that it was being scored, together with what shared its batches.
        tokenizing_seconds: of these, on making token ids.
    """

    def __init__(
        self, model: ServedModel, pairs: Sequence[tuple[str, str]], options: Options
    ) -> None:
        self.model, self.pairs, self.options = model, pairs, options
        self.hits: list[RankedPassage | None] = [None] * len(pairs)
        long = options.long or model.long
        self._costs = [
            estimate(query, text, model.max_length, long, options.passage_tokens)
            for query, text in pairs
        ]
        self.cost = self.cost_left = sum(self._costs)
        self.tokens = 0
        # A slice of nearly equal lengths pads less; and pairs of one query stay together.
        queries: dict[str, int] = {}
        places = [queries.setdefault(query, len(queries)) for query, _ in pairs]
        self._waiting = deque(
            sorted(range(len(pairs)), key=lambda row: (places[row], -self._costs[row]))
        )
        self._unscored = len(pairs)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.submitted = time.perf_counter()
        self.queue_seconds = self.scoring_seconds = self.tokenizing_seconds = 0.0
        if not pairs:
            self.done.set_result(None)

    @property
    def waiting(self) -> bool:
        """Whether somebody still wants the answer, and not all of it is being scored."""
        return bool(self._waiting) and not self.done.done()

    def take(self, tokens: int) -> tuple[list[int], int]:
        """The next pairs to score, of about so many tokens, one at the least; and their tokens."""
        rows: list[int] = []
        taken = 0
        while self._waiting and (not rows or taken + self._costs[self._waiting[0]] <= tokens):
            row = self._waiting.popleft()
            rows.append(row)
            taken += self._costs[row]
        self.cost_left -= taken
        return rows, taken

    def begin(self) -> None:
        """Pairs of it go to the model."""
        if not self.queue_seconds:
            self.queue_seconds = time.perf_counter() - self.submitted

    def scored(
        self,
        rows: Sequence[int],
        hits: Sequence[RankedPassage],
        tokens: int,
        seconds: float,
        tokenizing: float,
    ) -> None:
        """These pairs were scored.

        Args:
            rows: their places.
            hits: what was found; each one's `index` is a place in `rows`.
            tokens: that were read for them.
            seconds: that it took, with what shared their batches.
            tokenizing: of these, on making token ids.
        """
        for hit in hits:
            row = rows[hit.index]
            self.hits[row] = replace(hit, index=row)
        self.tokens += tokens
        self.scoring_seconds += seconds
        self.tokenizing_seconds += tokenizing
        self._unscored -= len(rows)
        if not self._unscored and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: BaseException) -> None:
        """It cannot be scored."""
        if not self.done.done():
            self.done.set_exception(error)


def estimate(
    query: str, text: str, max_length: int, long: Long, passage_tokens: int | None = None
) -> int:
    """Tokens that the model reads of a pair, about: known before anything is tokenised."""
    passage = _bytes(text) // BYTES_PER_TOKEN
    if passage_tokens is not None:
        passage = min(passage, passage_tokens)
    read = _bytes(query) // BYTES_PER_TOKEN + passage + SPECIAL_TOKENS
    if read <= max_length:
        return read
    rest = 0 if long == "truncate" else int((read - max_length) * OVERLAP)
    return max_length + min(rest, MOST_IN_WINDOWS)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
