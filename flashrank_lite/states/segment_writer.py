"""Writes a segment of a store (`flashrank_lite.states.layout`)."""

import json
import os
import shutil
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.files import sync_folder
from flashrank_lite.states.layout import (
    FILES,
    INDEX,
    PASSAGE,
    TABLES,
    WINDOW,
    Id,
    Windows,
    hash_of,
    same_id,
)


class SegmentWriter:
    """Writes a segment; nothing of it counts until a manifest lists what `close` returns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self._files: dict[str, BinaryIO] = {
            name: (folder / f"{name}.bin").open("wb") for name in FILES
        }
        self._sums = dict.fromkeys(TABLES, 0)
        self._tokens = self._words = self._windows = self._record_end = 0
        self._rows: dict[int, list[int]] = {}  # by the hash of the id
        self._ids: list[Id] = []

    def __len__(self) -> int:
        return len(self._ids)

    def find(self, name: Id) -> int | None:
        """The row of the passage that was added last under this id."""
        same = [row for row in self._rows.get(hash_of(name), ()) if same_id(self._ids[row], name)]
        return same[-1] if same else None

    def add(self, name: Id, record: dict[str, Any], windows: Windows) -> None:
        """Add a passage."""
        table = np.empty(len(windows.states), WINDOW)
        checksum = 0
        for number, (span, states) in enumerate(zip(windows.spans, windows.states, strict=True)):
            self._tokens += len(states.codes)
            self._words += len(states.words)
            table[number] = (self._tokens, self._words, *span)
        for file, column in (
            ("codes", [one.codes for one in windows.states]),
            ("scales", [one.scales for one in windows.states]),
            ("means", [one.mean for one in windows.states]),
            ("words", [one.words for one in windows.states]),
        ):
            data = b"".join(_bytes(part) for part in column)
            checksum = zlib.crc32(data, checksum)
            self._files[file].write(data)
        data = json.dumps(record, ensure_ascii=False).encode()
        checksum = zlib.crc32(data, checksum)
        self._files["records"].write(data)
        self._windows += len(table)
        self._record_end += len(data)
        self._write_table("windows", table)
        row = (self._windows, self._record_end, checksum, windows.truncated)
        self._write_table("passages", np.array([row], PASSAGE))
        self._rows.setdefault(hash_of(name), []).append(len(self._ids))
        self._ids.append(name)

    def close(self) -> dict[str, Any]:
        """Bring everything to the disk; what the manifest has to list."""
        index = np.array(
            [(value, row) for value, rows in self._rows.items() for row in rows], INDEX
        )
        self._write_table("index", np.sort(index, order=("hash", "row")))
        sizes = {}
        for name, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            sizes[name] = file.tell()
            file.close()
        sync_folder(self.folder)
        return {
            "name": self.folder.name,
            "passages": len(self._ids),
            "sizes": sizes,
            "checksums": self._sums,
            "removed": None,
        }

    def discard(self) -> None:
        """Delete what was written."""
        for file in self._files.values():
            file.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write_table(self, name: str, rows: NDArray[Any]) -> None:
        data = rows.tobytes()
        self._sums[name] = zlib.crc32(data, self._sums[name])
        self._files[name].write(data)


def _bytes(part: NDArray[Any]) -> bytes:
    return part.astype(part.dtype.newbyteorder("<"), copy=False).tobytes()
