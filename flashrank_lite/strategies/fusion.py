"""A model's order blended with that of the first stage, which saw what the model does not.

A lexical first stage knows rare words and exact names; a small model knows meanings. Blends are of
ranks or of scores brought to one scale within the list, so no scale of the first stage's matters.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.errors import InvalidInput
from flashrank_lite.scorer import Candidates, Scorer, Scores
from flashrank_lite.strategies.lexical import bm25_scores

Kind = Literal["rrf", "linear", "z"]
FirstStage = Literal["given", "bm25"]
Floats = NDArray[np.float32]

RRF_K = 60  # of Cormack, Clarke and Büttcher, "Reciprocal rank fusion" (SIGIR 2009)
# Bundled model, nDCG@10 over five sets (benchmarks/RESULTS.md): for every kind the best. Chosen on
# the other sets, weights of 0.8 to 0.9 give 0.691 to 0.698; the model alone 0.687.
WEIGHT = 0.8


class Fusion:
    """Sorts by a blend of the scorer's logits and the first stage's scores.

    The blend is within each list, so it depends on the list; `logits` are the scorer's own.

    Args:
        scorer: the model.
        kind: "rrf" blends ranks (reciprocal rank fusion), "linear" scores brought to [0, 1], "z"
            scores brought to mean 0 and deviation 1.
        weight: of the model, from 0 (the first stage alone) to 1 (the model alone); None for 0.8.
        first_stage: "given" for the scores that passages carry, or else the order they are in;
            "bm25" for BM25 over the passages of the list, which needs the extra `bm25`.

    Raises:
        InvalidInput: an argument is out of range.
        MissingExtra: "bm25" without bm25s.
    """

    def __init__(
        self,
        scorer: Scorer,
        kind: Kind = "rrf",
        weight: float | None = None,
        *,
        first_stage: FirstStage = "given",
    ) -> None:
        if kind not in get_args(Kind):
            raise InvalidInput(f"fusion must be 'rrf', 'linear' or 'z', not {kind!r:.80}")
        if first_stage not in get_args(FirstStage):
            raise InvalidInput(f"first_stage must be 'given' or 'bm25', not {first_stage!r:.80}")
        if weight is not None and not 0 <= weight <= 1:
            raise InvalidInput(
                f"weight must be from 0 (first stage alone) to 1 (model alone), not {weight!r}"
            )
        if first_stage == "bm25":
            bm25_scores("", [""])  # what is missing is said now, not at the first query
        self._scorer = scorer
        self._kind: Kind = kind
        self._weight = WEIGHT if weight is None else float(weight)
        self._first_stage: FirstStage = first_stage

    def score(self, lists: Sequence[Candidates], *, instruction: str | None = None) -> list[Scores]:
        """Score every list, as `Scorer.score` says; `fused` is the blend.

        Raises:
            InvalidInput: a first-stage score is NaN or infinite.
        """
        first = [self._first(one) for one in lists]
        scored = self._scorer.score(lists, instruction=instruction)
        return [
            replace(scores, fused=self._fuse(scores, scale))
            for scores, scale in zip(scored, first, strict=True)
        ]

    def info(self) -> dict[str, Any]:
        """The scorer's, and `fusion`: kind, weight of the model, and the first stage."""
        fusion = {"kind": self._kind, "weight": self._weight, "first_stage": self._first_stage}
        return {**self._scorer.info(), "fusion": fusion}

    def close(self) -> None:
        """Close the scorer."""
        self._scorer.close()

    def _first(self, one: Candidates) -> Floats:
        """The first stage's scores; from the order of the list where there are none."""
        if self._first_stage == "bm25":
            return bm25_scores(one.query, one.texts)
        if one.first_stage is None:
            return from_order(len(one.texts))
        if not np.isfinite(one.first_stage).all():
            raise InvalidInput(
                "a first-stage score is NaN or infinite: give every passage of the list a score, "
                "or none of them (then their order is taken)"
            )
        return one.first_stage

    def _fuse(self, scores: Scores, first: Floats) -> Floats:
        """The blend; in a cascade within each stage, since logits of two are never compared."""
        fused = np.empty(len(first), np.float32)
        stages = np.zeros(len(first)) if scores.stages is None else scores.stages
        for stage in np.unique(stages):
            of_stage = np.flatnonzero(stages == stage)
            fused[of_stage] = fuse(
                scores.logits[of_stage], first[of_stage], self._kind, self._weight
            )
        return fused


def from_order(count: int) -> Floats:
    """Scores for passages of which only the order is known: they fall with the log of the rank."""
    return -np.log2(np.arange(1, count + 1, dtype=np.float32))


def fuse(model: Floats, first: Floats, kind: Kind, weight: float) -> Floats:
    """Blend two scores of each passage of a list.

    Args:
        model: (n,), larger is better.
        first: (n,), likewise.
        kind: as for `Fusion`.
        weight: of the model, in [0, 1].

    Returns:
        float32, (n,), in [0, 1].
    """
    scale = {"rrf": _reciprocal_rank, "linear": _unit, "z": _standard}[kind]
    blend = weight * scale(model) + (1 - weight) * scale(first)
    if kind == "z":
        blend = 1 / (1 + np.exp(-blend))
    return blend.astype(np.float32)


def _reciprocal_rank(values: Floats) -> NDArray[np.float64]:
    """1 for the best, and less by rank; equal values have equal ranks."""
    ascending = np.sort(values)
    better = len(values) - np.searchsorted(ascending, values, side="right")
    scaled: NDArray[np.float64] = (RRF_K + 1) / (RRF_K + 1 + better.astype(np.float64))
    return scaled


def _unit(values: Floats) -> NDArray[np.float64]:
    wide = values.astype(np.float64)
    low, high = wide.min(initial=np.inf), wide.max(initial=-np.inf)
    return (wide - low) / (high - low) if high > low else np.ones_like(wide)


def _standard(values: Floats) -> NDArray[np.float64]:
    wide = values.astype(np.float64)
    deviation = wide.std() if len(wide) else 0.0
    return (wide - wide.mean()) / deviation if deviation > 0 else np.zeros_like(wide)
