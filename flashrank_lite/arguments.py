"""Checks of single arguments; every complaint names the argument."""

import re
from math import isnan
from numbers import Integral, Real
from typing import Any

from flashrank_lite.errors import InvalidInput

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?B)", re.IGNORECASE)
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def positive(name: str, value: int | None) -> int | None:
    """The value as an int, if it is None or a whole number of at least 1, be it numpy's.

    Raises:
        InvalidInput: it is neither.
    """
    given: Any = value
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, Integral) or given < 1:
        raise InvalidInput(f"{name} must be a positive whole number or None, not {value!r}")
    return int(given)


def number(name: str, value: float | None) -> float | None:
    """The value as a float, if it is None or a number, be it numpy's.

    Raises:
        InvalidInput: it is neither.
    """
    given: Any = value
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, Real) or isnan(given):
        raise InvalidInput(f"{name} must be a number or None, not {value!r}")
    return float(given)


def byte_count(name: str, value: int | str | None) -> int | None:
    """Bytes out of a whole number of them, or of a text such as "64MB"; None stays None.

    Raises:
        InvalidInput: it is neither, or not at least 1.
    """
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is not None:
        value = int(float(found[1]) * _UNITS[found[2].upper()])
    if value is None or (type(value) is int and value > 0):
        return value
    raise InvalidInput(f'{name} must be a number of bytes, as 64_000_000 or "64MB", not {value!r}')


def required(name: str, value: int) -> int:
    """The value, if it is a whole number of at least 1.

    Raises:
        InvalidInput: it is not.
    """
    checked = positive(name, value)
    if checked is None:
        raise InvalidInput(f"{name} must be a positive whole number, not None")
    return checked


def check_text(name: str, value: object) -> None:
    """Raises InvalidInput if the value is no str."""
    if not isinstance(value, str):
        raise InvalidInput(f"{name} must be a str, not {type(value).__name__}")
