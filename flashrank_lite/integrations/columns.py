"""Columns of a batch in, columns out: what Ray Data and Spark have in common.

`score_column` is for a row a pair, `rank_columns` for a row a query. A null query, text or list of
passages gives null, as in SQL: one bad row of a corpus does not end a job of hours.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.errors import InvalidInput
from flashrank_lite.passages import read_passages
from flashrank_lite.ranker import Ranker


def score_column(
    ranker: Ranker, queries: Sequence[Any], texts: Sequence[Any]
) -> NDArray[np.float32]:
    """Score row by row: float32, (n,); NaN where the query or the text is null.

    Raises:
        InvalidInput: a query or a text is not a text.
    """
    scores = np.full(len(texts), np.nan, np.float32)
    rows = [
        row
        for row, (query, text) in enumerate(zip(queries, texts, strict=True))
        if not _is_null(query) and not _is_null(text)
    ]
    if rows:
        scores[rows] = ranker.score_pairs([(queries[row], texts[row]) for row in rows])
    return scores


def rank_columns(
    ranker: Ranker, queries: Sequence[Any], lists: Sequence[Any], top_k: int | None = None
) -> tuple[list[list[Any] | None], list[list[float] | None]]:
    """Rank each row's list of passages.

    Args:
        ranker: scores them.
        queries: a text for each row.
        lists: for each row its passages: texts, or dicts with `text`.
        top_k: how many to keep of each list; None for all.

    Returns:
        For each row its passages, as they were, best first; and their scores.

    Raises:
        InvalidInput: a query or a passage cannot be ranked.
    """
    rows = [
        row
        for row, (query, passages) in enumerate(zip(queries, lists, strict=True))
        if not _is_null(query) and not _is_null(passages)
    ]
    ranked: list[list[Any] | None] = [None] * len(lists)
    scores: list[list[float] | None] = [None] * len(lists)
    given = [list(lists[row]) for row in rows]
    texts = [[passage.text for passage in read_passages(passages)] for passages in given]
    found = ranker.rank_many([queries[row] for row in rows], texts, top_k)
    for row, passages, hits in zip(rows, given, found, strict=True):
        ranked[row] = [passages[hit.index] for hit in hits]
        scores[row] = [hit.score for hit in hits]
    return ranked, scores


def check_columns(present: Sequence[str], wanted: Sequence[str]) -> None:
    """Raises InvalidInput if a column is not there; the message lists those that are."""
    missing = [name for name in wanted if name not in present]
    if missing:
        raise InvalidInput(
            f"no column {', '.join(map(repr, missing))}: the columns are "
            f"{', '.join(map(repr, present)) or 'none'}. Name the right ones with the arguments "
            "query, text or passages"
        )


def _is_null(value: Any) -> bool:
    if value is None or type(value).__name__ == "NAType":  # pandas.NA, which equals nothing
        return True
    return isinstance(value, float) and value != value
