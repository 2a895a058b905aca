"""BM25 over the passages of one list, for callers whose first stage left no scores."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.errors import MissingExtra


def bm25_scores(query: str, texts: Sequence[str]) -> NDArray[np.float32]:
    """BM25 of each text for the query; how rare a word is, the texts themselves say.

    Args:
        query: the query.
        texts: the passages of one list.

    Returns:
        float32, (n,): 0 for a text without a word of the query.

    Raises:
        MissingExtra: bm25s is not installed.
    """
    try:
        import bm25s
    except ImportError as error:
        raise MissingExtra('first_stage="bm25" needs bm25s', "bm25") from error
    words = bm25s.tokenize(list(texts), stopwords=None, show_progress=False, return_ids=False)
    asked = bm25s.tokenize([query], stopwords=None, show_progress=False, return_ids=False)[0]
    vocabulary = {word for text in words for word in text}
    known = [word for word in asked if word in vocabulary]
    if not known:
        return np.zeros(len(texts), np.float32)
    index = bm25s.BM25()
    index.index(words, show_progress=False)
    return np.asarray(index.get_scores(known), np.float32)
