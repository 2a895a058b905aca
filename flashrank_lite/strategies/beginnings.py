"""The beginning of every passage and no more, for callers that say how much of it is to be read."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.arguments import required
from flashrank_lite.errors import InvalidInput
from flashrank_lite.scorer import Candidates, Scorer, Scores, TokenScorer
from flashrank_lite.strategies.splitting import beginning, excess


class Beginnings:
    """Scores passages by their first tokens; a longer one is `truncated`.

    Args:
        scorer: what scores them.
        tokens: of a passage at most.
        counter: the scorer whose tokens these are, where `scorer` is a strategy around it; None
            for `scorer`.

    Raises:
        InvalidInput: `tokens` is out of range, or the scorer cannot say where its tokens lie.
    """

    def __init__(self, scorer: Scorer, tokens: int, counter: Scorer | None = None) -> None:
        counter = scorer if counter is None else counter
        if not isinstance(counter, TokenScorer):
            raise InvalidInput(
                f"a {type(counter).__name__} cannot say where the first tokens of a passage end: "
                "it has no `token_spans` (see `flashrank_lite.scorer.TokenScorer`)"
            )
        self._scorer = scorer
        self._counter: TokenScorer = counter
        self._tokens = required("passage_tokens", tokens)

    def score(self, lists: Sequence[Candidates], *, instruction: str | None = None) -> list[Scores]:
        """Score every list, as `Scorer.score` says."""
        ends = [[self._end(text) for text in one.texts] for one in lists]
        cut = [
            replace(one, texts=[text[:end] for text, end in zip(one.texts, own, strict=True)])
            for one, own in zip(lists, ends, strict=True)
        ]
        scored = self._scorer.score(cut, instruction=instruction)
        return [
            replace(scores, truncated=scores.truncated | _shorter(own, one.texts))
            for one, own, scores in zip(lists, ends, scored, strict=True)
        ]

    def info(self) -> dict[str, Any]:
        """The scorer's, and `passage_tokens`."""
        return {**self._scorer.info(), "passage_tokens": self._tokens}

    def close(self) -> None:
        """Close the scorer."""
        self._scorer.close()

    def _end(self, text: str) -> int:
        wanted = self._tokens
        while True:
            end = beginning(text, wanted, self._counter.token_spans)
            if end == len(text) or wanted == 1:
                return end
            more = excess(text[:end], self._tokens, self._counter.token_spans)
            if not more:
                return end
            wanted = max(1, wanted - more)


def _shorter(ends: Sequence[int], texts: Sequence[str]) -> NDArray[np.bool_]:
    return np.array([end < len(text) for end, text in zip(ends, texts, strict=True)], np.bool_)
