"""Hits → what the user asked for: a table, JSON, JSONL or a TREC run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from flashrank_lite.cli.screen import BOLD, DIM, Screen
from flashrank_lite.cli.tables import Cell, Column, write_table
from flashrank_lite.errors import InvalidInput
from flashrank_lite.hits import RankedPassage

_BAR_ROOM = 10  # columns
_MOST_ID = 20  # columns that ids take
_EIGHTHS = " ▏▎▍▌▋▊▉"
_GREEN, _RED = "32", "31"


def write_hits(hits: Sequence[RankedPassage], ranked: int, limit: int, screen: Screen) -> None:
    """Write hits as a table: rank, score, bar, places moved against the input order, id, text.

    Args:
        hits: best first.
        ranked: how many passages were ranked (`hits` may hold fewer).
        limit: tokens that the model sees of a pair, for the line about truncation.
        screen: where to write.
    """
    if not ranked:
        screen.write("no passages to rank")
        return
    if hits:
        _write_rows(hits, screen)
    parts = [f"{ranked} passages" if ranked != 1 else "1 passage"]
    if len(hits) < ranked:
        parts.append(f"the {len(hits)} best shown" if hits else "none scores as much as asked for")
    truncated = sum(hit.truncated for hit in hits)
    if truncated:
        parts.append(f"{truncated} of those shown cut to {limit} tokens before scoring")
    screen.write(screen.paint(DIM, f"({'; '.join(parts)})"))


def trec_lines(hits: Sequence[RankedPassage], query_id: str, run_name: str) -> list[str]:
    """Hits as lines of a TREC run, `query Q0 document rank score run`.

    The score is the logit if hits are in the order of their logits, the score if in that order (a
    blend), and else what keeps the order (a cascade): readers of runs sort by it.

    Raises:
        InvalidInput: an id has a space, which the format cannot hold.
    """
    logits, scores = [hit.logit for hit in hits], [hit.score for hit in hits]
    written = next((values for values in (logits, scores) if _falls(values)), None)
    lines = []
    for rank, hit in enumerate(hits, start=1):
        document = str(hit.index if hit.id is None else hit.id)
        for one in (query_id, document, run_name):
            if not one or one.split() != [one]:
                raise InvalidInput(
                    f"{one!r} cannot stand in a TREC run, where a space ends an id: change it, or "
                    "write --format jsonl"
                )
        score = float(len(hits) + 1 - rank) if written is None else written[rank - 1]
        lines.append(f"{query_id} Q0 {document} {rank} {score!r} {run_name}")
    return lines


def _write_rows(hits: Sequence[RankedPassage], screen: Screen) -> None:
    columns = [
        Column("rank", right=True),
        Column("score", right=True),
        Column("", drop=3),
        Column("moved", right=True, drop=1),
        Column("id", most=_MOST_ID, drop=2),
        Column("passage", rest=True),
    ]
    fills = _fills([hit.score for hit in hits])
    named = any(hit.id is not None for hit in hits)
    rows = []
    for place, hit in enumerate(hits):
        row = [
            Cell(str(place + 1)),
            Cell(f"{hit.score:.3f}", BOLD),
            Cell(_bar(fills[place], screen)),
            _move(hit.index - place, screen),
            Cell("" if hit.id is None else str(hit.id)),
            Cell(hit.text),
        ]
        rows.append(row if named else row[:4] + row[5:])
    write_table(columns if named else columns[:4] + columns[5:], rows, screen)


def _falls(values: Sequence[float]) -> bool:
    return all(before >= after for before, after in pairwise(values))


def _move(places: int, screen: Screen) -> Cell:
    up, down, same = "▲▼·" if screen.unicode else "+-="
    if not places:
        return Cell(same, DIM)
    gap = " " if screen.unicode else ""
    return Cell(f"{up}{gap}{places}", _GREEN) if places > 0 else Cell(f"{down}{gap}{-places}", _RED)


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
