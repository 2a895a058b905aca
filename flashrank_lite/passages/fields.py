"""Which part of a passage is its text: the `text=` argument of `Ranker`, checked once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flashrank_lite.errors import InvalidInput
from flashrank_lite.passages.records import MISSING, Record, as_mapping


@dataclass(frozen=True)
class Fields:
    """Fields of a passage whose texts are joined.

    Attributes:
        names: keys, attributes or dotted paths, in the order of the text; what a passage lacks, or
            has as None or as an empty text, is left out.
        separator: what stands between two.
    """

    names: tuple[str, ...]
    separator: str = "\n"

    def __post_init__(self) -> None:
        names: Any = self.names
        if isinstance(names, str) or not names or not all(isinstance(n, str) and n for n in names):
            raise InvalidInput(f"text names no fields: {names!r}; as in text=['title', 'body']")
        object.__setattr__(self, "names", tuple(names))

    def read(self, record: Record) -> dict[str, Any]:
        """The fields that a record has, by name."""
        found = {name: _resolve(record, name) for name in self.names}
        return {name: value for name, value in found.items() if value is not MISSING}

    def join(self, values: Iterator[str]) -> str:
        """One text out of the texts of the fields."""
        return self.separator.join(value for value in values if value)


TextField = str | Sequence[str] | Fields | Callable[[Any], str]
Chosen = Fields | Callable[[Any], str] | None


def check_text_field(text: TextField | Chosen) -> Chosen:
    """The argument `text` as fields to read or a function to call; None for the usual places.

    Raises:
        InvalidInput: it is none of these.
    """
    if text is None or isinstance(text, Fields):
        return text
    if isinstance(text, str):
        return Fields((text,))
    if isinstance(text, Sequence):
        return Fields(tuple(text))
    if callable(text):
        return text
    raise InvalidInput(
        "text must be the name of a field, a dotted path, a list of these or a function that "
        f"takes a passage, not {type(text).__name__}"
    )


def without(fields: Mapping[Any, Any], path: str) -> dict[Any, Any]:
    """The fields but for the one at a name or dotted path; nested mappings on the way are new."""
    if path in fields:
        return {key: value for key, value in fields.items() if key != path}
    head, _, rest = path.partition(".")
    inner = fields.get(head)
    if not rest or not isinstance(inner, Mapping):
        return dict(fields)
    return {**fields, head: without(inner, rest)}


def _resolve(record: Record, name: str) -> Any:
    """The value at a name or dotted path: of mappings, objects and (by number) of lists."""
    value = record.get(name)
    if value is not MISSING or "." not in name:
        return value
    head, *path = name.split(".")
    value = record.get(head)
    for step in path:
        value = _step(value, step)
        if value is MISSING:
            return MISSING
    return value


def _step(value: Any, name: str) -> Any:
    if isinstance(value, (list, tuple)) and name.isdigit():
        return value[int(name)] if int(name) < len(value) else MISSING
    mapping = as_mapping(value)
    if mapping is not None:
        return mapping.get(name, MISSING)
    record = Record.of(value)
    return MISSING if record is None else record.get(name)
