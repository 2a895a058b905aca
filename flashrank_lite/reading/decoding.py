"""Bytes → text: by byte order mark, as UTF-8, or as the user says; never by a guess that may lie.

What is not text is refused, and where bytes look like UTF-16 without a mark the error says which
`--encoding` to try. A wrong encoding is noticed by the control characters that come out of it.
"""

from __future__ import annotations

import codecs
import unicodedata

from flashrank_lite.errors import InvalidInput

# The mark of UTF-32 (little-endian) starts with that of UTF-16, so it comes first.
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_BINARY = {
    b"%PDF-": "a PDF",
    b"PK\x03\x04": "a ZIP archive, as .docx and .xlsx files are",
    b"\xd0\xcf\x11\xe0": "an old Office document",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x7fELF": "a program",
    b"SQLite format 3\0": "an SQLite database",
    b"\x93NUMPY": "a NumPy array",
    b"Obj\x01": "an Avro file",
}
_SPACES = "\a\b\t\n\v\f\r\x1b"  # the control characters that text files have
_CONTROLS = bytes({*range(0x20)} - {*_SPACES.encode()})
_LOOKED_AT = 4096  # characters that are checked for what a wrong encoding gives
_MOST_CONTROLS = 0.01  # share of them; UTF-16 that is read as latin1 has over a tenth


def decode(data: bytes, name: str, encoding: str | None = None) -> str:
    """The text of a file.

    Args:
        data: the file's content.
        name: what errors call it.
        encoding: what the user says; None for what the byte order mark says, else UTF-8.

    Raises:
        InvalidInput: it is binary, or in another encoding; the message says which to try, if one
            is likely.
    """
    mark = next((mark for mark in _MARKS if data.startswith(mark)), None)
    if encoding is not None:
        return _as_told(data, name, encoding, mark)
    if mark is not None:
        return _strict(data[len(mark) :], name, _MARKS[mark])
    if b"\0" in data:
        raise InvalidInput(f"{name}: {_advice(data)}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if data.translate(None, _CONTROLS) != data or _kind(data):
            raise InvalidInput(f"{name}: {_binary(data)}") from None
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidInput(
            f"{name}:{line}: not UTF-8 (byte 0x{data[error.start]:02x}): say how it is encoded, "
            "for instance --encoding cp1252 (Windows, western Europe), cp1251 (Cyrillic), gb18030 "
            "(Chinese) or shift_jis (Japanese)"
        ) from None


def is_plain(start: bytes) -> bool:
    """Whether a text that starts so can be decoded line by line: no UTF-16 or UTF-32."""
    mark = next((mark for mark in _MARKS if start.startswith(mark)), codecs.BOM_UTF8)
    return mark == codecs.BOM_UTF8 and b"\0" not in start


def _as_told(data: bytes, name: str, encoding: str, mark: bytes | None) -> str:
    text = _strict(data, name, encoding).removeprefix("\ufeff")
    start = text[:_LOOKED_AT]
    controls = sum(unicodedata.category(char) == "Cc" and char not in _SPACES for char in start)
    if "\0" not in text and controls <= _MOST_CONTROLS * len(start):
        return text
    if mark is not None:
        advice = f"it starts with the byte order mark of {_MARKS[mark]}: leave --encoding out"
    else:
        advice = _advice(data)
    raise InvalidInput(f"{name}: not {encoding}, which gives control characters; {advice}")


def _strict(data: bytes, name: str, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].decode(encoding, "ignore").count("\n") + 1
        raise InvalidInput(
            f"{name}:{line}: not {encoding} ({error.reason}): "
            "say another --encoding, or mend the file"
        ) from None


def _advice(data: bytes) -> str:
    """What data is that gave control characters, and what to do about it."""
    wide = _wide_encoding(data) if b"\0" in data else None
    if wide is not None:
        kind = wide[:6].upper()
        return f"it looks like {kind} without a byte order mark: say --encoding {wide}"
    if data.translate(None, _CONTROLS) == data.replace(b"\0", b"") and _is_utf_8(data):
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        return f"line {line} has a NUL character, as binary files have: if it is text, remove it"
    return _binary(data)


def _wide_encoding(data: bytes) -> str | None:
    """UTF-32 or UTF-16, if the places of the NUL bytes and what comes out of it say so."""
    odd, even = data[1::2].count(0), data[0::2].count(0)
    order = "le" if odd > even else "be"
    for encoding in (f"utf-32-{order}", f"utf-16-{order}"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        # control, private and unassigned characters: of other data one in ten is one of these
        kinds = {unicodedata.category(char) for char in text[:_LOOKED_AT] if char not in _SPACES}
        if not kinds & {"Cc", "Co", "Cn"}:
            return encoding
    return None


def _is_utf_8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _kind(data: bytes) -> str | None:
    return next((kind for start, kind in _BINARY.items() if data.startswith(start)), None)


def _binary(data: bytes) -> str:
    kind = _kind(data)
    return f"{kind or 'binary'}, not text: convert it to text, CSV or JSONL first"
