"""All passages of what the caller passes: a list, another iterable, a table, a search's answer."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

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
from flashrank_lite.passages.tables import held_list, is_table, read_table


def read_passages(passages: Any, text: TextField | None = None) -> list[Passage]:
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


def is_passage(value: Any, text: TextField | None = None) -> bool:
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


def _single(passages: Any) -> InvalidInput:
    return InvalidInput(
        f"passages is a single {type(passages).__name__}: wrap it in a list, [passage]"
    )
