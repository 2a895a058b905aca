"""Any object as named fields, so that a dict, a dataclass and a library's document read alike.

No library is imported for this: what an object offers says what it is.
"""

from collections.abc import Iterable, Mapping
from typing import Any

MISSING: Any = object()

# Their documents keep what is the user's in `metadata`, `meta` or `payload`; their other fields
# (templates, relationships, embeddings) are machinery. `hit.source` has them all.
_LIBRARIES = frozenset({"haystack", "langchain_core", "llama_index", "qdrant_client"})
_VALUES = (str, bytes, bytearray, int, float, complex, list, set, frozenset, type, type(None))


class Record:
    """The named fields of one object.

    Attributes:
        fields: what is metadata unless it is the text or the id: a mapping's items; an object's
            public attributes, be it a dataclass, a namedtuple, a pydantic model or of slots.
    """

    __slots__ = ("_object", "fields")

    def __init__(self, fields: Mapping[Any, Any], from_object: object = None) -> None:
        self.fields = fields
        self._object = from_object

    @classmethod
    def of(cls, value: Any) -> "Record | None":
        """The record of a value; None for one without named fields, as text and numbers are."""
        if isinstance(value, Mapping):
            return cls(value)
        if isinstance(value, _VALUES):
            return None
        if isinstance(value, tuple) and not is_namedtuple(value):
            return None
        mapping = as_mapping(value)
        if mapping is not None:
            return cls(mapping)
        names = dict.fromkeys(_names(value))
        found = {name: _attribute(value, name) for name in names}
        return cls({name: item for name, item in found.items() if item is not MISSING}, value)

    def get(self, name: str) -> Any:
        """A field or a property by its name; MISSING if there is none."""
        if name in self.fields:
            return self.fields[name]
        if self._object is None:
            return MISSING
        value = _attribute(self._object, name)
        return MISSING if callable(value) else value

    def content(self) -> Any:
        """What `get_content()` returns, as LlamaIndex's nodes have it; MISSING without it."""
        method = _attribute(self._object, "get_content")
        return method() if callable(method) else MISSING

    def first(self, names: Iterable[str]) -> tuple[str | None, Any]:
        """The first of the names that has a value other than None, and the value."""
        for name in names:
            value = self.get(name)
            if value is not MISSING and value is not None:
                return name, value
        return None, None


def as_mapping(value: Any) -> Mapping[Any, Any] | None:
    """A mapping, or what has keys as one (a database row, a search client's response) as a dict."""
    if isinstance(value, Mapping):
        return value
    if not hasattr(type(value), "__getitem__"):
        return None
    keys = _attribute(value, "keys")
    if not callable(keys):
        return None
    return {key: value[key] for key in keys()}


def is_namedtuple(value: object) -> bool:
    """Whether a value is a tuple whose items have names."""
    return isinstance(value, tuple) and isinstance(getattr(value, "_fields", None), tuple)


def _names(value: Any) -> list[str]:
    kinds = type(value).__mro__
    if any(kind.__module__.partition(".")[0] in _LIBRARIES for kind in kinds):
        return []
    declared: list[str] = list(getattr(value, "_fields", ())) if is_namedtuple(value) else []
    for kind in reversed(kinds):
        slots = vars(kind).get("__slots__", ())
        declared += [slots] if isinstance(slots, str) else slots
    declared += getattr(value, "__dict__", ())
    declared += _extra(value)
    return [name for name in declared if not name.startswith("_")]


def _extra(value: Any) -> Iterable[str]:
    extra = _attribute(value, "model_extra")  # of a pydantic model that allows any field
    return extra if isinstance(extra, dict) else ()


def _attribute(value: Any, name: str) -> Any:
    try:
        return getattr(value, name, MISSING)
    except Exception:  # a property that fails is one that the object does not have
        return MISSING
