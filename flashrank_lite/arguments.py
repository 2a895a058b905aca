"""Checks of single arguments; every complaint names the argument."""

from math import isnan
from numbers import Integral, Real
from typing import Any

from flashrank_lite.errors import InvalidInput


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
