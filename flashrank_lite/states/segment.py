"""One segment of a store: passages that were written together, and never change afterwards.

Its files, little-endian, one row after the other:

    codes.bin     uint8, (tokens, code_bytes): packed states
    scales.bin    float16, (tokens,)
    means.bin     int8, (windows, mean_bytes)
    words.bin     uint32: token ids of each window, sorted, each once
    windows.bin   of each window where its tokens and words end, and its characters in the text
    passages.bin  of each passage where its windows and its record end, a checksum, and a flag
    records.bin   JSON of each passage: id, and what was kept of text and metadata
    index.bin     hashes of the ids, sorted, each with the row of its passage

All are memory-mapped, and read where they are needed. A passage's checksum covers its bytes in all
files; it is compared when the passage is first read by a process.
"""

import hashlib
import json
import os
import shutil
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.errors import InvalidStore
from flashrank_lite.files import sync_folder
from flashrank_lite.states.codec import Codec, Packed
from flashrank_lite.states.compare import runs

Id = str | int
Span = tuple[int, int]
Rows = NDArray[np.int64]

_WINDOW = np.dtype([("tokens", "<u8"), ("words", "<u8"), ("start", "<u4"), ("end", "<u4")])
_PASSAGE = np.dtype(
    [("windows", "<u8"), ("record", "<u8"), ("checksum", "<u4"), ("truncated", "<u4")]
)
_INDEX = np.dtype([("hash", "<u8"), ("row", "<u4")])
_TABLES = ("windows", "passages", "index")  # small, and compared with their checksums as a whole
_FILES = ("codes", "scales", "means", "words", "records", *_TABLES)


@dataclass(frozen=True, slots=True)
class Windows:
    """A passage as read for a store.

    Attributes:
        spans: of each window, in characters.
        states: of each window.
        truncated: whether there is text that no window reads.
    """

    spans: Sequence[Span]
    states: Sequence[Packed]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Block:
    """Windows of some passages, one after the other.

    Attributes:
        packed: the arguments of `Codec.unpack`.
        starts: (passages,), where each one's windows begin.
        spans: (windows, 2).
        truncated: (passages,).
    """

    packed: tuple[Any, ...]
    starts: Rows
    spans: NDArray[np.int32]
    truncated: NDArray[np.bool_]


class SegmentWriter:
    """Writes a segment; nothing of it counts until a manifest lists what `close` returns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self._files: dict[str, BinaryIO] = {
            name: (folder / f"{name}.bin").open("wb") for name in _FILES
        }
        self._sums = dict.fromkeys(_TABLES, 0)
        self._tokens = self._words = self._windows = self._record_end = 0
        self._rows: dict[int, list[int]] = {}  # by the hash of the id
        self._ids: list[Id] = []

    def __len__(self) -> int:
        return len(self._ids)

    def find(self, name: Id) -> int | None:
        """The row of the passage that was added last under this id."""
        same = [row for row in self._rows.get(_hash(name), ()) if _same(self._ids[row], name)]
        return same[-1] if same else None

    def add(self, name: Id, record: dict[str, Any], windows: Windows) -> None:
        """Add a passage."""
        table = np.empty(len(windows.states), _WINDOW)
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
        self._write_table("passages", np.array([row], _PASSAGE))
        self._rows.setdefault(_hash(name), []).append(len(self._ids))
        self._ids.append(name)

    def close(self) -> dict[str, Any]:
        """Bring everything to the disk; what the manifest has to list."""
        index = np.array(
            [(value, row) for value, rows in self._rows.items() for row in rows], _INDEX
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


class Segment:
    """A segment, opened for reading.

    Args:
        folder: where its files are.
        codec: what packed its states.
        facts: what the manifest lists.
        removed: rows that do not count any more: bool, (passages,).

    Raises:
        FileNotFoundError: it is gone: a later manifest does not list it.
        InvalidStore: a file has another size than was written.
    """

    def __init__(
        self, folder: Path, codec: Codec, facts: dict[str, Any], removed: NDArray[np.bool_]
    ) -> None:
        self.folder = folder
        self.facts = facts
        self.removed = removed
        self._codec = codec
        columns = {"codes": codec.code_bytes, "means": codec.mean_bytes}
        kinds: dict[str, Any] = {
            "codes": np.uint8,
            "scales": "<f2",
            "means": np.int8,
            "words": "<u4",
            "records": np.uint8,
            "windows": _WINDOW,
            "passages": _PASSAGE,
            "index": _INDEX,
        }
        arrays: dict[str, NDArray[Any]] = {}
        for name in _FILES:
            file = folder / f"{name}.bin"
            size, wanted = file.stat().st_size, facts["sizes"][name]
            if size != wanted:
                raise InvalidStore(
                    f"{file} has {size} bytes, and {wanted} were written: the store was copied "
                    "incompletely or altered; copy it again, or encode its passages anew"
                )
            kind = np.dtype(kinds[name])
            array: NDArray[Any] = np.empty(0, kind)
            if size:
                array = np.memmap(file, kind, "r").view(np.ndarray)
            arrays[name] = array.reshape(-1, columns[name]) if columns.get(name) else array
        self._arrays = arrays
        self._verified = np.zeros(facts["passages"], np.bool_)
        self._tables_checked = False
        self._checking = threading.Lock()

    def __len__(self) -> int:
        return int(self.facts["passages"])

    def find(self, name: Id) -> int | None:
        """The row of the passage with this id that still counts."""
        self._check_tables()
        index, value = self._arrays["index"], np.uint64(_hash(name))
        place = int(np.searchsorted(index["hash"], value))
        while place < len(index) and index["hash"][place] == value:
            row = int(index["row"][place])
            if not self.removed[row] and _same(self.record(row)["id"], name):
                return row
            place += 1
        return None

    def record(self, row: int) -> dict[str, Any]:
        """What was kept of a passage beside its states."""
        self.verify(np.array([row]))
        record: dict[str, Any] = json.loads(self._record(row))
        return record

    def tokens(self, rows: Rows) -> Rows:
        """How many tokens each passage has."""
        self._check_tables()
        ends = self._arrays["windows"]["tokens"]
        first, last = self._windows_of(rows)
        counts: Rows = _ends_at(ends, last) - _ends_at(ends, first)
        return counts

    def read(self, rows: Rows) -> Block:
        """States of some passages, checked against their checksums.

        Raises:
            InvalidStore: one of them was altered.
        """
        self.verify(rows)
        arrays = self._arrays
        first, last = self._windows_of(rows)
        starts, windows = runs(first, last)
        table = arrays["windows"]
        token_starts = _ends_at(table["tokens"], windows)
        token_ends = _ends_at(table["tokens"], windows + 1)
        word_starts = _ends_at(table["words"], windows)
        word_ends = _ends_at(table["words"], windows + 1)
        _, tokens = runs(token_starts, token_ends)
        _, words = runs(word_starts, word_ends)
        means = arrays["means"] if self._codec.mean_bytes else np.empty((len(table), 0), np.int8)
        packed = (
            _at(arrays["codes"], tokens),
            _at(arrays["scales"], tokens),
            _at(means, windows),
            _at(arrays["words"], words),
            token_ends - token_starts,
            word_ends - word_starts,
        )
        spans = np.stack([table["start"][windows], table["end"][windows]], axis=1)
        truncated = arrays["passages"]["truncated"][rows].astype(np.bool_)
        return Block(packed, starts, spans.astype(np.int32), truncated)

    def read_packed(self, row: int) -> Windows:
        """A passage as it was added."""
        block = self.read(np.array([row], np.int64))
        codes, scales, means, words, tokens, counts = block.packed
        cuts, word_cuts = np.cumsum(tokens)[:-1], np.cumsum(counts)[:-1]
        parts = zip(
            np.split(codes, cuts),
            np.split(scales, cuts),
            means,
            np.split(words, word_cuts),
            strict=True,
        )
        spans = [(int(start), int(end)) for start, end in block.spans]
        return Windows(spans, [Packed(*part) for part in parts], bool(block.truncated[0]))

    def verify(self, rows: Rows) -> None:
        """Compare the checksums of passages that this process has not read yet.

        Raises:
            InvalidStore: one was altered.
        """
        self._check_tables()
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise self._altered("index")
        for row in rows[~self._verified[rows]].tolist():
            try:
                found = self._checksum(row)
            except (IndexError, ValueError, OverflowError):
                found = -1
            if found != int(self._arrays["passages"]["checksum"][row]):
                raise self._altered(f"passage {row}")
            self._verified[row] = True

    def _checksum(self, row: int) -> int:
        arrays = self._arrays
        first, last = self._windows_of(np.array([row], np.int64))
        ends = np.array([first[0], last[0]])
        tokens = slice(*_ends_at(arrays["windows"]["tokens"], ends).tolist())
        words = slice(*_ends_at(arrays["windows"]["words"], ends).tolist())
        windows = slice(int(first[0]), int(last[0]))
        checksum = 0
        for name, part in (
            ("codes", tokens),
            ("scales", tokens),
            ("means", windows),
            ("words", words),
        ):
            if name != "means" or self._codec.mean_bytes:
                checksum = zlib.crc32(arrays[name][part].tobytes(), checksum)
        return zlib.crc32(self._record(row), checksum)

    def _record(self, row: int) -> bytes:
        ends = self._arrays["passages"]["record"]
        start, end = _ends_at(ends, np.array([row, row + 1])).tolist()
        return self._arrays["records"][start:end].tobytes()

    def _windows_of(self, rows: Rows) -> tuple[Rows, Rows]:
        ends = self._arrays["passages"]["windows"]
        return _ends_at(ends, rows), _ends_at(ends, rows + 1)

    def _check_tables(self) -> None:
        if self._tables_checked:
            return
        with self._checking:
            for name in _TABLES:
                if zlib.crc32(self._arrays[name].tobytes()) != self.facts["checksums"][name]:
                    raise self._altered(f"{name}.bin")
            self._tables_checked = True

    def _altered(self, what: str) -> InvalidStore:
        return InvalidStore(
            f"{self.folder}: {what} is not what was written: the store is damaged or was altered; "
            "restore a copy of it, or encode its passages anew"
        )


def _bytes(part: NDArray[Any]) -> bytes:
    return part.astype(part.dtype.newbyteorder("<"), copy=False).tobytes()


def _hash(name: Id) -> int:
    """Of an id, the same on every machine; "1" and 1 are two."""
    text = json.dumps(name).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _same(one: Id, other: Id) -> bool:
    return type(one) is type(other) and one == other


def _ends_at(ends: NDArray[Any], numbers: Rows) -> Rows:
    """Where numbered things begin, given where each ends."""
    begun: Rows = np.where(numbers > 0, ends[np.maximum(numbers, 1) - 1], 0).astype(np.int64)
    return begun


def _at(array: NDArray[Any], places: Rows) -> NDArray[Any]:
    """Rows of a mapped array: a view where they lie side by side, which copies nothing."""
    if len(places) and places[-1] - places[0] + 1 == len(places) and (np.diff(places) == 1).all():
        return array[places[0] : places[-1] + 1]
    return array[places]
