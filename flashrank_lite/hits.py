"""What goes out: hits, which become plain JSON types whatever the metadata holds."""

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from enum import Enum
from math import isfinite
from typing import Any

from flashrank_lite.text import plain, well_formed

DEEPEST = 32  # metadata nested further is cut there


@dataclass(frozen=True, slots=True)
class RankedPassage:
    """One hit.

    Attributes:
        text: the passage, as given.
        score: `logit` through the ranker's activation; in [0, 1] with "sigmoid". With fusion the
            blend instead.
        logit: what the model said, unbounded; hits are sorted by it, or by the blend. Those that
            the second model of a cascade read come before the others.
        index: position of the passage in the list that was ranked; of a hit that was ranked again,
            in the list that was ranked first.
        id: the caller's id, if the passage had one.
        meta: the caller's metadata, unchanged values in a new dict.
        truncated: True if the model did not see all of the query or of the passage.
        span: start and end of the best window in characters of the passage, which is all of a
            passage that was read in one piece; None with long="truncate".
        source: the caller's object that the passage was read from, a row of a table as a dict; not
            in `to_dict()`.
    """

    text: str
    score: float
    logit: float
    index: int
    id: str | int | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    truncated: bool = False
    span: tuple[int, int] | None = None
    source: Any = field(default=None, repr=False, compare=False)

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
            "span": None if self.span is None else list(self.span),
        }


def _json(value: Any, above: tuple[int, ...] = ()) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _json(value.value, above)
    if isinstance(value, str):
        return well_formed(plain(value))
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
