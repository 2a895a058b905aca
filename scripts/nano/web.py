"""The web set: queries without labels, passages without queries, and some pairs of both.

All of it is far more than two cores read in a night. Fewer passages are chosen by the queries:
those that a lexical search finds first, because such lists are what a reranker is given.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

# Searched on the web, word for word; other sources count as 1 when shares are dealt out.
SHARES = {
    "nq_open": 4.0,
    "ambignq": 3.0,
    "webquestions": 3.0,
    "tydi_en": 3.0,
    "query_wellformedness": 4.0,
}
K1, B = 0.9, 0.4  # of BM25, as Anserini's for passages
QUERIES_AT_ONCE = 256
COMMON = 0.05  # words in more passages than this share tell little and cost most
DEPTH = 8

T = TypeVar("T")


def read(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """Rows of `name`.jsonl.gz, in order."""
    with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def deal(
    items: Sequence[T],
    count: int | None,
    source: Callable[[T], str],
    order: Callable[[T], int],
    shares: Mapping[str, float] | None = None,
) -> list[T]:
    """`count` of the items, of every source alike (as far as it has them) or by `shares`.

    Of one source the first by `order`: a larger count gives all that a smaller one gave, so what
    was computed for them serves again.
    """
    if count is None or count >= len(items):
        return list(items)
    of: dict[str, list[T]] = defaultdict(list)
    for item in sorted(items, key=order):
        of[source(item)].append(item)
    # A source's n-th item is due at n / share: the first `count` that are due.
    due = sorted(
        ((number + 1) / (shares or {}).get(name, 1.0), name, number)
        for name, found in of.items()
        for number in range(len(found))
    )
    return [of[name][number] for _, name, number in due[:count]]


def found_lexically(queries: Sequence[str], passages: Sequence[str], count: int) -> list[int]:
    """`count` passages: the queries' first by BM25, then their second, and so on."""
    from sklearn.feature_extraction.text import CountVectorizer

    most = max(2, int(COMMON * len(passages)))
    vectorizer = CountVectorizer(token_pattern=r"\w+", max_df=most, min_df=2, dtype=np.float32)
    counts = vectorizer.fit_transform(passages).tocsr()
    lengths = np.asarray(counts.sum(1)).ravel()
    frequencies = np.bincount(counts.indices, minlength=counts.shape[1])
    idf = np.log1p((len(passages) - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float32)
    norm = np.repeat(K1 * (1 - B + B * lengths / lengths.mean()), np.diff(counts.indptr))
    counts.data = idf[counts.indices] * counts.data * (K1 + 1) / (counts.data + norm)
    words = vectorizer.transform(queries).tocsr()
    words.data[:] = 1
    depth = min(DEPTH, len(passages))
    best = np.zeros((len(queries), depth), np.int64)
    weights = counts.T.tocsr()
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        scores = (words[start : start + QUERIES_AT_ONCE] @ weights).toarray()
        top = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
        order = np.argsort(-np.take_along_axis(scores, top, 1), axis=1, kind="stable")
        best[start : start + QUERIES_AT_ONCE] = np.take_along_axis(top, order, 1)
    chosen = dict.fromkeys(best.T.ravel().tolist())
    chosen.update(dict.fromkeys(range(len(passages))))  # where the queries find too few
    return list(chosen)[:count]
