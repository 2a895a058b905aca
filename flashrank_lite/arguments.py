"""Checks of single arguments; every complaint names the argument."""

from flashrank_lite.errors import InvalidInput


def positive(name: str, value: int | None) -> int | None:
    """The value, if it is None or a whole number of at least 1.

    Raises:
        InvalidInput: it is neither.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InvalidInput(f"{name} must be a positive whole number or None, not {value!r}")
    return value


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
