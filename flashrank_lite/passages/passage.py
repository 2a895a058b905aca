"""One passage as the caller described it: its id, its metadata and its first-stage score."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from numbers import Real
from typing import Any

from flashrank_lite.hits import RankedPassage
from flashrank_lite.passages.records import MISSING, Record, as_mapping
from flashrank_lite.text import plain

ID_NAMES = ("id", "_id", "id_", "doc_id", "node_id")
METADATA = ("metadata", "meta")  # of two that name the same key, the later wins
_SCORES = ("score", "_score", "relevance_score")
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


def of_hit(hit: RankedPassage) -> Passage:
    """A hit that is ranked again, with the object that it was first read from."""
    source = hit if hit.source is None else hit.source
    return Passage(hit.text, hit.id, dict(hit.meta), hit.logit, hit.index, source)


def complete(
    record: Record, text: str, rest: Mapping[Any, Any], metadata: Iterable[str] = METADATA
) -> Passage:
    """The passage of a text, with the record's id, its score, and the rest as metadata."""
    id_name, name = record.first(ID_NAMES)
    taken = {"id", id_name, *METADATA}
    meta = {str(key): value for key, value in rest.items() if key not in taken}
    first_stage = None
    for score_name in _SCORES:
        score = record.get(score_name)
        if is_score(score):
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
    return Passage(text, plain_id(name), meta, first_stage)


def of_hit_fields(record: Record) -> Passage | None:
    """What `RankedPassage.to_dict()` made, as it comes out of a pipe."""
    fields = record.fields
    if not fields.keys() >= _HIT or not isinstance(fields["text"], str):
        return None
    index, logit = fields["index"], fields["logit"]
    if isinstance(index, bool) or not isinstance(index, int) or not is_score(logit):
        return None
    meta = {str(key): value for key, value in fields.items() if key not in _HIT_FIELDS}
    given = fields.get("meta")
    meta.update(given if isinstance(given, Mapping) else {})
    return Passage(plain(fields["text"]), plain_id(fields.get("id")), meta, float(logit), index)


def is_score(value: Any) -> bool:
    """Whether a value is a finite number, be it numpy's."""
    return type(value) is not bool and isinstance(value, Real) and isfinite(value)


def plain_id(value: Any) -> str | int | None:
    """An id as a str or an int; None stays None."""
    if value is None or type(value) in (str, int):
        return value  # type: ignore[no-any-return]
    if isinstance(value, str):
        return plain(value)
    return int(value) if hasattr(value, "__index__") else str(value)
