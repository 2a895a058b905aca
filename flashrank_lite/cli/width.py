"""Text on a terminal: what it may contain and how many columns it takes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_ZERO_WIDTH_JOINER = "\u200d"
_EMOJI_STYLE = "\ufe0f"
_ESCAPE_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movement
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS: titles
    r"|\x1b[ -/]*[0-~]"  # two-character escapes
)
# Formatting characters that reorder what stands around them; the joiners (ZWJ, ZWNJ) stay.
_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """One line, safe to print: no control characters, escape sequences or lone surrogates."""
    return " ".join("".join(map(_printable_char, _ESCAPE_SEQUENCE.sub("", text))).split())


def _printable_char(char: str) -> str:
    if char in _REORDERING:
        return ""
    category = unicodedata.category(char)
    if category == "Cs":
        return "\ufffd"
    if category in ("Zl", "Zp") or char in "\t\n\v\f\r\x85":
        return " "
    return "" if category == "Cc" else char


def columns(text: str) -> int:
    """Columns that ``text`` (printable) takes: wide characters take two, marks none."""
    return sum(width for _, width in _widths(text))


def cut(text: str, room: int, ellipsis: str = "…") -> str:
    """``text``, cut with ``ellipsis`` when it takes more than ``room`` columns."""
    limit = max(room - columns(ellipsis), 0)
    used = end = 0
    for position, width in _widths(text):
        used += width
        if used <= limit:
            end = position + 1
        if used > room:
            return (text[:end] + ellipsis) if room >= columns(ellipsis) else ""
    return text


def _widths(text: str) -> Iterator[tuple[int, int]]:
    """The position of each character and the columns it adds.

    Follows terminals that draw an emoji sequence as one picture: what follows a zero width
    joiner, and a skin tone, adds nothing; the emoji variation selector widens its base to two.
    """
    joined = False
    previous = 0
    for position, char in enumerate(text):
        if joined or ("\U0001f3fb" <= char <= "\U0001f3ff" and previous == 2):
            width = 0
        elif char == _EMOJI_STYLE:
            width = 1 if previous == 1 else 0
        else:
            width = _char_width(char)
        joined = char == _ZERO_WIDTH_JOINER
        previous = width or previous
        yield position, width


def _char_width(char: str) -> int:
    if " " <= char <= "~":
        return 1
    if unicodedata.category(char) in ("Mn", "Me", "Cf", "Cc") or "\u1160" <= char <= "\u11ff":
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
