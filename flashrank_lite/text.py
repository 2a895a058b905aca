"""What every text goes through: no lone surrogates, no subclasses of str."""

import re

_SURROGATE = re.compile("[\ud800-\udfff]")


def well_formed(text: str) -> str:
    """The text with each lone surrogate, which no UTF-8 can hold, as U+FFFD."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def plain(text: str) -> str:
    """A subclass of str (numpy's, for one) as the str it holds."""
    return text if type(text) is str else str.__str__(text)
