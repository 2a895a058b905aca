"""A collection in memory: its queries, passages and judgments by id, read file by file."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flashrank_lite.errors import InvalidInput
from flashrank_lite.evaluation.fields import IDS, first_of
from flashrank_lite.evaluation.rows import PASSAGES, QUERIES
from flashrank_lite.passages import Passage
from flashrank_lite.reading import ReadOptions, as_passages, read_lines, read_placed
from flashrank_lite.reading.source import extension


@dataclass
class Collection:
    """What the files of a collection hold.

    Attributes:
        queries: their texts.
        passages: all that there are to be found.
        qrels: the grades of a query's passages.
        excluded: passages of a query that nobody is to find (BRIGHT's `excluded_ids`).
    """

    queries: dict[str, str] = field(default_factory=dict)
    passages: dict[str, Passage] = field(default_factory=dict)
    qrels: dict[str, dict[str, int]] = field(default_factory=dict)
    excluded: dict[str, frozenset[str]] = field(default_factory=dict)


def read_queries(path: str, collection: Collection) -> None:
    """Add the queries of a file, with the judgments that stand beside them (`gold_ids`).

    Raises:
        OSError: the file cannot be read.
        InvalidInput: a row has no id or no text.
    """
    for place, row in _placed(path, QUERIES):
        name = str(first_of(row, IDS, place))
        collection.queries[name] = str(first_of(row, QUERIES, place))
        gold = row.get("gold_ids")
        if gold is not None:
            collection.qrels[name] = {str(one): 1 for one in gold}
            excluded = row.get("excluded_ids") or ()
            collection.excluded[name] = frozenset(str(one) for one in excluded if one != "N/A")


def read_passages(
    path: str, options: ReadOptions, wanted: Container[str] | None = None
) -> dict[str, Passage]:
    """The passages of a file by their ids; a title stands before the text unless a field is named.

    Args:
        path: of the file.
        options: how it is read.
        wanted: ids of those that are kept; None for all.

    Raises:
        OSError: the file cannot be read.
        InvalidInput: a row has no id or no text.
    """
    placed = _placed(path, PASSAGES)
    if options.field or options.id_field:
        placed = list(placed)
        read = as_passages(placed, options)
        lacking = next(
            (place for (place, _), one in zip(placed, read, strict=True) if one.id is None), None
        )
        if lacking is not None:
            raise InvalidInput(f"{lacking}: no id: name its field with --id")
        return {
            str(one.id): replace(one, id=str(one.id))
            for one in read
            if wanted is None or str(one.id) in wanted
        }
    found = {}
    for place, row in placed:
        name, text = str(first_of(row, IDS, place)), first_of(row, PASSAGES, place, empty=True)
        if wanted is not None and name not in wanted:
            continue
        title = row.get("title")
        whole = f"{title} {text}" if title else str(text)
        found[name] = Passage(whole, name, {"title": title} if title else {})
    return found


def _placed(path: str, names: Sequence[str]) -> Iterable[tuple[str, dict[str, Any]]]:
    """Rows as dictionaries; of a TSV an id, a tab and the text, whatever quotes there are."""
    if extension(path) not in (".tsv", ".txt"):
        rows = read_placed(path, unwrap=False, columns=tuple(names))
        wrong = next((place for place, row in rows if not isinstance(row, dict)), None)
        if wrong is not None:
            raise InvalidInput(f"{wrong}: not an object with an id and a text")
        return rows
    return _tab_separated(path, names[0])


def _tab_separated(path: str, named: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        identity, tab, text = line.partition("\t")
        if not tab:
            raise InvalidInput(f"{path}:{number}: not an id, a tab and a text")
        if number == 1 and identity.strip() in IDS:
            continue
        yield f"{path}:{number}", {"_id": identity.strip(), named: text.strip()}
