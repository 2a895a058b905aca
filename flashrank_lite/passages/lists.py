"""All passages of what the caller passes: a list, another iterable, a table, a search's answer."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.arguments import check_text
from flashrank_lite.errors import InvalidInput
from flashrank_lite.hits import RankedPassage
from flashrank_lite.passages.fields import Chosen, Fields, TextField, check_text_field
from flashrank_lite.passages.passage import Passage, plain_id
from flashrank_lite.passages.reading import (
    ACCEPTED,
    TEXT_NAMES,
    WRAPPERS,
    find,
    is_scored,
    read_chosen,
)
from flashrank_lite.passages.records import as_mapping, is_namedtuple
from flashrank_lite.passages.tables import held_list, is_matrix, is_table, read_table
from flashrank_lite.text import plain


def read_passages(passages: Any, text: TextField | Chosen = None) -> list[Passage]:
    """Read all passages of a list, another iterable (read to its end), or a table.

    Args:
        passages: passages as `read_passage` takes them, or what holds them: an iterable; a
            DataFrame of pandas or polars, an Arrow table, a series of texts; a search engine's
            answer, as {"hits": {"hits": [...]}} is.
        text: what of a passage is its text; see `read_passage`.

    Raises:
        InvalidInput: there are no passages in it, or one of them has no text.
    """
    chosen = check_text_field(text)
    if is_table(passages):
        rows, labels = read_table(passages, chosen, TEXT_NAMES + WRAPPERS)
    else:
        rows, labels = _listed(passages, chosen), None
    seen: set[str] = set()
    read = [read_chosen(row, index, chosen, seen) for index, row in enumerate(rows)]
    if read and isinstance(chosen, Fields) and seen:
        unseen = [name for name in chosen.names if name not in seen]
        if unseen:
            raise InvalidInput(f"no passage has the field {unseen[0]!r} that text= names")
    if labels is not None:
        read = [
            replace(passage, id=plain_id(label)) if passage.id is None else passage
            for passage, label in zip(read, labels, strict=True)
        ]
    return read


def iterate_passages(passages: Any, text: TextField | Chosen = None) -> Iterator[Passage]:
    """`read_passages` one by one, so that an iterable is never held as a whole."""
    chosen = check_text_field(text)
    if is_table(passages) or isinstance(chosen, Fields):
        yield from read_passages(passages, text)
        return
    for index, passage in enumerate(_listed(passages, chosen)):
        yield read_chosen(passage, index, chosen, set())


def read_lists(lists: Any, queries: int, text: TextField | Chosen = None) -> list[list[Passage]]:
    """Read a list of passages for each query; one that is there several times is read once.

    Args:
        lists: as many of what `read_passages` takes as there are queries.
        queries: how many there are.
        text: as for `read_passages`.

    Raises:
        InvalidInput: as `read_passages`, or there are not as many lists as queries.
    """
    if isinstance(lists, (str, bytes, bytearray, Mapping)) or not isinstance(lists, Iterable):
        raise InvalidInput(
            "lists_of_passages must hold one list of passages per query, and is a "
            f"{type(lists).__name__}"
        )
    if is_table(lists) and not is_matrix(lists):
        raise _one_list(type(lists).__name__)
    rows = list(lists)
    single = next((row for row in rows if is_passage(row, text)), None)
    if single is not None:
        raise _one_list(f"list with a single {type(single).__name__} in it")
    if len(rows) != queries:
        raise InvalidInput(
            f"{queries} queries but {len(rows)} lists of passages: pass one per query"
        )
    read: dict[int, list[Passage]] = {}
    for row in rows:
        if id(row) not in read:
            read[id(row)] = read_passages(row, text)
    return [
        [replace(passage, meta=dict(passage.meta)) for passage in read[id(row)]] for row in rows
    ]


def read_pairs(pairs: Any, text: TextField | Chosen = None) -> tuple[list[str], list[Passage]]:
    """Read pairs of a query and a passage: tuples, lists or rows of an array of texts, (n, 2).

    Raises:
        InvalidInput: an entry is not a pair of a str and a passage.
    """
    if is_table(pairs) and not is_matrix(pairs):
        raise InvalidInput(
            "pairs is a table: pass pairs of two of its columns, as zip(queries, passages) makes"
        )
    queries, passages = [], []
    for index, pair in enumerate(pairs.tolist() if is_matrix(pairs) else pairs):
        if not isinstance(pair, (tuple, list)) and not is_matrix(pair, dimensions=1):
            raise InvalidInput(f"pair {index} is not a (query, passage) tuple: {pair!r:.80}")
        if len(pair) != 2:
            raise InvalidInput(f"pair {index} is not a (query, passage) tuple: {pair!r:.80}")
        check_text(f"the query of pair {index}", pair[0])
        queries.append(plain(pair[0]))
        passages.append(pair[1])
    return queries, read_passages(passages, text)


def read_judged(
    queries: list[str], lists: Any, labels: Iterable[Any], text: TextField | Chosen = None
) -> list[tuple[str, list[Passage], NDArray[np.bool_]]]:
    """Read passages with labels: lists of them for each query, or one of each.

    Returns:
        For each query its passages, n of them, and bool, (n,), whether they are relevant.

    Raises:
        InvalidInput: as `read_lists`; a label is not 0 or 1; there are not as many as passages.
    """
    labels = list(labels)
    if labels and all(np.ndim(label) == 0 for label in labels):
        labels = [[label] for label in labels]
        lists = [[passage] for passage in read_passages(lists, text)]
    read = read_lists(lists, len(queries), text)
    if len(labels) != len(queries):
        raise InvalidInput(
            f"{len(queries)} queries but labels for {len(labels)}: pass a list of labels per query"
        )
    judged = []
    for index, (query, passages, row) in enumerate(zip(queries, read, labels, strict=True)):
        values = np.asarray(list(row))
        if len(values) != len(passages):
            raise InvalidInput(
                f"query {index} has {len(passages)} passages but {len(values)} labels"
            )
        other = values[~np.isin(values, (0, 1))]
        if len(other):
            raise InvalidInput(
                f"a label of query {index} is {other.tolist()[0]!r}, and labels are 0 or 1: turn "
                "grades into them, as in grade >= 2"
            )
        judged.append((query, passages, values.astype(bool)))
    return judged


def read_passage(passage: Any, index: int, text: TextField | None = None) -> Passage:
    """Read one passage.

    Args:
        passage: a str; a mapping; an object with attributes (a document of LangChain, LlamaIndex or
            Haystack, a dataclass, a namedtuple, a pydantic model); a pair of a passage and its
            score; or what a search engine wraps one in, such as {"_source": {...}}. A hit keeps its
            id, its metadata and its first index.
        index: its place in the list, for the error.
        text: None for the usual places (text, page_content, content, get_content()); the name of
            the field, a dotted path, a list of these or `Fields`, which are joined, or a function
            that takes the passage.

    Raises:
        InvalidInput: it has no text, the text is not a str, or two fields may be meant.
    """
    return read_chosen(passage, index, check_text_field(text), set())


def is_passage(value: Any, text: TextField | Chosen = None) -> bool:
    """Whether a value is one passage, rather than a list of them; `text` as for `read_passage`."""
    if isinstance(value, (str, bytes, bytearray, Passage, RankedPassage)):
        return True
    if isinstance(value, (list, tuple)) and not is_namedtuple(value):
        return is_scored(value)
    if is_table(value):
        return False
    chosen = check_text_field(text)
    try:
        fields = chosen if isinstance(chosen, Fields) else None
        return find(value, "it", fields, set(), 0) is not None
    except InvalidInput:  # its text is none
        return True


def _listed(passages: Any, chosen: Chosen) -> Iterable[Any]:
    plain_list = isinstance(passages, (list, tuple)) and not is_namedtuple(passages)
    if not plain_list:
        if is_passage(passages):
            raise _single(passages)
        held = held_list(passages)
        if held is not None:
            return _listed(held, chosen)
        if as_mapping(passages) is not None:
            raise _single(passages)
    if not isinstance(passages, Iterable):
        raise InvalidInput(
            f"passages must be a list or another iterable, not {type(passages).__name__}: "
            f"each passage is {ACCEPTED}"
        )
    return passages


def _one_list(kind: str) -> InvalidInput:
    return InvalidInput(
        f"lists_of_passages must hold one list of passages per query, and is a {kind}: wrap it in "
        "a list; [passages] * len(queries) ranks the same for each query"
    )


def _single(passages: Any) -> InvalidInput:
    return InvalidInput(
        f"passages is a single {type(passages).__name__}: wrap it in a list, [passage]"
    )
