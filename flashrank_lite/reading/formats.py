"""Text → values with their places: which format it is, and how each format is read.

The name's extension decides, or `--input`. Content decides only where neither does; then the format
is one that loses no line of plain text, or the reader says what it took for a header or for JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from flashrank_lite.errors import InvalidInput
from flashrank_lite.reading import delimited

FORMATS = ("text", "jsonl", "json", "csv", "tsv")
USUAL = ("text", "page_content", "content")  # columns that hold the text where no field is named

_BY_EXTENSION = {
    ".txt": "text",
    ".text": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
}

Placed = tuple[str, Any]  # where a value stands, as in `faq.jsonl:3`, and the value


@dataclass(frozen=True)
class ReadOptions:
    """What the user says about a file; None for what the file itself says.

    Attributes:
        input_format: one of FORMATS.
        field: where the text of a passage is: a name or a dotted path, or several with commas.
        id_field: where its id is.
        encoding: of the text.
        delimiter: of a CSV file.
        header: whether a CSV file's first line holds the names of its columns.
    """

    input_format: str | None = None
    field: str | None = None
    id_field: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    header: bool | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of `field`; empty for the usual places."""
        return tuple(part.strip() for part in (self.field or "").split(",") if part.strip())


def read_values(
    text: str,
    name: str,
    extension: str,
    options: ReadOptions,
    notice: Callable[[str], None],
    columns: tuple[str, ...] = USUAL,
    unwrap: bool = True,
) -> list[Placed]:
    """The passages of a file, as they stand in it.

    Args:
        text: its content.
        name: what errors call it.
        extension: of its name, as in `.csv`; empty for standard input.
        options: what the user says.
        notice: is told what the content was taken for, where only the content says it.
        columns: what a table must have one of, where no field is named.
        unwrap: whether a JSON object that holds a list of passages stands for that list.

    Raises:
        InvalidInput: with the place, and what to do about it.
    """
    chosen = options.input_format or _BY_EXTENSION.get(extension)
    if chosen is None and (options.delimiter is not None or options.header is not None):
        chosen = "csv"
    if chosen is None:
        chosen, taken = sniff(text, options)
        if taken is not None:
            notice(f"{name}: read as {taken} (--input text reads lines of plain text)")
    if chosen == "text":
        if options.field is not None:
            raise InvalidInput(
                f"{name}: read as plain text, which has no field {options.field!r}: "
                "leave --field out, or say --input jsonl, json, csv or tsv"
            )
        return [(f"{name}:{number}", line) for number, line in _lines(text)]
    if chosen == "jsonl":
        return list(_read_jsonl(text, name))
    if chosen == "json":
        value = _load_json(text, name)
        if isinstance(value, dict):
            value = _held(value, name, options) if unwrap else [value]
        return _items(value, name)
    return list(_read_delimited(text, name, chosen, options, columns))


def sniff(text: str, options: ReadOptions) -> tuple[str, str | None]:
    """The format that content is in, and, unless it is plain text, what to say about that."""
    stripped = text.lstrip()
    start, inside = stripped[:1], stripped[1:].lstrip()[:1]
    first = stripped.split("\n", 1)[0]
    if start == "[" and inside in ("{", '"', "]"):
        return "json", "a JSON array"
    if start == "{" and inside in ('"', "}"):
        if _is_json(text, dict):
            return "json", "one JSON object"
        return "jsonl", "JSON, one object a line"
    if start == '"' and _is_json(first, str):
        return "jsonl", "JSON, one string a line"
    wanted = options.fields[0] if options.fields else USUAL[0]
    delimiter = delimited.guess_delimiter(text, wanted)
    if delimiter is not None:
        kind = "tsv" if delimiter == "\t" else "csv"
        how = f"with {delimited.DELIMITERS[delimiter]}"
        return kind, f"a table {how}, its first line as the header"
    return "text", None


def _is_json(text: str, kind: type) -> bool:
    try:
        return isinstance(json.loads(text), kind)
    except (ValueError, RecursionError):
        return False


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Each line that is not blank, with its number. Only a newline ends a line: U+2028 does not."""
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if stripped:
            yield number, stripped


def _read_jsonl(text: str, name: str) -> Iterator[Placed]:
    for number, line in _lines(text):
        place = f"{name}:{number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise InvalidInput(
                f"{place}: not JSON ({error.msg}, column {error.colno}): "
                "each line is one object or one string; --input text reads lines of plain text"
            ) from None
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{place}: not JSON that can be read ({error})") from None
        yield place, value


def _load_json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        hint = "one object a line is --input jsonl, " if error.msg == "Extra data" else ""
        raise InvalidInput(
            f"{name}:{error.lineno}: not JSON ({error.msg}, column {error.colno}): "
            f"{hint}lines of plain text are --input text"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{name}: not JSON that can be read ({error})") from None


def _items(value: Any, name: str) -> list[Placed]:
    if not isinstance(value, list):
        raise InvalidInput(f"{name}: {kind_of(value)}, not an array of passages: put it in [ ]")
    return [(f"{name}: item {position}", item) for position, item in enumerate(value, start=1)]


def _held(value: dict[str, Any], name: str, options: ReadOptions) -> list[Any]:
    """The list that an object holds, as a search engine's answer does, or the object in a list."""
    from flashrank_lite.passages import Fields, is_passage
    from flashrank_lite.passages.tables import held_list

    if is_passage(value, Fields(options.fields) if options.fields else None):
        return [value]
    try:
        held = held_list(value)
    except InvalidInput as error:
        raise InvalidInput(f"{name}: {error}") from None
    return [value] if held is None else list(held)


def _read_delimited(
    text: str, name: str, kind: str, options: ReadOptions, columns: tuple[str, ...]
) -> Iterator[Placed]:
    named, text = delimited.excel_delimiter(text)
    wanted = options.fields or columns
    delimiter = options.delimiter or named
    if delimiter is None:
        delimiter = "\t" if kind == "tsv" else delimited.find_delimiter(text, wanted)
    rows = delimited.read_rows(text, name, delimiter)
    header: list[str] | None = None
    for line, cells in rows:
        place = f"{name}:{line}"
        if header is None and options.header is False:
            header = _numbers(cells, place, options)
        elif header is None:
            header = _names(cells, place, wanted, bool(options.fields))
            continue
        row = dict(zip(header, cells, strict=True))
        yield place, (cells[0] if len(cells) == 1 and options.header is False else row)


def _numbers(cells: list[str], place: str, options: ReadOptions) -> list[str]:
    header = [str(number) for number in range(1, len(cells) + 1)]
    wrong = next((field for field in options.fields if field not in header), None)
    if wrong is not None or (len(cells) > 1 and not options.fields):
        raise InvalidInput(
            f"{place}: {len(cells)} columns without names: say which holds the text by its number, "
            "as in --field 1"
        )
    return header


def _names(cells: list[str], place: str, wanted: tuple[str, ...], every: bool) -> list[str]:
    header = [cell.strip() for cell in cells]
    lacking = [name for name in wanted if name not in header]
    if len(lacking) == len(wanted) or (every and lacking):
        raise InvalidInput(
            f"{place}: the header has no column {lacking[0]!r} (it has: {', '.join(header)}): "
            "name the column of the text with --field, or say --no-header if this line is a row"
        )
    twice = next((cell for cell in header if header.count(cell) > 1), None)
    if twice is not None:
        raise InvalidInput(f"{place}: the header names {twice!r} twice: rename one")
    return header


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
    }
    return names.get(type(value), "an object")
