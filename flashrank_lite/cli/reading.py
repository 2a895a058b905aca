"""Files and standard input → passages, with the place named when a line cannot be read."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from flashrank_lite.errors import InvalidInput

FORMATS = ("text", "jsonl", "json", "csv", "tsv")
STDIN = "<stdin>"

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
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_LONGEST_CELL = 2**31 - 1  # characters; csv's own limit of 131,072 is shorter than a long document

Passage = str | dict[str, Any]


def read_passages(
    data: bytes, name: str, input_format: str | None, field: str | None
) -> list[Passage]:
    """The passages in ``data``, in their order.

    Args:
        data: UTF-8, with or without a byte order mark.
        name: the file's name, for its extension and for errors.
        input_format: one of ``FORMATS``; ``None`` decides by the extension, else by the content.
        field: what holds the text in an object or a row; ``None`` is ``text``.

    Raises:
        InvalidInput: with ``name``, the line and what to do about it.
    """
    text = _decode(data, name)
    key = field or "text"
    chosen = input_format or _BY_EXTENSION.get(PurePath(name).suffix.lower()) or sniff(text, key)
    if chosen == "text":
        if field is not None:
            raise InvalidInput(
                f"{name}: read as plain text, which has no field {field!r}: "
                "leave --field out, or say --input jsonl, json, csv or tsv"
            )
        return [line for _, line in _lines(text)]
    if chosen == "jsonl":
        return list(_read_jsonl(text, name, key))
    if chosen == "json":
        return list(_read_json(text, name, key))
    return list(_read_table(text, name, key, _DELIMITERS[chosen]))


def sniff(text: str, field: str) -> str:
    """What the content looks like; plain text when it looks like nothing else."""
    start = text.lstrip()[:1]
    first = text.lstrip().split("\n", 1)[0]
    inside = text.lstrip()[1:].lstrip()[:1]
    if start == "[" and inside in ("{", '"', "]"):
        return "json"
    if start == "{" and inside in ('"', "}"):
        return "jsonl"
    if start == '"' and _is_json_string(first):
        return "jsonl"
    for name, delimiter in _DELIMITERS.items():
        cells = next(csv.reader([first.replace("\0", "")], delimiter=delimiter), [])
        if len(cells) > 1 and field in cells:
            return name
    return "text"


def _is_json_string(line: str) -> bool:
    try:
        return isinstance(json.loads(line), str)
    except ValueError:
        return False


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidInput(
            f"{name}:{line}: not UTF-8 (byte 0x{data[error.start]:02x}): "
            f"convert it, for instance with iconv -f latin1 -t utf-8"
        ) from None


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Each line that is not blank, with its number. Only a newline ends a line: U+2028 does not."""
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if stripped:
            yield number, stripped


def _read_jsonl(text: str, name: str, field: str) -> Iterator[Passage]:
    for number, line in _lines(text):
        place = f"{name}:{number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise InvalidInput(
                f"{place}: not JSON ({error.msg}, column {error.colno}): "
                "each line is one object or one string; for lines of plain text say --input text"
            ) from None
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{place}: not JSON that can be read ({error})") from None
        yield _passage(value, place, field)


def _read_json(text: str, name: str, field: str) -> Iterator[Passage]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        hint = (
            ": one object per line is JSONL, say --input jsonl" if error.msg == "Extra data" else ""
        )
        raise InvalidInput(
            f"{name}:{error.lineno}: not JSON ({error.msg}, column {error.colno}){hint}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{name}: not JSON that can be read ({error})") from None
    if not isinstance(values, list):
        raise InvalidInput(
            f"{name}: {_kind(values)}, not an array of passages: "
            "put it in [ ], or say --input jsonl"
        )
    for position, value in enumerate(values, start=1):
        yield _passage(value, f"{name}: item {position}", field)


def _read_table(text: str, name: str, field: str, delimiter: str) -> Iterator[Passage]:
    nul = text.find("\0")
    if nul >= 0:  # Python 3.10's csv refuses it with less to go by, later ones pass it on
        raise InvalidInput(f"{name}:{text.count(chr(10), 0, nul) + 1}: a NUL character: remove it")
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    start = 1
    try:
        for cells in reader:
            place, start = f"{name}:{start}", reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = _header(cells, place, field)
                continue
            if len(cells) != len(header):
                raise InvalidInput(
                    f"{place}: {len(cells)} cells where the header has {len(header)}: "
                    "put a text that holds the delimiter or a quote in double quotes"
                )
            yield _passage(dict(zip(header, cells, strict=True)), place, field)
    except csv.Error as error:
        raise InvalidInput(f"{name}:{reader.line_num}: {error}: check the double quotes") from None


def _header(cells: list[str], place: str, field: str) -> list[str]:
    header = [cell.strip() for cell in cells]
    if field not in header:
        raise InvalidInput(
            f"{place}: the header has no column {field!r} (it has: {', '.join(header)}): "
            "name the column of the text with --field"
        )
    twice = next((cell for cell in header if header.count(cell) > 1), None)
    if twice is not None:
        raise InvalidInput(f"{place}: the header names {twice!r} twice: rename one")
    return header


def _passage(value: Any, place: str, field: str) -> Passage:
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        raise InvalidInput(f"{place}: {_kind(value)}, neither an object nor a string")
    if field not in value:
        raise InvalidInput(
            f"{place}: no field {field!r} (it has: {', '.join(value) or 'none'}): "
            "name the field of the text with --field"
        )
    text = value[field]
    if not isinstance(text, str):
        raise InvalidInput(f"{place}: field {field!r} is {_kind(text)}, not text")
    if field == "text":
        return value
    rest = {key: item for key, item in value.items() if key not in (field, "id", "meta")}
    meta = value.get("meta")
    rest.update(meta if isinstance(meta, dict) else {} if meta is None else {"meta": meta})
    return {"id": value.get("id"), "text": text, "meta": rest}


def _kind(value: Any) -> str:
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


def read_source(path: str | None) -> tuple[bytes, str]:
    """The bytes of a file, or of standard input for ``-`` and ``None``, and what to call them.

    Raises:
        OSError: the file cannot be read, or standard input is closed.
    """
    if path is not None and path != "-":
        with open(path, "rb") as file:
            return file.read(), path
    if sys.stdin is None:
        raise OSError("standard input is closed: give a FILE, or pipe the passages in")
    return sys.stdin.buffer.read(), STDIN
