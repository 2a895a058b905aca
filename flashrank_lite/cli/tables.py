"""Rows → aligned columns that fit the terminal.

How many columns a character takes comes from rich where it is installed (`flashrank-lite[cli]`):
only `rich.cells` is imported, in 23 ms of processor time; `rich.table` takes 71 and cannot drop
columns by importance. Without rich each character counts as one, which is right for all but wide
scripts and emoji.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flashrank_lite.cli.screen import DIM, Screen, printable

_GAP = 2  # columns between two
_LEAST_REST = 20  # columns that the cut column keeps, before others are dropped
_READ = 4096  # characters of a cell that are looked at: more than any terminal is wide


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        head: its heading.
        right: whether cells are aligned to the right.
        most: columns of the terminal that it may take; None for what its cells need.
        rest: whether it is cut to what the others leave.
        drop: of the columns that may go where the terminal is narrow, the highest goes first; 0
            for one that stays.
    """

    head: str
    right: bool = False
    most: int | None = None
    rest: bool = False
    drop: int = 0


@dataclass(frozen=True)
class Cell:
    """The text of a cell, and a style for `Screen.paint`."""

    text: str
    style: str = ""


def write_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], screen: Screen) -> None:
    """Write rows below their headings, no line wider than the screen if that can be."""
    measure = _measure()
    head = [Cell(column.head, DIM) for column in columns]
    lines = [head, *([Cell(_shown(cell.text), cell.style) for cell in row] for row in rows)]
    widths = _widths(columns, lines, screen.width, measure)
    for line in lines:
        cells = []
        for column, width, cell in zip(columns, widths, line, strict=True):
            if width is not None:
                text = cut(cell.text, width, screen, measure)
                pad = " " * (width - measure(text))
                painted = screen.paint(cell.style, text) if cell.style else text
                cells.append(pad + painted if column.right else painted + pad)
        screen.write((" " * _GAP).join(cells).rstrip())


def cut(text: str, room: int, screen: Screen, measure: Callable[[str], int] | None = None) -> str:
    """The text, cut with an ellipsis where it takes more than `room` columns."""
    measure = measure or _measure()
    if measure(text) <= room:
        return text
    ellipsis = "…" if screen.unicode else "..."
    left = room - len(ellipsis)
    if left < 0:
        return ""
    end = left  # in characters, each at least as wide as none and mostly one
    while measure(text[:end]) > left:
        end -= 1
    while end < len(text) and measure(text[: end + 1]) <= left:
        end += 1
    return text[:end] + ellipsis


def _measure() -> Callable[[str], int]:
    """What tells how many columns a text takes."""
    try:
        from rich.cells import cell_len
    except ImportError:
        return len
    return cell_len


def _shown(text: str) -> str:
    return printable(text[:_READ])


def _widths(
    columns: Sequence[Column],
    lines: Sequence[Sequence[Cell]],
    room: int,
    measure: Callable[[str], int],
) -> list[int | None]:
    """The width of each column, None for one that is left out."""
    widths: list[int | None] = []
    for place, column in enumerate(columns):
        needed = max(measure(line[place].text) for line in lines)
        widths.append(needed if column.most is None else min(needed, column.most))
    while True:
        kept = [place for place, width in enumerate(widths) if width is not None]
        rest = [place for place in kept if columns[place].rest]
        fixed = sum(widths[place] or 0 for place in kept if place not in rest)
        left = room - fixed - _GAP * (len(kept) - 1)
        needed = sum(widths[place] or 0 for place in rest)
        droppable = [place for place in kept if columns[place].drop]
        if left >= min(needed, _LEAST_REST) or not droppable:
            for place in rest:
                widths[place] = min(widths[place] or 0, max(left, 0))
            return widths
        widths[max(droppable, key=lambda place: columns[place].drop)] = None
