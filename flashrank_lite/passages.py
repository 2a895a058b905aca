"""What comes in: passages of any common shape. The caller's objects are never changed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from math import isfinite
from numbers import Real
from typing import Any

from flashrank_lite.errors import InvalidInput
from flashrank_lite.fields import Chosen, Fields, TextField, check_text_field, without
from flashrank_lite.hits import RankedPassage
from flashrank_lite.records import MISSING, Record, as_mapping, is_namedtuple
from flashrank_lite.tables import held_list, is_table, read_table
from flashrank_lite.text import plain

ACCEPTED = "a str, a dict with 'text', or an object with .text or .page_content"

_TEXTS = ("text", "page_content", "content")
_IDS = ("id", "_id", "id_", "doc_id", "node_id")
_METADATA = ("metadata", "meta")  # of two that name the same key, the later wins
_SCORES = ("score", "_score", "relevance_score")
# What search engines and frameworks wrap a passage in: Elasticsearch, Qdrant, LlamaIndex, Cohere,
# Milvus, Weaviate, Vespa; Pinecone keeps the text in the metadata.
_WRAPPERS = (
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
_HIT = frozenset({"text", "score", "logit", "index"})  # the keys of `RankedPassage.to_dict()`
_HIT_FIELDS = _HIT | {"id", "meta", "truncated", "span"}


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage as read.

    Attributes:
        text: its text.
        id: the caller's id.
        meta: the caller's metadata, in a new dict.
        first_stage: the score that it came with, larger is better; None if it had none.
        index: of a hit that is ranked again, its index in the list that was ranked first.
        source: the caller's object.
    """

    text: str
    id: str | int | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    first_stage: float | None = None
    index: int | None = None
    source: Any = field(default=None, repr=False, compare=False)


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
        rows, labels = read_table(passages, chosen, _TEXTS + _WRAPPERS)
    else:
        rows, labels = _listed(passages, chosen), None
    seen: set[str] = set()
    read = [_read_whole(row, index, chosen, seen) for index, row in enumerate(rows)]
    if read and isinstance(chosen, Fields) and seen:
        unseen = [name for name in chosen.names if name not in seen]
        if unseen:
            raise InvalidInput(f"no passage has the field {unseen[0]!r} that text= names")
    if labels is not None:
        read = [
            replace(passage, id=_id(label)) if passage.id is None else passage
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
    return _read_whole(passage, index, check_text_field(text), set())


def is_passage(value: Any) -> bool:
    """Whether a value is one passage, rather than a list of them."""
    if isinstance(value, (str, bytes, bytearray, Passage, RankedPassage)):
        return True
    if isinstance(value, (list, tuple)) and not is_namedtuple(value):
        return _is_scored(value)
    if is_table(value):
        return False
    try:
        return _read(value, "it", None, set(), 0) is not None
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


def _read_whole(passage: Any, index: int, chosen: Chosen, seen: set[str]) -> Passage:
    """A passage whose `source` is what the caller passed, or what that was ranked from."""
    place = f"passage {index}"
    if callable(chosen) and not isinstance(passage, (Passage, RankedPassage)):
        made = _text(chosen(passage), f"what text= returned for {place}")
        record = Record.of(passage)
        found = Passage(made) if record is None else _complete(record, made, record.fields)
    else:
        fields = chosen if isinstance(chosen, Fields) else None
        read = _read(passage, place, fields, seen, 0)
        if read is None:
            raise _no_text(passage, place, fields)
        found = read
    return found if found.source is not None else replace(found, source=passage)


def _read(
    passage: Any, place: str, chosen: Fields | None, seen: set[str], depth: int
) -> Passage | None:
    """None if there is no text in it. `seen` collects the fields that were found."""
    if isinstance(passage, str):
        return Passage(plain(passage))
    if isinstance(passage, Passage):
        return passage
    if isinstance(passage, RankedPassage):
        source = passage if passage.source is None else passage.source
        meta = dict(passage.meta)
        return Passage(passage.text, passage.id, meta, passage.logit, passage.index, source)
    if depth >= _DEEPEST:
        return None
    if _is_scored(passage):
        inner = _read(passage[0], place, chosen, seen, depth + 1)
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
            return _complete(record, chosen.join(texts), rest)
    hit = _read_hit(record)
    if hit is not None:
        return hit
    if chosen is None:
        name, value = _usual_text(record, place)
        if value is not MISSING:
            rest = record.fields if name is None else without(record.fields, name)
            return _complete(record, _text(value, f"the text of {place}"), rest)
    return _unwrap(record, place, chosen, seen, depth)


def _usual_text(record: Record, place: str) -> tuple[str | None, Any]:
    """The name and the value of the text; `text` wins, of others there must be one."""
    found = {name: record.get(name) for name in _TEXTS}
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
    for name in _WRAPPERS:
        value = record.get(name)
        if value is MISSING or (isinstance(value, str) and name != "document"):
            continue
        try:
            inner = _read(value, place, chosen, seen, depth + 1)
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
    outer = _complete(record, inner.text, rest, (held for held in _METADATA if held != name))
    return replace(
        outer,
        id=inner.id if outer.id is None else outer.id,
        meta={**outer.meta, **inner.meta},
        first_stage=inner.first_stage if outer.first_stage is None else outer.first_stage,
        index=inner.index,
    )


def _complete(
    record: Record, text: str, rest: Mapping[Any, Any], metadata: Iterable[str] = _METADATA
) -> Passage:
    """The passage of a text, with the record's id, its score, and the rest as metadata."""
    id_name, name = record.first(_IDS)
    taken = {"id", id_name, *_METADATA}
    meta = {str(key): value for key, value in rest.items() if key not in taken}
    first_stage = None
    for score_name in _SCORES:
        score = record.get(score_name)
        if _is_score(score):
            first_stage = float(score)
            meta.setdefault(score_name, score)
            break
    for held in metadata:
        value = record.get(held)
        if value is MISSING or value is None:
            continue
        mapping = as_mapping(value)
        if mapping is None:
            meta[held] = value
        else:
            meta.update((str(key), item) for key, item in mapping.items())
    return Passage(text, _id(name), meta, first_stage)


def _read_hit(record: Record) -> Passage | None:
    """What `RankedPassage.to_dict()` made, as it comes out of a pipe."""
    fields = record.fields
    if not fields.keys() >= _HIT or not isinstance(fields["text"], str):
        return None
    index, logit = fields["index"], fields["logit"]
    if isinstance(index, bool) or not isinstance(index, int) or not _is_score(logit):
        return None
    meta = {str(key): value for key, value in fields.items() if key not in _HIT_FIELDS}
    given = fields.get("meta")
    meta.update(given if isinstance(given, Mapping) else {})
    return Passage(plain(fields["text"]), _id(fields.get("id")), meta, float(logit), index)


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(
            f"{what} is {_kind(value)}, not a str: convert it, or leave the passage out"
        )
    return plain(value)


def _is_scored(value: Any) -> bool:
    """Whether a value is a (document, score) pair, as vector stores return them."""
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and not is_namedtuple(value)
        and _is_score(value[1])
        and not _is_score(value[0])
    )


def _is_score(value: Any) -> bool:
    return type(value) is not bool and isinstance(value, Real) and isfinite(value)


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
    texts = [key for key, value in fields.items() if isinstance(value, str) and key not in _IDS]
    hint = max(texts, key=lambda key: len(fields[key]), default="body")
    return InvalidInput(
        f"{place} is a {kind} without the key 'text' (its keys: {keys}): put the passage under "
        f"'text', or name its field, as in text={hint!r}"
    )


def _all_fields(record: Record) -> dict[str, Any]:
    """The fields of a record, and by dotted path those of what wraps its passage."""
    fields = {str(key): value for key, value in record.fields.items() if key not in _WRAPPERS}
    for name in _WRAPPERS:
        inner = Record.of(record.get(name))
        if inner is not None:
            fields |= {f"{name}.{key}": value for key, value in inner.fields.items()}
    return fields


def _ambiguous(place: str, names: list[str]) -> InvalidInput:
    listed = " and ".join(repr(name) for name in names)
    return InvalidInput(
        f"{place} has {listed}, and either may be its text: name it, as in text={names[0]!r}"
    )


def _id(value: Any) -> str | int | None:
    if value is None or type(value) in (str, int):
        return value  # type: ignore[no-any-return]
    if isinstance(value, str):
        return plain(value)
    return int(value) if hasattr(value, "__index__") else str(value)
