"""A file or standard input → its bytes, decompressed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import PurePath

from flashrank_lite.errors import InvalidInput, MissingExtra, first_line

STDIN = "<stdin>"


def read_source(path: str | None) -> tuple[bytes, str]:
    """The bytes of a file, or of standard input for `-` and None, and what to call them.

    What is compressed by gzip, Zstandard, bzip2 or xz, by its first bytes, comes out decompressed.

    Raises:
        OSError: the file cannot be read, or standard input is closed.
        InvalidInput: the compressed data is damaged.
        MissingExtra: it is Zstandard, and nothing that is installed reads it.
    """
    if path is not None and path != "-":
        with open(path, "rb") as file:
            return _decompress(file.read(), path), path
    if sys.stdin is None:
        raise OSError("standard input is closed: give a FILE, or pipe the passages in")
    return _decompress(sys.stdin.buffer.read(), STDIN), STDIN


def extension(name: str) -> str:
    """The extension in lower case, below one of compression: `.jsonl` of `a.JSONL.gz`."""
    path = PurePath(name)
    if path.suffix.lower() in (".gz", ".zst", ".bz2", ".xz"):
        path = path.with_suffix("")
    return path.suffix.lower()


def is_compressed(start: bytes) -> bool:
    """Whether data that starts so is compressed, as `read_source` knows it."""
    return any(start.startswith(one) for one in _DECOMPRESSORS)


def _decompress(data: bytes, name: str) -> bytes:
    for start, decompress in _DECOMPRESSORS.items():
        if data.startswith(start):
            try:
                return decompress(data)
            except MissingExtra as error:
                raise MissingExtra(f"{name}: {error}") from None
            except Exception as error:  # each library has errors of its own
                raise InvalidInput(
                    f"{name}: compressed, but damaged or cut short ({first_line(error)}): "
                    "compress or download it again"
                ) from None
    return data


def _gunzip(data: bytes) -> bytes:
    import gzip

    return gzip.decompress(data)


def _bunzip(data: bytes) -> bytes:
    import bz2

    return bz2.decompress(data)


def _unxz(data: bytes) -> bytes:
    import lzma

    return lzma.decompress(data)


def _unzstd(data: bytes) -> bytes:
    try:
        from compression import zstd  # Python 3.14
    except ImportError:
        return _with_zstandard(data)
    decompressed: bytes = zstd.decompress(data)
    return decompressed


def _with_zstandard(data: bytes) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise MissingExtra(
            "compressed by Zstandard, which needs Python 3.14 or `pip install zstandard`; "
            "or pipe it in: zstd -dc FILE | flashrank-lite ..."
        ) from None
    parts = []
    while data:
        frame = zstandard.ZstdDecompressor().decompressobj()
        parts.append(frame.decompress(data))
        if not frame.eof:
            raise EOFError("the end is missing")
        data = frame.unused_data
    return b"".join(parts)


_DECOMPRESSORS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": _gunzip,
    b"\x28\xb5\x2f\xfd": _unzstd,
    b"BZh91AY&SY": _bunzip,
    b"\xfd7zXZ\x00": _unxz,
}
