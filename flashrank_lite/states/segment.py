"""A segment of a store, opened for reading; `flashrank_lite.states.layout` says what lies in it.

Its files are memory-mapped, and read where they are needed. A passage's checksum covers its bytes
in all files; it is compared when the passage is first read by a process.
"""

import json
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.errors import InvalidStore
from flashrank_lite.states.codec import Codec, Packed
from flashrank_lite.states.compare import runs
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

Rows = NDArray[np.int64]


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
            "windows": WINDOW,
            "passages": PASSAGE,
            "index": INDEX,
        }
        arrays: dict[str, NDArray[Any]] = {}
        for name in FILES:
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
        index, value = self._arrays["index"], np.uint64(hash_of(name))
        place = int(np.searchsorted(index["hash"], value))
        while place < len(index) and index["hash"][place] == value:
            row = int(index["row"][place])
            if not self.removed[row] and same_id(self.record(row)["id"], name):
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
            for name in TABLES:
                if zlib.crc32(self._arrays[name].tobytes()) != self.facts["checksums"][name]:
                    raise self._altered(f"{name}.bin")
            self._tables_checked = True

    def _altered(self, what: str) -> InvalidStore:
        return InvalidStore(
            f"{self.folder}: {what} is not what was written: the store is damaged or was altered; "
            "restore a copy of it, or encode its passages anew"
        )


def _ends_at(ends: NDArray[Any], numbers: Rows) -> Rows:
    """Where numbered things begin, given where each ends."""
    begun: Rows = np.where(numbers > 0, ends[np.maximum(numbers, 1) - 1], 0).astype(np.int64)
    return begun


def _at(array: NDArray[Any], places: Rows) -> NDArray[Any]:
    """Rows of a mapped array: a view where they lie side by side, which copies nothing."""
    if len(places) and places[-1] - places[0] + 1 == len(places) and (np.diff(places) == 1).all():
        return array[places[0] : places[-1] + 1]
    return array[places]
