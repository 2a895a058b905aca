"""Hits and facts → the terminal or the pipe."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TextIO

from flashrank_lite.cli.width import columns, cut, printable
from flashrank_lite.hits import RankedPassage

_BAR_ROOM = 10  # columns
_LEAST_TEXT = 20  # columns the text keeps on a narrow terminal; the bar goes first
_TEXT_READ = 4096  # characters of a passage that are looked at: more than any terminal is wide
_PIPE_WIDTH = 100  # columns of a table that goes to a file
_EIGHTHS = " ▏▎▍▌▋▊▉"
_UNICODE_SIGNS = "█▏▎▍▌▋▊▉▲▼…·"

_BOLD, _DIM, _GREEN, _RED, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m"


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

    def write(self, line: str) -> None:
        """Write one line, what the encoding lacks as ``?``."""
        encoding = self.stream.encoding or "utf-8"
        self.stream.write(line.encode(encoding, "replace").decode(encoding) + "\n")

    def paint(self, style: str, text: str) -> str:
        return f"{style}{text}{_PLAIN}" if self.colour and text else text


def write_json(value: Any, screen: Screen, lines: bool) -> None:
    """Write ``value`` as JSON, or each of its items as one line of JSON."""
    for item in value if lines else (value,):
        text = json.dumps(item, ensure_ascii=False, indent=None if lines else 2)
        if not _can_encode(text, screen.stream):
            text = json.dumps(item, indent=None if lines else 2)
        screen.stream.write(text + "\n")


def write_table(hits: Sequence[RankedPassage], ranked: int, limit: int, screen: Screen) -> None:
    """Write hits as a table: rank, score, bar, places moved against the input order, text.

    Args:
        hits: best first.
        ranked: how many passages were ranked (``hits`` may hold fewer).
        limit: tokens that the model sees of a pair, for the line about truncation.
        screen: where to write.
    """
    if not ranked:
        screen.write("no passages to rank")
        return
    scores = [hit.score for hit in hits]
    labels = [f"{score:.3f}" for score in scores]
    moves = [_move(hit.index - place, screen) for place, hit in enumerate(hits)]
    rank_room = max(len("rank"), len(str(len(hits))))
    score_room = max(len("score"), *map(len, labels))
    move_room = max(len("moved"), *(columns(sign) for sign, _ in moves))
    text_room = screen.width - (rank_room + score_room + move_room + 6)
    bars = text_room - _BAR_ROOM - 2 >= _LEAST_TEXT
    if bars:
        text_room -= _BAR_ROOM + 2
    fills = _fills(scores)

    head = [f"{'rank':>{rank_room}}", f"{'score':>{score_room}}"]
    head += [" " * _BAR_ROOM] if bars else []
    head += [f"{'moved':>{move_room}}", "passage"]
    screen.write(screen.paint(_DIM, "  ".join(head)))
    for place, hit in enumerate(hits):
        sign, style = moves[place]
        row = [f"{place + 1:>{rank_room}}", screen.paint(_BOLD, f"{labels[place]:>{score_room}}")]
        row += [_bar(fills[place], screen)] if bars else []
        row += [" " * (move_room - columns(sign)) + screen.paint(style, sign)]
        row += [cut(printable(hit.text[:_TEXT_READ]), text_room, "…" if screen.unicode else "...")]
        screen.write("  ".join(row).rstrip())
    _write_summary(hits, ranked, limit, screen)


def _write_summary(hits: Sequence[RankedPassage], ranked: int, limit: int, screen: Screen) -> None:
    parts = [f"{ranked} passages" if ranked != 1 else "1 passage"]
    if len(hits) < ranked:
        parts.append(f"the {len(hits)} best shown")
    truncated = sum(hit.truncated for hit in hits)
    if truncated:
        parts.append(f"{truncated} of those shown cut to {limit} tokens before scoring")
    screen.write(screen.paint(_DIM, f"({'; '.join(parts)})"))


def _move(places: int, screen: Screen) -> tuple[str, str]:
    up, down, same = "▲▼·" if screen.unicode else "+-="
    if not places:
        return same, _DIM
    gap = " " if screen.unicode else ""
    return (f"{up}{gap}{places}", _GREEN) if places > 0 else (f"{down}{gap}{-places}", _RED)


def _fills(scores: Sequence[float]) -> list[float]:
    """How full each bar is: the score itself in [0, 1], its place between the ends otherwise."""
    low, high = min(scores), max(scores)
    if low >= 0 and high <= 1:
        return list(scores)
    return [(score - low) / (high - low) if high > low else 1.0 for score in scores]


def _bar(fill: float, screen: Screen) -> str:
    if not screen.unicode:
        return f"{'#' * round(fill * _BAR_ROOM):<{_BAR_ROOM}}"
    eighths = round(fill * _BAR_ROOM * 8)
    return f"{'█' * (eighths // 8) + _EIGHTHS[eighths % 8].strip():<{_BAR_ROOM}}"


def write_facts(facts: Mapping[str, Any], screen: Screen) -> None:
    """Write a mapping as aligned lines, one fact each; a mapping inside it follows indented."""
    for name, value in _flat(facts):
        screen.write(f"{screen.paint(_BOLD, f'{name:<18}')} {printable(value)}")


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


def versions() -> dict[str, str]:
    """The versions of what a score depends on, beside our own."""
    found = {}
    for name in ("onnxruntime", "tokenizers", "numpy", "huggingface-hub"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    found["python"] = platform.python_version()
    found["platform"] = platform.platform()
    return found


def _can_encode(text: str, stream: TextIO) -> bool:
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
