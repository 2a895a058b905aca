"""What lies in a segment of a store: passages that were written together, and never change.

Its files, little-endian, one row after the other:

    codes.bin     uint8, (tokens, code_bytes): packed states
    scales.bin    float16, (tokens,)
    means.bin     int8, (windows, mean_bytes)
    words.bin     uint32: token ids of each window, sorted, each once
    windows.bin   of each window where its tokens and words end, and its characters in the text
    passages.bin  of each passage where its windows and its record end, a checksum, and a flag
    records.bin   JSON of each passage: id, and what was kept of text and metadata
    index.bin     hashes of the ids, sorted, each with the row of its passage

A passage's checksum covers its bytes in all files.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flashrank_lite.states.codec import Packed

Id = str | int
Span = tuple[int, int]

WINDOW = np.dtype([("tokens", "<u8"), ("words", "<u8"), ("start", "<u4"), ("end", "<u4")])
PASSAGE = np.dtype(
    [("windows", "<u8"), ("record", "<u8"), ("checksum", "<u4"), ("truncated", "<u4")]
)
INDEX = np.dtype([("hash", "<u8"), ("row", "<u4")])
TABLES = ("windows", "passages", "index")  # small, and compared with their checksums as a whole
FILES = ("codes", "scales", "means", "words", "records", *TABLES)


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


def hash_of(name: Id) -> int:
    """Of an id, the same on every machine; "1" and 1 are two."""
    text = json.dumps(name).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def same_id(one: Id, other: Id) -> bool:
    return type(one) is type(other) and one == other
