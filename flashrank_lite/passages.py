"""What comes in: passages of any common shape. The caller's objects are never changed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from flashrank_lite.errors import InvalidInput
from flashrank_lite.text import plain

ACCEPTED = "a str, a dict with 'text', or an object with .text or .page_content"

_MISSING = object()
_OWN_KEYS = frozenset({"text", "id", "meta"})


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage as read: its text, and the caller's id and metadata (a new dict)."""

    text: str
    id: str | int | None = None
    meta: dict[str, Any] = field(default_factory=dict)


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
        return Passage(plain(passage))
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
    return Passage(plain(text), _id(name), meta)


def _kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


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
        return plain(value)
    return int(value) if hasattr(value, "__index__") else str(value)


def _meta(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    return {"meta": value}
