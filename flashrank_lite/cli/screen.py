"""Where the answer goes: what standard output can show, JSON and facts written to it."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

_PIPE_WIDTH = 100  # columns of a table that goes to a file
_UNICODE_SIGNS = "█▏▎▍▌▋▊▉▲▼…·"
_ESCAPE_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movement
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS: titles
    r"|\x1b[ -/]*[0-~]"  # two-character escapes
)
# Formatting characters that reorder what stands around them; the joiners (ZWJ, ZWNJ) stay.
_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True)
class Screen:
    """Where the answer goes and what may be drawn there."""

    stream: TextIO
    terminal: bool
    width: int
    colour: bool
    unicode: bool

    @classmethod
    def of_stdout(cls) -> Screen:
        """Standard output as it is now; NO_COLOR and TERM=dumb turn colours off.

        Raises:
            OSError: standard output is closed.
        """
        stream = sys.stdout
        if stream is None:
            raise OSError("standard output is closed")
        terminal = stream.isatty()
        wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return cls(
            stream,
            terminal,
            shutil.get_terminal_size((_PIPE_WIDTH, 24)).columns,
            terminal and wanted,
            _can_encode(_UNICODE_SIGNS, stream),
        )

    def choose(self, wanted: str | None, on_terminal: str, in_pipe: str) -> str:
        """The format to write: what the user wants, or else what suits."""
        return wanted or (on_terminal if self.terminal else in_pipe)

    def write(self, line: str) -> None:
        """Write one line, what the encoding lacks as `?`."""
        encoding = self.stream.encoding or "utf-8"
        self.stream.write(line.encode(encoding, "replace").decode(encoding) + "\n")

    def paint(self, style: str, text: str) -> str:
        """The text between an escape sequence and its end, where colours are wanted."""
        return f"\x1b[{style}m{text}\x1b[0m" if self.colour and text else text


BOLD, DIM = "1", "2"  # styles for `Screen.paint`


def printable(text: str) -> str:
    """One line, safe to print: no control characters, escape sequences or lone surrogates."""
    return " ".join("".join(map(_printable_char, _ESCAPE_SEQUENCE.sub("", text))).split())


def write_json(value: Any, screen: Screen, lines: bool) -> None:
    """Write `value` as JSON, or each of its items as one line of JSON."""
    for item in value if lines else (value,):
        text = json.dumps(item, ensure_ascii=False, indent=None if lines else 2)
        if not _can_encode(text, screen.stream):
            text = json.dumps(item, indent=None if lines else 2)
        screen.stream.write(text + "\n")


def write_facts(facts: Mapping[str, Any], screen: Screen) -> None:
    """Write a mapping as aligned lines, one fact each; a mapping inside it follows indented."""
    for name, value in _flat(facts):
        screen.write(f"{screen.paint(BOLD, f'{name:<18}')} {printable(value)}".rstrip())


def _flat(facts: Mapping[str, Any], indent: str = "") -> Iterable[tuple[str, str]]:
    for name, value in facts.items():
        label = indent + name.replace("_", " ")
        if isinstance(value, Mapping):
            yield label, ""
            yield from _flat(value, indent + "  ")
        elif isinstance(value, (list, tuple)):
            yield label, ", ".join(map(str, value))
        else:
            words = {True: "yes", False: "no", None: "none"}
            yield label, words[value] if value is None or isinstance(value, bool) else str(value)


def _printable_char(char: str) -> str:
    if char in _REORDERING:
        return ""
    category = unicodedata.category(char)
    if category == "Cs":
        return "\ufffd"
    if category in ("Zl", "Zp") or char in "\t\n\v\f\r\x85":
        return " "
    return "" if category == "Cc" else char


def _can_encode(text: str, stream: TextIO) -> bool:
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
