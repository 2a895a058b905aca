"""The names that collections give to ids, and how one of several is read from a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flashrank_lite.errors import InvalidInput

IDS = ("_id", "id", "pid", "qid", "docid", "doc_id", "query_id", "query-id")
QUERY_IDS = ("query-id", "query_id", "qid")
PASSAGE_IDS = ("corpus-id", "corpus_id", "doc_id", "docid", "pid")
GRADES = ("score", "rel", "relevance", "label", "grade")


def first_of(row: Mapping[str, Any], names: Sequence[str], place: str, empty: bool = False) -> Any:
    """The first field of `names` that a row has.

    Args:
        row: by name.
        names: of the field, the usual one first.
        place: of the row, for the message.
        empty: whether an empty text will do.

    Raises:
        InvalidInput: it has none of them.
    """
    for name in names:
        value = row.get(name) if isinstance(row, Mapping) else None
        if value is not None and (empty or value != ""):
            return value
    raise InvalidInput(f"{place}: none of {', '.join(names)}")
