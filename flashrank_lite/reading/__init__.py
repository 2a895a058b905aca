"""Files and standard input → passages, with the place named where one cannot be read.

`source` gives the bytes, `decoding` the text, `formats` the values in it (`delimited` those of CSV,
`columnar` those of Parquet and Arrow), and the library's own `read_passages` the passages.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from flashrank_lite.errors import InvalidInput
from flashrank_lite.reading.columnar import kind_of as columnar_kind
from flashrank_lite.reading.columnar import read_rows
from flashrank_lite.reading.decoding import decode, is_plain
from flashrank_lite.reading.formats import (
    FORMATS,
    USUAL,
    Placed,
    ReadOptions,
    read_values,
)
from flashrank_lite.reading.source import STDIN, extension, is_compressed, read_source

if TYPE_CHECKING:
    from flashrank_lite.passages import Passage

__all__ = [
    "FORMATS",
    "Placed",
    "ReadOptions",
    "as_passages",
    "decode",
    "notify",
    "read_file",
    "read_lines",
    "read_placed",
    "read_source",
]

_DEFAULTS = ReadOptions()
_LOOKED_AT = 4096  # bytes of which a file's kind is told


def notify(line: str) -> None:
    """Say something on standard error that is no error."""
    if sys.stderr is not None:
        encoding = sys.stderr.encoding or "ascii"
        sys.stderr.write(f"{line}\n".encode(encoding, "backslashreplace").decode(encoding))


def read_file(
    path: str | None,
    options: ReadOptions = _DEFAULTS,
    notice: Callable[[str], None] = notify,
) -> list[Passage]:
    """The passages of a file, or of standard input for `-` and None.

    Args:
        path: text, JSON, CSV and the like, compressed or not; Parquet or Arrow.
        options: what the user says about it.
        notice: is told what the content was taken for, where only the content says it.

    Raises:
        OSError: the file cannot be read, or standard input is closed.
        InvalidInput: what is in it cannot be read; with the place, and what to do about it.
        MissingExtra: a library that reads it is not installed.
    """
    return as_passages(read_placed(path, options, notice), options)


def read_placed(
    path: str | None,
    options: ReadOptions = _DEFAULTS,
    notice: Callable[[str], None] = notify,
    columns: tuple[str, ...] = USUAL,
    unwrap: bool = True,
) -> list[Placed]:
    """As `read_file`, but the values as they stand there, each with its place.

    `columns` are names of which a table must have one, unless `options` names a field; `unwrap`
    says whether a JSON object that holds a list stands for that list.
    """
    data, name = read_source(path)
    columnar = columnar_kind(data)
    if columnar is not None:
        rows = read_rows(data, name, columnar)
        return [(f"{name}: row {number}", row) for number, row in enumerate(rows, start=1)]
    text = decode(data, name, options.encoding)
    kind = "" if name == STDIN else extension(name)
    return read_values(text, name, kind, options, notice, columns, unwrap)


def read_lines(path: str) -> Iterator[str]:
    """The lines of a text file without their ends, one at a time, so that it may be of any size.

    What is compressed or in UTF-16 is read whole.

    Raises:
        OSError: the file cannot be read.
        InvalidInput: it is not text; with the line.
    """
    with open(path, "rb") as file:
        start = file.read(_LOOKED_AT)
        if is_compressed(start) or not is_plain(start):
            text = decode(*read_source(path))
            yield from (line.rstrip("\r") for line in text.split("\n"))
            return
        file.seek(0)
        for number, line in enumerate(file):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError:
                text = "\0"
            if "\0" in text:
                text = decode(b"\n" * number + line, path)  # says what is wrong in which line
            yield (text if number else text.removeprefix("\ufeff")).rstrip("\r\n")


def as_passages(placed: Sequence[Placed], options: ReadOptions = _DEFAULTS) -> list[Passage]:
    """Values as passages, by the rules of `Ranker.rank`; an error names the place.

    Raises:
        InvalidInput: one of them has no text.
    """
    from flashrank_lite.passages import Fields, read_passages  # numpy, which --help need not load

    text = Fields(options.fields) if options.fields else None
    try:
        return read_passages([_with_id(*one, options.id_field) for one in placed], text)
    except InvalidInput as error:
        message = str(error).replace("text= ", "--field ").replace("text=", "--field ")
        number = re.search(r"passage (\d+)", message)
        if number is None:
            raise InvalidInput(message) from None
        place, _ = placed[int(number[1])]
        raise InvalidInput(f"{place}: {message.replace(number[0], 'this passage')}") from None


def _with_id(place: str, value: Any, field: str | None) -> Any:
    if field is None:
        return value
    if not isinstance(value, dict) or value.get(field) is None:
        raise InvalidInput(f"{place}: no {field!r}, which --id names")
    return {**{name: item for name, item in value.items() if name != field}, "id": value[field]}
