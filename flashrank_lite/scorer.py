"""The seam: a scorer gives every candidate of a query a logit; a ranker turns logits into hits.

A cross-encoder is a scorer, and so is whatever wraps one: windows over long texts, a cascade, a
blend with first-stage scores. Scorers take lists, not pairs, because some decide within a list;
they take many lists at once, because others share batches across them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Candidates:
    """One query, and the texts to be ranked for it.

    Attributes:
        query: the query.
        texts: the passages, n of them.
        first_stage: float32, (n,): the scores that the caller's passages carry; None where they
            carry none.
    """

    query: str
    texts: Sequence[str]
    first_stage: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """What a scorer says of one list, in the order of its texts.

    Attributes:
        logits: float32, (n,): unbounded, larger is better.
        truncated: bool, (n,): the model did not see all of the query or of the passage.
        spans: int32, (n, 2): start and end of the best window, in characters of the passage; None
            from a scorer without windows.
        stages: int8, (n,): which scorer of a cascade the logit is of; a later one's passages come
            before an earlier one's, whatever the logits. None where one scorer read them all.
        fused: float32, (n,), in [0, 1]: the logit blended with a first stage's score, by which the
            passages are sorted instead; NaN where the logit stands alone. None without a blend.
        tokens: that were read for this list, as the model is fed them, without padding: each
            distinct pair, or the query and each distinct passage of a model that reads them apart.
            What several lists share counts for each of them; what a store or a cache holds was
            read before, and counts nothing. 0 from a scorer that does not count.
    """

    logits: NDArray[np.float32]
    truncated: NDArray[np.bool_]
    spans: NDArray[np.int32] | None = None
    stages: NDArray[np.int8] | None = None
    fused: NDArray[np.float32] | None = None
    tokens: int = 0

    def order(self) -> NDArray[np.intp]:
        """Places of the passages, best first; ties keep the order of the texts."""
        keys = self.logits
        if self.fused is not None:
            keys = np.where(np.isnan(self.fused), self.logits, self.fused)
        stages = np.zeros(len(keys), np.int8) if self.stages is None else self.stages
        return np.lexsort((-keys, -stages))


class Scorer(Protocol):
    """What a `Ranker` holds. One scorer serves any number of threads."""

    def score(self, lists: Sequence[Candidates], *, instruction: str | None = None) -> list[Scores]:
        """Score every list; the results are in the order of the lists.

        A scorer that takes long calls `flashrank_lite.call.current().check()` between batches, so
        that a cancelled call stops.

        Args:
            lists: the candidates.
            instruction: what to look for, for models that are told it; None for the default.

        Raises:
            RankerClosed: after `close`.
            InvalidInput: the scorer takes no instruction.
            CallCancelled: the call was cancelled.
        """
        ...

    def info(self) -> dict[str, Any]:
        """What it is and how it runs, JSON-clean."""
        ...

    def close(self) -> None:
        """Calls in flight finish, later ones raise RankerClosed; closing twice is fine."""
        ...


@runtime_checkable
class TokenScorer(Scorer, Protocol):
    """A scorer that says how its tokens lie in a text, so that long texts can be split for it.

    Optional: without these two methods a scorer works everywhere but inside
    `flashrank_lite.strategies.windows.Windows`.
    """

    def room(self, query: str, *, instruction: str | None = None) -> int:
        """Tokens of a passage that are read beside this query, at least 1.

        Args:
            query: the query.
            instruction: as for `score`.
        """
        ...

    def token_spans(self, text: str) -> NDArray[np.int32]:
        """Start and end of each token of a text in characters: int32, (n, 2)."""
        ...
