"""What comes in and what goes out: passages of any common shape, hits that are JSON-clean."""

import re
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from enum import Enum
from itertools import islice
from math import isfinite
from typing import Any

from flashrank_lite.errors import InvalidInput

ACCEPTED = "a str, a dict with 'text', or an object with .text or .page_content"
DEEPEST = 32  # metadata nested further is cut there

_MISSING = object()
_OWN_KEYS = frozenset({"text", "id", "meta"})
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage as read: its text, and the caller's id and metadata (a new dict)."""

    text: str
    id: str | int | None = None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RankedPassage:
    """One hit.

    Attributes:
        text: the passage, as given.
        score: `logit` through the ranker's activation; in [0, 1] with "sigmoid".
        logit: what the model said, unbounded; hits are sorted by it.
        index: position of the passage in the list that was ranked.
        id: the caller's id, if the passage had one.
        meta: the caller's metadata, unchanged values in a new dict.
        truncated: True if the model did not see all of the query or of the passage.
    """

    text: str
    score: float
    logit: float
    index: int
    id: str | int | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    truncated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The hit as plain JSON types: `json.dumps` works on it whatever the metadata holds.

        Numpy scalars become numbers and arrays lists; NaN and infinities None; sets, tuples and
        other collections lists (sets sorted by their text); dates, times and datetimes ISO 8601,
        timedeltas seconds; enum members their value; dataclasses and pydantic models dicts; bytes
        text, with U+FFFD for what is not UTF-8; dictionary keys text; anything else `str(value)`;
        what holds itself or is nested 32 deep "...".
        Lone surrogates in texts become U+FFFD, so that the JSON can be written as UTF-8.
        """
        return {
            "text": well_formed(self.text),
            "score": _json(self.score),
            "logit": _json(self.logit),
            "index": self.index,
            "id": _json(self.id),
            "meta": _json(self.meta),
            "truncated": self.truncated,
        }


def well_formed(text: str) -> str:
    """The text with each lone surrogate, which no UTF-8 can hold, as U+FFFD."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def read_passages(passages: Iterable[Any]) -> list[Passage]:
    """Read every passage of an iterable (a generator is read to its end); nothing is changed.

    Args:
        passages: an iterable of strings, of mappings with `text` (optional `id` and `meta`; other
            keys go to the metadata, where an explicit `meta` wins), or of objects with `.text` or
            `.page_content` (id from .id, .id_, .doc_id or .node_id; metadata from .metadata or
            .meta).

    Raises:
        InvalidInput: not an iterable of passages, or one of them has no text.
    """
    single = isinstance(passages, (str, bytes, bytearray, Mapping)) or (
        not isinstance(passages, (list, tuple)) and _text_attribute(passages) is not _MISSING
    )
    if single:
        raise InvalidInput(
            f"passages is a single {type(passages).__name__}: wrap it in a list, [passage]"
        )
    if not isinstance(passages, Iterable):
        raise InvalidInput(
            f"passages must be a list or another iterable, not {type(passages).__name__}: "
            f"each passage is {ACCEPTED}"
        )
    return [read_passage(passage, index) for index, passage in enumerate(passages)]


def read_passage(passage: Any, index: int) -> Passage:
    """Read one passage; `index` is its place in the list, for the error.

    Raises:
        InvalidInput: it has no text, or the text is not a str.
    """
    if isinstance(passage, str):
        return Passage(_plain(passage))
    if isinstance(passage, Mapping):
        if "text" not in passage:
            keys = ", ".join(repr(key) for key in islice(passage, 8)) or "none"
            raise InvalidInput(
                f"passage {index} is a {type(passage).__name__} without the key 'text' "
                f"(its keys: {keys}): put the passage under 'text'"
            )
        text = passage["text"]
        name = passage.get("id")
        meta = {str(key): value for key, value in passage.items() if key not in _OWN_KEYS}
        meta.update(_meta(passage.get("meta")))
    else:
        text = _text_attribute(passage)
        if text is _MISSING:
            raise InvalidInput(f"passage {index} is {_kind(passage)}: a passage is {ACCEPTED}")
        name = _first_attribute(passage, ("id", "id_", "doc_id", "node_id"))
        meta = _meta(_first_attribute(passage, ("metadata", "meta")))
    if not isinstance(text, str):
        raise InvalidInput(
            f"the text of passage {index} is {_kind(text)}, not a str: "
            "convert it, or leave the passage out"
        )
    return Passage(_plain(text), _id(name), meta)


def _kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


def _plain(text: str) -> str:
    """A subclass of str (numpy's, for one) as the str it holds."""
    return text if type(text) is str else str.__str__(text)


def _text_attribute(passage: object) -> Any:
    text = getattr(passage, "text", _MISSING)
    return getattr(passage, "page_content", _MISSING) if text is _MISSING else text


def _first_attribute(passage: object, names: tuple[str, ...]) -> Any:
    values = (getattr(passage, name, None) for name in names)
    return next((value for value in values if value is not None), None)


def _id(value: Any) -> str | int | None:
    if value is None or type(value) in (str, int):
        return value  # type: ignore[no-any-return]
    if isinstance(value, str):
        return _plain(value)
    return int(value) if hasattr(value, "__index__") else str(value)


def _meta(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    return {"meta": value}


def _json(value: Any, above: tuple[int, ...] = ()) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _json(value.value, above)
    if isinstance(value, str):
        return well_formed(_plain(value))
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if isfinite(value) else None
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "replace")
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if id(value) in above or len(above) >= DEEPEST:
        return "..."
    above = (*above, id(value))
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # numpy, which we need not import
        return _json(value.tolist(), above)
    if is_dataclass(value) and not isinstance(value, type):
        value = {entry.name: getattr(value, entry.name) for entry in fields(value)}
    elif callable(getattr(value, "model_dump", None)) and not isinstance(value, type):
        value = value.model_dump()
    if isinstance(value, Mapping):
        return {well_formed(str(key)): _json(item, above) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted((_json(item, above) for item in value), key=str)
    if isinstance(value, Collection):
        return [_json(item, above) for item in value]
    try:
        return well_formed(str(value))
    except Exception:  # an object whose own text fails is no reason to lose the hits
        return f"<{type(value).__name__}>"
