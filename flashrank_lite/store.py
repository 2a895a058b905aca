"""Passages that a late-interaction model has read once, on disk, for any number of queries.

    store = ranker.encode_passages(passages, path="notes.store")
    hits = ranker.rank("how long do fleas live", store, top_k=3)

A store is a folder: store.json lists segments (`flashrank_lite.states.segment`), which never change
once they are written, and what of them was removed. Every change writes new files, brings them to
the disk, and swaps store.json last, so that after a crash the store is as it was before or after.
One process writes at a time; any number read, each what the store was when it was opened.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flashrank_lite import call as calls
from flashrank_lite.errors import InvalidInput, InvalidStore, StoreInUse
from flashrank_lite.files import locked
from flashrank_lite.passages.fields import Chosen, TextField
from flashrank_lite.passages.lists import iterate_passages
from flashrank_lite.passages.passage import plain_id
from flashrank_lite.states.change import Change
from flashrank_lite.states.codec import Codec, Precision, check_precision
from flashrank_lite.states.layout import Id, Windows
from flashrank_lite.states.listing import (
    FORMAT,
    SEGMENTS,
    codec_of,
    read_listing,
    removed_rows,
    sweep,
    write_listing,
)
from flashrank_lite.states.segment import Segment
from flashrank_lite.states.stored import StoredPassages

PRECISION: Precision = "2bit"
CHUNK_PASSAGES = 512  # that are read and packed at once: in 4 bits they take 10 MB

_LOCK = "lock"
_TRIES = 5  # to open a store that is changed meanwhile


class Reader(Protocol):
    """A model that reads passages for a store: `flashrank_lite.late_interaction`."""

    @property
    def stamp(self) -> dict[str, Any]:
        """What identifies it."""

    def codec(self, precision: Precision) -> Codec:
        """What packs its states."""

    def read(self, texts: Sequence[str], precision: Precision) -> list[Windows]:
        """Read texts."""


class PassageStore:
    """Passages and what a model has read of them; made by `Ranker.encode_passages`, or opened.

    Args:
        path: the folder.

    Attributes:
        path: likewise.
        precision: of a value of its states: "int8", "4bit" or "2bit".
        keeps_texts: whether texts and metadata are in it, or ids alone.

    Raises:
        InvalidStore: there is none, it is damaged or of a newer release.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.refresh()

    @classmethod
    def open(cls, path: str | Path) -> "PassageStore":
        """Open a store; its files are memory-mapped, so that takes milliseconds at any size.

        Raises:
            InvalidStore: there is none, it is damaged or of a newer release.
        """
        return cls(path)

    @classmethod
    def create(
        cls,
        path: str | Path,
        reader: Reader,
        precision: Precision | None = None,
        texts: bool = True,
    ) -> "PassageStore":
        """Make an empty store; `Ranker.encode_passages` makes one and fills it.

        Raises:
            InvalidInput: there is something at the path, or no such precision.
            OSError: the folder cannot be written.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InvalidInput(
                f"{path} exists: add passages to a store with `store.add(passages, ranker)` "
                "(`flashrank-lite encode --add`), or take another path"
            )
        precision = check_precision(PRECISION if precision is None else precision)
        codec = reader.codec(precision)
        (path / SEGMENTS).mkdir(parents=True, exist_ok=True)
        write_listing(
            path,
            {
                "format": FORMAT,
                "made_with": reader.stamp,
                "precision": precision,
                "width": codec.width,
                "means": codec.means,
                "words": codec.words,
                "texts": texts,
                "change": 0,
                "next_id": 0,
                "segments": [],
            },
        )
        return cls(path)

    def refresh(self) -> None:
        """Take in what was added and removed since the store was opened, by whomever.

        Raises:
            InvalidStore: as `open`.
        """
        for last in (False,) * (_TRIES - 1) + (True,):
            manifest = read_listing(self.path)
            codec = codec_of(manifest)
            try:
                segments = [
                    Segment(
                        self.path / SEGMENTS / facts["name"],
                        codec,
                        facts,
                        removed_rows(self.path, facts),
                    )
                    for facts in manifest["segments"]
                ]
                break
            except FileNotFoundError as error:  # compacted after the manifest was read
                if last:
                    raise InvalidStore(
                        f"{self.path} lacks {error.filename}: it was copied incompletely; copy it "
                        "again, or encode its passages anew"
                    ) from error
        self._manifest, self._segments = manifest, segments
        self.precision: Precision = codec.precision
        self.keeps_texts = bool(manifest["texts"])

    def __len__(self) -> int:
        return sum(len(one) - int(one.removed.sum()) for one in self._segments)

    def __repr__(self) -> str:
        return f"<PassageStore {str(self.path)!r}: {len(self)} passages>"

    def all(self) -> StoredPassages:
        """All passages, in the order they were added."""
        rows = [np.flatnonzero(~one.removed) for one in self._segments]
        numbers = [np.full(len(row), number) for number, row in enumerate(rows)]
        return self._passages(
            np.concatenate([np.empty(0, np.int64), *numbers]),
            np.concatenate([np.empty(0, np.int64), *rows]),
        )

    def select(self, ids: Iterable[Id], scores: Iterable[float] | None = None) -> StoredPassages:
        """Some passages, in this order: those that a first stage found.

        Args:
            ids: of the passages.
            scores: what the first stage gave each, for `fusion=`; None if it gave none.

        Raises:
            InvalidInput: one is not in the store, or there are not as many scores.
        """
        ids = [_plain(name) for name in ids]
        first = None if scores is None else np.array(list(scores), np.float32)
        if first is not None and len(first) != len(ids):
            raise InvalidInput(f"{len(ids)} ids but {len(first)} scores: pass one for each")
        places = [self._find(name) for name in ids]
        missing = [name for name, place in zip(ids, places, strict=True) if place is None]
        if missing:
            raise InvalidInput(
                f"{len(missing)} of the ids are not in {self.path}, {missing[0]!r:.80} for one: "
                "add them, or select what `id in store` says is there; an id keeps its type, so "
                '"1" is not 1'
            )
        found = np.array(places, np.int64).reshape(-1, 2)
        return self._passages(found[:, 0], found[:, 1], first)

    def __contains__(self, name: object) -> bool:
        known = isinstance(name, (str, int)) and not isinstance(name, bool)
        return known and self._find(name) is not None  # type: ignore[arg-type]

    def add(
        self, passages: Any, ranker: Any, *, text: TextField | Chosen = None, progress: Any = False
    ) -> int:
        """Read passages and add them; one whose id is there already takes its place.

        A passage without an id gets a number. After every SEGMENT_PASSAGES the store is brought up
        to date, so that a crash loses at most so many of those that were being added.

        Args:
            passages: as for `Ranker.rank`; an iterable is read as it comes.
            ranker: a `Ranker` of the model that the store was made with.
            text: as for `Ranker.rank`.
            progress: True for a bar, or a function of passages done and passages known of.

        Returns:
            How many were added.

        Raises:
            InvalidInput: a passage cannot be used, or the store is of another model.
            StoreInUse: somebody else is writing to it.
            OSError: the disk is full, or the folder cannot be written.
        """
        from flashrank_lite.progress import reporting

        reader: Reader = ranker.passage_reader()
        with self._writing() as manifest, reporting(progress, "encoding"):
            self.check(reader.stamp)
            change = Change(self.path, manifest, self._segments)
            try:
                rest = iterate_passages(passages, text)
                while chunk := list(islice(rest, CHUNK_PASSAGES)):
                    calls.current().expect(len(chunk))
                    read = reader.read([passage.text for passage in chunk], self.precision)
                    for passage, windows in zip(chunk, read, strict=True):
                        change.add(passage, windows)
                    calls.current().advance(len(chunk))
                change.finish()
            except BaseException:
                change.discard()
                raise
        return change.added

    def remove(self, ids: Iterable[Id]) -> int:
        """Take passages out; their bytes stay until `compact`.

        Returns:
            How many there were; ids that are not in the store are passed over.

        Raises:
            StoreInUse: somebody else is writing to it.
        """
        with self._writing() as manifest:
            change = Change(self.path, manifest, self._segments)
            count = sum(change.remove(name) for name in map(_plain, ids))
            change.finish()
        return count

    def compact(self) -> None:
        """Write the store anew without what was removed, so that the disk has its bytes back.

        Raises:
            StoreInUse: somebody else is writing to it.
        """
        with self._writing() as manifest:
            if not any(one.removed.any() for one in self._segments):
                return
            change = Change(self.path, manifest, self._segments, anew=True)
            try:
                for segment in self._segments:
                    for row in np.flatnonzero(~segment.removed).tolist():
                        record = segment.record(row)
                        change.write(record["id"], record, segment.read_packed(row))
                change.finish()
            except BaseException:
                change.discard()
                raise

    def discard_empty(self) -> None:
        """Delete the folder, if no passage was ever kept in it."""
        if not self._segments:
            shutil.rmtree(self.path, ignore_errors=True)

    def verify(self) -> None:
        """Compare all checksums, which reads the whole store.

        Raises:
            InvalidStore: a file was altered.
        """
        for segment in self._segments:
            segment.verify(np.arange(len(segment)))

    def check(self, stamp: dict[str, Any]) -> None:
        """Raises InvalidInput unless the store was made with the model that this describes."""
        made_with = self._manifest["made_with"]
        different = [key for key in made_with if made_with[key] != stamp.get(key)]
        if different:
            facts = ", ".join(
                f"{key} {made_with[key]!r:.24} and not {stamp.get(key)!r:.24}" for key in different
            )
            raise InvalidInput(
                f"{self.path} was made with {facts}: rank it with the model {made_with['model']!r} "
                f"and max_length={made_with['max_length']}, or encode its passages anew with this "
                "one"
            )

    def info(self) -> dict[str, Any]:
        """What it holds and with what it was made, JSON-clean."""
        sizes = [sum(one.facts["sizes"].values()) for one in self._segments]
        return {
            "path": str(self.path),
            "passages": len(self),
            "removed": sum(int(one.removed.sum()) for one in self._segments),
            "bytes": sum(sizes),
            "precision": self.precision,
            "texts": self.keeps_texts,
            "format": FORMAT,
            "made_with": dict(self._manifest["made_with"]),
        }

    def _passages(
        self,
        numbers: NDArray[np.int64],
        rows: NDArray[np.int64],
        first_stage: NDArray[np.float32] | None = None,
    ) -> StoredPassages:
        return StoredPassages(self, self._segments, numbers, rows, first_stage)

    def _find(self, name: Id) -> tuple[int, int] | None:
        for number in range(len(self._segments) - 1, -1, -1):
            row = self._segments[number].find(name)
            if row is not None:
                return number, row
        return None

    @contextmanager
    def _writing(self) -> Iterator[dict[str, Any]]:
        """Hold the lock; the manifest as it is now, to be changed and swapped."""
        try:
            with locked(self.path / _LOCK):
                self.refresh()
                sweep(self.path, self._manifest)
                yield json.loads(json.dumps(self._manifest))
                self.refresh()
                sweep(self.path, self._manifest)
        except BlockingIOError as error:
            raise StoreInUse(
                f"{self.path} is being written to by another process or thread: wait until it is "
                "done, and try again"
            ) from error


def _plain(name: Any) -> Id:
    found = plain_id(name)
    if found is None:
        raise InvalidInput("an id of a stored passage is a str or a whole number, not None")
    return found
