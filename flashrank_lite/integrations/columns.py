"""Columns of a batch in, columns out: what Ray Data and Spark have in common.

A batch is a dict of numpy arrays, a pandas DataFrame or a pyarrow Table. `score_pairs` is for a row
a pair, `rank_lists` for a row a query. A null query, text or list of passages gives null, as in
SQL: one bad row of a corpus does not end a job of hours.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.errors import InvalidInput
from flashrank_lite.passages import read_passages
from flashrank_lite.ranker import Ranker


def score_pairs(ranker: Ranker, batch: Any, query: str, text: str) -> NDArray[np.float32]:
    """Score row by row: float32, (n,); NaN where the query or the text is null.

    Args:
        ranker: scores them.
        batch: rows of pairs.
        query, text: the columns that hold them.

    Raises:
        InvalidInput: a column is missing, or a query or a text is not a text.
    """
    queries, texts = _columns(batch, query, text)
    scores = np.full(len(texts), np.nan, np.float32)
    rows = [
        row
        for row, (asked, given) in enumerate(zip(queries, texts, strict=True))
        if not _is_null(asked) and not _is_null(given)
    ]
    if rows:
        scores[rows] = ranker.score_pairs([(queries[row], texts[row]) for row in rows])
    return scores


def rank_lists(
    ranker: Ranker, batch: Any, query: str, passages: str, top_k: int | None = None
) -> tuple[list[list[Any] | None], list[list[float] | None]]:
    """Rank each row's list of passages.

    Args:
        ranker: scores them.
        batch: rows of a query and its passages: texts, or dicts with `text`.
        query, passages: the columns that hold them.
        top_k: how many to keep of each list; None for all.

    Returns:
        For each row its passages, as they were, best first; and their scores.

    Raises:
        InvalidInput: a column is missing, or a query or a passage cannot be ranked.
    """
    queries, lists = _columns(batch, query, passages)
    rows = [
        row
        for row, (asked, listed) in enumerate(zip(queries, lists, strict=True))
        if not _is_null(asked) and not _is_null(listed)
    ]
    ranked: list[list[Any] | None] = [None] * len(lists)
    scores: list[list[float] | None] = [None] * len(lists)
    given = [list(lists[row]) for row in rows]
    texts = [[passage.text for passage in read_passages(listed)] for listed in given]
    found = ranker.rank_many([queries[row] for row in rows], texts, top_k)
    for row, listed, hits in zip(rows, given, found, strict=True):
        ranked[row] = [listed[hit.index] for hit in hits]
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


def _columns(batch: Any, *names: str) -> list[Sequence[Any]]:
    """The values of these columns."""
    if isinstance(batch, Mapping):
        present = list(batch)
    else:
        present = list(batch.column_names if hasattr(batch, "column_names") else batch.columns)
    check_columns(present, names)
    columns = [batch[name] for name in names]
    return [one.to_pylist() if hasattr(one, "to_pylist") else list(one) for one in columns]


def _is_null(value: Any) -> bool:
    if value is None or type(value).__name__ == "NAType":  # pandas.NA, which equals nothing
        return True
    return isinstance(value, float) and value != value
