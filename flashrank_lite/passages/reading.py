"""Finds the text of one passage, whatever its shape."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from flashrank_lite.errors import InvalidInput
from flashrank_lite.hits import RankedPassage
from flashrank_lite.passages.fields import Chosen, Fields, without
from flashrank_lite.passages.passage import (
    ID_NAMES,
    METADATA,
    Passage,
    complete,
    is_score,
    of_hit,
    of_hit_fields,
)
from flashrank_lite.passages.records import MISSING, Record, is_namedtuple
from flashrank_lite.text import plain

ACCEPTED = "a str, a dict with 'text', or an object with .text or .page_content"

TEXT_NAMES = ("text", "page_content", "content")
# What search engines and frameworks wrap a passage in: Elasticsearch, Qdrant, LlamaIndex, Cohere,
# Milvus, Weaviate, Vespa; Pinecone keeps the text in the metadata.
WRAPPERS = (
    "_source",
    "payload",
    "node",
    "document",
    "entity",
    "properties",
    "fields",
    "metadata",
    "meta",
)
_DEEPEST = 4  # wrappers in wrappers: (document, score) of a hit of a point


def read_chosen(passage: Any, index: int, chosen: Chosen, seen: set[str]) -> Passage:
    """A passage whose `source` is what the caller passed, or what that was ranked from."""
    place = f"passage {index}"
    if callable(chosen) and not isinstance(passage, (Passage, RankedPassage)):
        made = _text(chosen(passage), f"what text= returned for {place}")
        record = Record.of(passage)
        found = Passage(made) if record is None else complete(record, made, record.fields)
    else:
        fields = chosen if isinstance(chosen, Fields) else None
        read = find(passage, place, fields, seen, 0)
        if read is None:
            raise _no_text(passage, place, fields)
        found = read
    return found if found.source is not None else replace(found, source=passage)


def is_scored(value: Any) -> bool:
    """Whether a value is a (document, score) pair, as vector stores return them."""
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and not is_namedtuple(value)
        and is_score(value[1])
        and not is_score(value[0])
    )


def find(
    passage: Any, place: str, chosen: Fields | None, seen: set[str], depth: int
) -> Passage | None:
    """Read a passage, or what wraps one.

    Args:
        passage: the caller's object.
        place: what to call it in an error.
        chosen: the fields that its text is made of; None for the usual places.
        seen: collects the names of the fields that were found.
        depth: wrappers that it was found in.

    Returns:
        The passage, without a source unless it is a hit's; None if there is no text.
    """
    if isinstance(passage, str):
        return Passage(plain(passage))
    if isinstance(passage, Passage):
        return passage
    if isinstance(passage, RankedPassage):
        return of_hit(passage)
    if depth >= _DEEPEST:
        return None
    if is_scored(passage):
        inner = find(passage[0], place, chosen, seen, depth + 1)
        if inner is None:
            return None
        meta = {"score": passage[1], **inner.meta}
        return replace(inner, meta=meta, first_stage=float(passage[1]), source=None)
    record = Record.of(passage)
    if record is None:
        return None
    if chosen is not None:
        values = chosen.read(record)
        if values:
            seen.update(values)
            texts = (
                _text(value, f"the field {name!r} of {place}")
                for name, value in values.items()
                if value is not None or len(chosen.names) == 1
            )
            rest = record.fields
            if len(chosen.names) == 1:
                rest = without(rest, chosen.names[0])
            return complete(record, chosen.join(texts), rest)
    hit = of_hit_fields(record)
    if hit is not None:
        return hit
    if chosen is None:
        name, value = _usual_text(record, place)
        if value is not MISSING:
            rest = record.fields if name is None else without(record.fields, name)
            return complete(record, _text(value, f"the text of {place}"), rest)
    return _unwrap(record, place, chosen, seen, depth)


def _usual_text(record: Record, place: str) -> tuple[str | None, Any]:
    """The name and the value of the text; `text` wins, of others there must be one."""
    found = {name: record.get(name) for name in TEXT_NAMES}
    found = {name: value for name, value in found.items() if value is not MISSING}
    if "text" in found:
        return "text", found["text"]
    if not found:
        return None, record.content()
    values = {name: value for name, value in found.items() if value is not None} or found
    name, value = next(iter(values.items()))
    if any(other != value for other in values.values()):
        raise _ambiguous(place, list(values))
    return name, value


def _unwrap(
    record: Record, place: str, chosen: Fields | None, seen: set[str], depth: int
) -> Passage | None:
    """The passage that a search engine's hit, or a scored node, holds in one of its fields."""
    found: dict[str, Passage] = {}
    failure: InvalidInput | None = None
    for name in WRAPPERS:
        value = record.get(name)
        if value is MISSING or (isinstance(value, str) and name != "document"):
            continue
        try:
            inner = find(value, place, chosen, seen, depth + 1)
        except InvalidInput as error:
            failure = error
            continue
        if inner is not None:
            found[name] = inner
    if not found:
        if failure is not None:
            raise failure
        return None
    name, inner = next(iter(found.items()))
    if any(other.text != inner.text for other in found.values()):
        listed = " and in ".join(map(repr, found))
        raise InvalidInput(f"{place} has a text in {listed}: name the one that is meant by text=")
    rest = {key: value for key, value in record.fields.items() if key != name}
    outer = complete(record, inner.text, rest, (held for held in METADATA if held != name))
    return replace(
        outer,
        id=inner.id if outer.id is None else outer.id,
        meta={**outer.meta, **inner.meta},
        first_stage=inner.first_stage if outer.first_stage is None else outer.first_stage,
        index=inner.index,
    )


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(
            f"{what} is {_kind(value)}, not a str: convert it, or leave the passage out"
        )
    return plain(value)


def _kind(value: object) -> str:
    if value is None:
        return "None"
    missing = isinstance(value, float) and value != value
    return f"of type {type(value).__name__}" + (" (nan, a missing value)" if missing else "")


def _no_text(passage: Any, place: str, chosen: Fields | None) -> InvalidInput:
    record = Record.of(passage)
    fields = {} if record is None else _all_fields(record)
    kind = type(passage).__name__
    if not fields and not isinstance(passage, Mapping):
        return InvalidInput(f"{place} is {_kind(passage)}: a passage is {ACCEPTED}")
    keys = ", ".join(repr(key) for key in islice(fields, 8)) or "none"
    if chosen is not None:
        wanted = " or ".join(repr(name) for name in chosen.names)
        return InvalidInput(f"{place} is a {kind} without {wanted} (its keys: {keys})")
    texts = [key for key, value in fields.items() if isinstance(value, str) and key not in ID_NAMES]
    hint = max(texts, key=lambda key: len(fields[key]), default="body")
    return InvalidInput(
        f"{place} is a {kind} without the key 'text' (its keys: {keys}): put the passage under "
        f"'text', or name its field, as in text={hint!r}"
    )


def _all_fields(record: Record) -> dict[str, Any]:
    """The fields of a record, and by dotted path those of what wraps its passage."""
    fields = {str(key): value for key, value in record.fields.items() if key not in WRAPPERS}
    for name in WRAPPERS:
        inner = Record.of(record.get(name))
        if inner is not None:
            fields |= {f"{name}.{key}": value for key, value in inner.fields.items()}
    return fields


def _ambiguous(place: str, names: list[str]) -> InvalidInput:
    listed = " and ".join(repr(name) for name in names)
    return InvalidInput(
        f"{place} has {listed}, and either may be its text: name it, as in text={names[0]!r}"
    )
