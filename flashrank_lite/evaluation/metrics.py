"""Ranking metrics, computed from scores in input order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flashrank_lite.evaluation.candidates import CandidateList


def ndcg(
    scores: ArrayLike, labels: ArrayLike, k: int = 10, ideal: Sequence[float] | None = None
) -> float:
    """Normalised discounted cumulative gain at `k` with linear gain, as trec_eval's `ndcg_cut`.

    Args:
        scores: relevance scores, shape (n,); ties keep the input order.
        labels: relevance grades, shape (n,), 0 for not relevant.
        k: cut-off rank.
        ideal: every positive grade of the query, those that the first stage missed included;
            the grades in `labels` when not given.

    Returns:
        A float in [0, 1]; 0.0 for a query without a positive grade.

    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques" (2002).
    """
    gains = np.asarray(labels, dtype=np.float64)
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    best = np.sort(np.asarray(gains if ideal is None else ideal, dtype=np.float64))[::-1]
    reachable = _dcg(best[:k])
    return _dcg(gains[order][:k]) / reachable if reachable > 0 else 0.0


def mean_ndcg(lists: Sequence[CandidateList], scores: Iterable[ArrayLike], k: int = 10) -> float:
    """Mean nDCG@k over the queries that have a positive grade (the others say nothing).

    Args:
        lists: the candidate lists.
        scores: one array of shape (number of candidates,) per list, in the same order.
        k: cut-off rank.
    """
    values = [
        ndcg(s, c.labels, k, c.ideal)
        for c, s in zip(lists, scores, strict=True)
        if any(label > 0 for label in (c.labels if c.ideal is None else c.ideal))
    ]
    return float(np.mean(values)) if values else 0.0


def kendall_tau(a: ArrayLike, b: ArrayLike) -> float:
    """Kendall's tau-b between two score arrays of shape (n,); 1.0 for the same order.

    Where all scores of one array are equal it orders nothing: 0.0, or 1.0 if both are so.

    Source: Kendall, "The treatment of ties in ranking problems" (1945).
    """
    x, y = _pair_signs(a), _pair_signs(b)
    norm = np.sqrt(float(np.abs(x).sum()) * float(np.abs(y).sum()))
    if norm > 0:
        return float((x * y).sum() / norm)
    return 1.0 if not x.any() and not y.any() else 0.0


def _dcg(gains: NDArray[np.float64]) -> float:
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())


def _pair_signs(values: ArrayLike) -> NDArray[np.float64]:
    v = np.asarray(values, dtype=np.float64)
    rows, columns = np.triu_indices(len(v), k=1)
    signs: NDArray[np.float64] = np.sign(v[rows] - v[columns])
    return signs
