"""Cascades: a cheap scorer for every passage, a strong one for those that it leaves over.

What a later scorer read comes before what it did not, and the order below the cut is the earlier
one's: logits of different scorers are never compared.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.arguments import required
from flashrank_lite.errors import InvalidInput
from flashrank_lite.scorer import Candidates, Scorer, Scores, TokenScorer
from flashrank_lite.strategies.splitting import beginning
from flashrank_lite.strategies.windows import whole_spans

T = TypeVar("T", bound=np.generic)

PRUNING_TOKENS = 64
# Bundled model, passages of 220 tokens (cranfield): nine tenths of the logits change by up to
# 3.0, and a margin of 2 keeps 94 of a hundred of the best ten for 60% of the tokens; 4 keeps all
# for 98%.
PRUNING_MARGIN = 2.0


class Cascade:
    """Scorers from cheap to strong, each for the best of what the one before has read.

    Args:
        scorers: two or more; they may share a model.
        keep: how many passages of a list each scorer after the first reads.

    Raises:
        InvalidInput: there are not two scorers, or `keep` does not say how many each reads.
    """

    def __init__(self, scorers: Sequence[Scorer], keep: Sequence[int]) -> None:
        if len(scorers) < 2 or len(keep) != len(scorers) - 1:
            raise InvalidInput(
                f"a cascade of {len(scorers)} scorers and keep={list(keep)}: it takes two scorers "
                "or more, and for each after the first how many passages it reads, as in "
                "Cascade([cheap, strong], keep=[25])"
            )
        self._scorers = list(scorers)
        self._keep = [required("keep", number) for number in keep]
        if any(later > earlier for earlier, later in pairwise(self._keep)):
            raise InvalidInput(f"keep={self._keep} grows: no scorer can read more than came before")

    def score(self, lists: Sequence[Candidates], *, instruction: str | None = None) -> list[Scores]:
        """Score every list, as `Scorer.score` says; `stages` number the scorers from 0.

        An instruction goes to the scorers that take one.
        """
        instructions = self._instructions(instruction)
        scores = self._scorers[0].score(lists, instruction=instructions[0])
        for scorer, keep, told in zip(self._scorers[1:], self._keep, instructions[1:], strict=True):
            # in the order of the list, so that ties keep it
            survivors = [np.sort(one.order()[:keep]) for one in scores]
            scores = _rescore(scorer, lists, scores, survivors, told)
        return scores

    def info(self) -> dict[str, Any]:
        """The first scorer's, and `then`: how many passages each later one reads, and its own."""
        first, *later = (scorer.info() for scorer in self._scorers)
        then = [{"keep": keep, **info} for keep, info in zip(self._keep, later, strict=True)]
        return {**first, "then": then}

    def close(self) -> None:
        """Close all scorers."""
        for scorer in self._scorers:
            scorer.close()

    def _instructions(self, instruction: str | None) -> list[str | None]:
        takes = [_takes_instruction(scorer.info()) for scorer in self._scorers]
        if not any(takes):  # then let one say so
            return [instruction] * len(takes)
        return [instruction if one else None for one in takes]


class EarlyPruning:
    """The beginning of every passage first, then the whole of those that can still get far.

    Bound: a passage is left where its beginning scores so low that it is not among the best `top_k`
    of the scorer itself, if no logit changes by more than `margin` / 2 once the rest is read.
    The order of the others is the scorer's own.

    Args:
        scorer: what reads the passages; a `TokenScorer`, as a `CrossEncoder` is.
        top_k: how many of the best are to be found.
        tokens: of the beginning.
        margin: in logits; what it keeps and saves was measured (docs/cascades-and-fusion.md).

    Raises:
        InvalidInput: an argument is out of range, or the scorer cannot say where its tokens lie.
    """

    def __init__(
        self,
        scorer: Scorer,
        top_k: int = 10,
        *,
        tokens: int = PRUNING_TOKENS,
        margin: float = PRUNING_MARGIN,
    ) -> None:
        if not isinstance(scorer, TokenScorer):
            raise InvalidInput(
                f"a {type(scorer).__name__} cannot say where the beginning of a passage ends: it "
                "has no `token_spans` (see `flashrank_lite.scorer.TokenScorer`)"
            )
        self._scorer: TokenScorer = scorer
        self._top_k = required("top_k", top_k)
        self._tokens = required("tokens", tokens)
        if not margin >= 0:
            raise InvalidInput(f"margin must be a number of at least 0, not {margin!r}")
        self._margin = float(margin)

    def score(self, lists: Sequence[Candidates], *, instruction: str | None = None) -> list[Scores]:
        """Score every list, as `Scorer.score` says; stage 1 is what was read whole."""
        cut = [self._cut(one) for one in lists]
        beginnings = [
            replace(scores, truncated=scores.truncated | _shorter(beginning.texts, one.texts))
            for one, beginning, scores in zip(
                lists, cut, self._scorer.score(cut, instruction=instruction), strict=True
            )
        ]
        survivors = [self._survivors(one.logits) for one in beginnings]
        # what fits into its beginning has been read whole
        unread = [
            places[one.truncated[places]] for one, places in zip(beginnings, survivors, strict=True)
        ]
        scores = _rescore(self._scorer, lists, beginnings, unread, instruction)
        return [
            replace(one, stages=_numbered(len(one.logits), places))
            for one, places in zip(scores, survivors, strict=True)
        ]

    def info(self) -> dict[str, Any]:
        """The scorer's, and `early_pruning`: the tokens read first, and the bound."""
        pruning = {"top_k": self._top_k, "tokens": self._tokens, "margin": self._margin}
        return {**self._scorer.info(), "early_pruning": pruning}

    def close(self) -> None:
        """Close the scorer."""
        self._scorer.close()

    def _cut(self, one: Candidates) -> Candidates:
        """The list with the beginnings of its passages."""
        tokens, token_spans = self._tokens, self._scorer.token_spans
        ends = [beginning(text, tokens, token_spans) for text in one.texts]
        return replace(one, texts=[text[:end] for text, end in zip(one.texts, ends, strict=True)])

    def _survivors(self, logits: NDArray[np.float32]) -> NDArray[np.intp]:
        if len(logits) <= self._top_k:
            return np.arange(len(logits))
        last = np.partition(logits, -self._top_k)[-self._top_k]
        return np.flatnonzero(logits >= last - np.float32(self._margin))


def _takes_instruction(info: dict[str, Any]) -> bool:
    """Whether a scorer does, or one that it holds, by what it says of itself."""
    later = info.get("then", ())
    return info.get("instruction") is not None or any(map(_takes_instruction, later))


def _shorter(texts: Sequence[str], than: Sequence[str]) -> NDArray[np.bool_]:
    return np.array([len(a) < len(b) for a, b in zip(texts, than, strict=True)], np.bool_)


def _rescore(
    scorer: Scorer,
    lists: Sequence[Candidates],
    scores: Sequence[Scores],
    survivors: Sequence[NDArray[np.intp]],
    instruction: str | None,
) -> list[Scores]:
    """What the scorer says of the survivors, over what was said before of the others."""
    chosen = [_only(one, places) for one, places in zip(lists, survivors, strict=True)]
    again = scorer.score(chosen, instruction=instruction)
    return [
        _merge(one, before, places, later)
        for one, before, places, later in zip(lists, scores, survivors, again, strict=True)
    ]


def _only(one: Candidates, places: NDArray[np.intp]) -> Candidates:
    first_stage = None if one.first_stage is None else one.first_stage[places]
    return replace(one, texts=[one.texts[place] for place in places], first_stage=first_stage)


def _merge(one: Candidates, before: Scores, places: NDArray[np.intp], later: Scores) -> Scores:
    stages = _copied(before.stages, np.zeros(len(one.texts), np.int8))
    stage = stages.max(initial=0) + 1
    stages[places] = stage if later.stages is None else stage + later.stages
    merged = Scores(
        before.logits.copy(),
        before.truncated.copy(),
        before.spans,
        stages,
        tokens=before.tokens + later.tokens,
    )
    merged.logits[places] = later.logits
    merged.truncated[places] = later.truncated
    if later.spans is not None:  # else the earlier scorer's: that is where it would look
        spans = _copied(before.spans, whole_spans(one.texts))
        spans[places] = later.spans
        merged = replace(merged, spans=spans)
    if before.fused is not None or later.fused is not None:
        fused = _copied(before.fused, np.full(len(one.texts), np.nan, np.float32))
        fused[places] = np.nan if later.fused is None else later.fused
        merged = replace(merged, fused=fused)
    return merged


def _numbered(count: int, survivors: NDArray[np.intp]) -> NDArray[np.int8]:
    stages = np.zeros(count, np.int8)
    stages[survivors] = 1
    return stages


def _copied(values: NDArray[T] | None, default: NDArray[T]) -> NDArray[T]:
    return default if values is None else values.copy()
