"""What holds passages: tables of pandas, polars and Arrow, and the answers of search engines.

No library is imported for this: what an object offers says what it is.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from flashrank_lite.errors import InvalidInput
from flashrank_lite.passages.fields import Chosen, Fields
from flashrank_lite.passages.records import MISSING, Record

# Where answers keep their list: rerankers' APIs, Elasticsearch (hits in hits), Haystack, Solr (docs
# in response), Pinecone, Qdrant (points in result), Weaviate, LlamaIndex, Voyage.
_LISTS = (
    "results",
    "hits",
    "documents",
    "passages",
    "docs",
    "response",
    "matches",
    "result",
    "points",
    "objects",
    "source_nodes",
    "nodes",
    "items",
    "data",
)
_SHOWN = 12  # columns that an error lists


def is_table(value: Any) -> bool:
    """Whether a value is a table, a column of one, or a numpy array."""
    if isinstance(value, (str, bytes, bytearray, list, tuple, Mapping)):
        return False
    return any(
        hasattr(value, name) for name in ("iloc", "to_dicts", "to_pylist", "collect_schema")
    ) or _is_array(value)


def is_matrix(value: Any, dimensions: int = 2) -> bool:
    """Whether a value is a numpy array of so many dimensions."""
    return _is_array(value) and value.ndim == dimensions


def read_table(
    table: Any, chosen: Chosen, usual: Collection[str]
) -> tuple[Iterable[Any], Sequence[Any] | None]:
    """The rows of a table as dicts, or the values of a column.

    Args:
        table: a DataFrame or Series of pandas or polars, an Arrow table, batch or array, or a numpy
            array of one dimension.
        chosen: what of a row is its text.
        usual: the columns that it is found in, if nothing is chosen.

    Returns:
        The rows, and of pandas their labels, unless these are 0, 1, 2 and so on.

    Raises:
        InvalidInput: which column is meant cannot be told.
    """
    if hasattr(table, "collect_schema") and not hasattr(table, "to_dicts"):
        raise InvalidInput("passages is a lazy frame: pass passages.collect()")
    if _is_array(table):
        return _array(table), None
    names = getattr(table, "column_names", None) or getattr(table, "columns", None)
    if names is None:
        return _column(table)
    names = [str(name) for name in names]
    rows = _rows(table, names)
    if isinstance(chosen, Fields):
        for name in chosen.names:
            if name not in names and name.partition(".")[0] not in names:
                raise InvalidInput(f"the table has no column {name!r} (it has: {_list(names)})")
    elif chosen is None and not set(names) & set(usual):
        if len(names) != 1:
            texts = [name for name, value in (rows or [{}])[0].items() if isinstance(value, str)]
            raise InvalidInput(
                f"the table has no column 'text' (it has: {_list(names)}): name the one that holds "
                f"the passages, as in text={(texts or names or ['body'])[0]!r}"
            )
        return [row[names[0]] for row in rows], _labels(table)
    return rows, _labels(table)


def held_list(value: Any) -> Any:
    """The list of passages in a search engine's answer; None if it holds none.

    Raises:
        InvalidInput: it holds several, and any may be meant.
    """
    record = Record.of(value)
    if record is None:
        return None
    if all(isinstance(record.get(name), list) for name in ("ids", "documents")):
        return _columns(record)
    found = {}
    for name in _LISTS:
        inner = record.get(name)
        if inner is MISSING or inner is None or isinstance(inner, (str, bytes)):
            continue
        held = inner if isinstance(inner, (list, tuple)) else held_list(inner)
        if held is not None:
            found[name] = held
    if len(found) > 1:
        raise InvalidInput(
            f"passages holds several lists ({', '.join(map(repr, found))}): pass the one that is "
            "meant"
        )
    return next(iter(found.values()), None)


def _columns(record: Record) -> list[dict[str, Any]]:
    """The passages of an answer that has them in columns, as Chroma's `get` and `query` do."""
    columns = {"text": record.get("documents"), "id": record.get("ids")}
    for name, column in (("metadata", "metadatas"), ("distance", "distances")):
        if isinstance(record.get(column), list):
            columns[name] = record.get(column)
    if isinstance(columns["id"][0] if columns["id"] else None, list):  # a list for each query
        if len(columns["id"]) != 1:
            raise InvalidInput(
                f"passages holds the answers to {len(columns['id'])} queries: rank each with its "
                "own query, as rank_many does"
            )
        columns = {name: column[0] for name, column in columns.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _is_array(value: Any) -> bool:
    return hasattr(value, "ndim") and hasattr(value, "tolist") and not hasattr(value, "iloc")


def _array(array: Any) -> list[Any]:
    if array.ndim != 1:
        raise InvalidInput(
            f"passages is an array of {array.ndim} dimensions: pass one of texts, (n,), as a "
            "column of it is"
        )
    if array.dtype.kind == "S":
        raise InvalidInput("passages is an array of bytes: decode it, as passages.astype(str) does")
    values: list[Any] = array.tolist()
    return values


def _column(column: Any) -> tuple[Iterable[Any], Sequence[Any] | None]:
    if hasattr(column, "to_pylist"):
        return column.to_pylist(), None
    labels = _labels(column)
    if labels is not None and "text" in labels:
        raise InvalidInput("passages is a single row of a table: pass the table, or [row]")
    return column.tolist(), labels


def _rows(table: Any, names: list[str]) -> list[dict[str, Any]]:
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise InvalidInput(f"the table has two columns {repeated!r}: rename one")
    if hasattr(table, "to_dicts"):
        return table.to_dicts()  # type: ignore[no-any-return]
    if hasattr(table, "to_pylist"):
        return table.to_pylist()  # type: ignore[no-any-return]
    columns = []
    for place in range(len(names)):
        column = table.iloc[:, place]
        # what pandas holds for a missing value (nan, NaT, NA) is None, as in the other tables
        columns.append(column.astype(object).where(column.notna(), None).tolist())
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _labels(table: Any) -> list[Any] | None:
    index = getattr(table, "index", None)
    if not hasattr(table, "iloc") or index is None:
        return None
    labels: list[Any] = index.tolist()
    return None if labels == list(range(len(labels))) else labels


def _list(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN]) or "none"
    return shown + (", …" if len(names) > _SHOWN else "")
