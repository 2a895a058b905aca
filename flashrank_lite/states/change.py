"""A change to a store: segments to come and rows that go, until its listing is swapped."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flashrank_lite.files import write_durably
from flashrank_lite.hits import RankedPassage
from flashrank_lite.passages import Passage
from flashrank_lite.states.layout import Id, Windows
from flashrank_lite.states.listing import SEGMENTS, Listing, codec_of, write_listing
from flashrank_lite.states.segment import Segment
from flashrank_lite.states.segment_writer import SegmentWriter

# Of a segment; with each one finished, a crash loses no more than the next, and memory is bounded.
SEGMENT_PASSAGES = 16_384


class Change:
    """Segments to come and rows that go; nothing of them counts before the listing is swapped.

    Args:
        path: the store's folder, whose lock is held.
        manifest: its listing, which is changed in place.
        segments: those listed, opened.
        anew: whether what is listed is replaced, all in one step.

    Attributes:
        added: passages so far.
    """

    def __init__(
        self, path: Path, manifest: Listing, segments: Sequence[Segment], *, anew: bool = False
    ) -> None:
        self._path = path
        self._manifest = manifest
        self._anew = anew
        self._listed: list[Listing] = [] if anew else manifest["segments"]
        self._segments = [] if anew else list(segments)
        self._removed = [one.removed.copy() for one in self._segments]
        self._writer: SegmentWriter | None = None
        self._gone: list[int] = []  # rows of the writer's that were replaced
        self.added = 0

    def add(self, passage: Passage, windows: Windows) -> None:
        """Add a passage; one with its id goes."""
        name = self._name(passage.id)
        record: dict[str, Any] = {"id": name}
        if self._manifest["texts"]:
            record |= {"text": passage.text, "meta": _clean(passage)}
        self.remove(name)
        self.write(name, record, windows)
        self.added += 1

    def write(self, name: Id, record: dict[str, Any], windows: Windows) -> None:
        """Write what is to be kept of a passage."""
        if self._writer is None:
            self._manifest["change"] += 1
            folder = self._path / SEGMENTS / f"{self._manifest['change']:08}"
            self._writer = SegmentWriter(folder)
        self._writer.add(name, record, windows)
        if len(self._writer) >= SEGMENT_PASSAGES:
            self._close_segment()
            if not self._anew:
                self._swap()

    def remove(self, name: Id) -> bool:
        """Take a passage out; whether there was one."""
        row = None if self._writer is None else self._writer.find(name)
        if row is not None and row not in self._gone:
            self._gone.append(row)
            return True
        for number, segment in enumerate(self._segments):
            row = segment.find(name)
            if row is not None and not self._removed[number][row]:
                self._removed[number][row] = True
                return True
        return False

    def finish(self) -> None:
        """Swap the listing."""
        if self._writer is not None:
            self._close_segment()
        self._swap()

    def discard(self) -> None:
        """Delete what is not listed yet; what was swapped stays."""
        if self._writer is not None:
            self._writer.discard()

    def _name(self, name: Id | None) -> Id:
        if name is not None:
            return name
        while True:
            number: int = self._manifest["next_id"]
            self._manifest["next_id"] += 1
            in_writer = self._writer is not None and self._writer.find(number) is not None
            if not in_writer and all(one.find(number) is None for one in self._segments):
                return number

    def _close_segment(self) -> None:
        assert self._writer is not None
        facts = self._writer.close()
        removed = np.zeros(facts["passages"], np.bool_)
        removed[self._gone] = True
        self._listed.append(facts)
        folder = self._path / SEGMENTS / facts["name"]
        self._segments.append(Segment(folder, codec_of(self._manifest), facts, removed))
        self._removed.append(removed)
        self._writer, self._gone = None, []

    def _swap(self) -> None:
        self._manifest["change"] += 1
        for facts, removed in zip(self._listed, self._removed, strict=True):
            data = np.packbits(removed).tobytes()
            before = facts["removed"]
            if not removed.any() or (before is not None and before["checksum"] == zlib.crc32(data)):
                continue
            name = f"removed-{self._manifest['change']:08}.bin"
            write_durably(self._path / SEGMENTS / facts["name"] / name, data)
            facts["removed"] = {"name": name, "checksum": zlib.crc32(data)}
        self._manifest["segments"] = self._listed
        write_listing(self._path, self._manifest)


def _clean(passage: Passage) -> dict[str, Any]:
    """The metadata as plain JSON types."""
    hit = RankedPassage("", 0.0, 0.0, 0, meta=passage.meta)
    meta: dict[str, Any] = hit.to_dict()["meta"]
    return meta
