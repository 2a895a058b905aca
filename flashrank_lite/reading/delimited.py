"""CSV and its kin → rows: which delimiter it is, and whether the first line is a header."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from flashrank_lite.errors import InvalidInput

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_LONGEST_CELL = 2**31 - 1  # characters; csv's own limit of 131,072 is shorter than a long document
_LOOKED_AT = 20  # rows, to see which delimiter gives them all as many cells

Row = tuple[int, list[str]]  # the number of its first line, its cells


def read_rows(text: str, name: str, delimiter: str) -> Iterator[Row]:
    """Each row that is not blank.

    Raises:
        InvalidInput: the quotes do not match, or a row does not have as many cells as the first.
    """
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    count, line = 0, 1
    try:
        for cells in reader:
            place, line = line, reader.line_num + 1
            if not cells:
                continue
            count = count or len(cells)
            if len(cells) != count:
                raise InvalidInput(
                    f"{name}:{place}: {len(cells)} cells where the first row has {count}: "
                    "put a text that holds the delimiter or a quote in double quotes"
                )
            yield place, cells
    except csv.Error as error:
        raise InvalidInput(f"{name}:{reader.line_num}: {error}: check the double quotes") from None


def excel_delimiter(text: str) -> tuple[str | None, str]:
    """The delimiter that a first line `sep=;` names, as Excel writes it, and the text after it."""
    first, _, rest = text.partition("\n")
    first = first.strip()
    return (
        (first[4], rest) if first.lower().startswith("sep=") and len(first) == 5 else (None, text)
    )


def find_delimiter(text: str, wanted: tuple[str, ...]) -> str:
    """The delimiter of a CSV file: one that gives a column `wanted`, else what splits evenly."""
    counts: dict[str, int] = {}
    for delimiter in DELIMITERS:
        rows = _first_rows(text, delimiter)
        if rows and len(rows[0]) > 1 and {cell.strip() for cell in rows[0]} & {*wanted}:
            return delimiter
        if rows and all(len(row) == len(rows[0]) for row in rows):
            counts[delimiter] = len(rows[0])
    return max(counts, key=lambda delimiter: counts[delimiter], default=",")


def guess_delimiter(text: str, wanted: str) -> str | None:
    """The delimiter if text of which nothing is known is surely a table; None if it is not.

    Surely: its first line names the column `wanted`, at least one row follows, and each has as
    many cells as there are names.
    """
    for delimiter in DELIMITERS:
        header = next(iter(_first_rows(text, delimiter)), [])
        if len(header) > 1 and wanted in [cell.strip() for cell in header]:
            try:
                rows = sum(1 for _ in read_rows(text, "", delimiter))
            except InvalidInput:
                continue
            if rows > 1:
                return delimiter
    return None


def _first_rows(text: str, delimiter: str) -> list[list[str]]:
    csv.field_size_limit(_LONGEST_CELL)
    rows: list[list[str]] = []
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            if cells:
                rows.append(cells)
            if len(rows) >= _LOOKED_AT:
                break
    except csv.Error:
        pass
    return rows
