"""What a teacher makes of texts, kept on disk: computed once, added to by every later run.

A folder of flat files that only grow. A text's key is the digest of its token ids, so that another
choice of texts finds what it shares with the last one. The keys are written last: a run that is
killed loses what it wrote since, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

KEY_BYTES = 16


def key_of(ids: np.ndarray) -> bytes:
    """What a text of token ids is found by."""
    return hashlib.blake2b(ids.astype(np.int32).tobytes(), digest_size=KEY_BYTES).digest()


class StateStore:
    """Arrays of shape (rows, columns), fp16, for each text: by name, all of one number of rows.

    Args:
        folder: made where it is missing.
        columns: of each array, by its name.
        origin: what made them (a digest of weights, settings); a folder of another origin is
            refused.
    """

    def __init__(self, folder: Path, columns: Mapping[str, int], origin: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.columns = folder, dict(columns)
        facts = {"columns": self.columns, "origin": origin}
        about = folder / "about.json"
        if about.exists() and json.loads(about.read_text()) != facts:
            raise SystemExit(
                f"{folder} was made by another teacher or with other settings: "
                f"{about.read_text()}; now {json.dumps(facts)}. Choose another --work, or remove it"
            )
        about.write_text(json.dumps(facts))
        keys = self._file("keys.bin").read_bytes()
        lengths = np.fromfile(self._file("lengths.i32"), np.int32)
        count = min(len(keys) // KEY_BYTES, len(lengths))
        self._index = {keys[KEY_BYTES * i : KEY_BYTES * (i + 1)]: i for i in range(count)}
        self._ends = [0, *np.cumsum(lengths[:count], dtype=np.int64).tolist()]
        self._cut(count)
        self._maps: dict[str, np.ndarray] = {}

    def __contains__(self, ids: np.ndarray) -> bool:
        return key_of(ids) in self._index

    def __len__(self) -> int:
        return len(self._index)

    def add(self, texts: Sequence[np.ndarray], arrays: Mapping[str, Sequence[np.ndarray]]) -> None:
        """Add some texts, by their token ids, with their arrays."""
        for name in self.columns:
            with self._file(f"{name}.f16").open("ab") as out:
                for one in arrays[name]:
                    out.write(np.ascontiguousarray(one, np.float16).tobytes())
        lengths = [len(one) for one in next(iter(arrays.values()))]
        with self._file("lengths.i32").open("ab") as out:
            out.write(np.array(lengths, np.int32).tobytes())
        with self._file("keys.bin").open("ab") as out:
            out.write(b"".join(map(key_of, texts)))
        for ids, length in zip(texts, lengths, strict=True):
            self._index[key_of(ids)] = len(self._index)
            self._ends.append(self._ends[-1] + length)
        self._maps.clear()

    def get(self, ids: np.ndarray, name: str) -> np.ndarray:
        """The array of a text, fp16, (rows, columns). KeyError where it is not kept."""
        place = self._index[key_of(ids)]
        if name not in self._maps:
            shape = (self._ends[-1], self.columns[name])
            self._maps[name] = np.memmap(self._file(f"{name}.f16"), np.float16, "r", shape=shape)
        return self._maps[name][self._ends[place] : self._ends[place + 1]]

    def _file(self, name: str) -> Path:
        file = self.folder / name
        if not file.exists():
            file.touch()
        return file

    def _cut(self, count: int) -> None:
        """Drop what a killed run wrote beyond its last key."""
        sizes = {
            f"{name}.f16": 2 * columns * self._ends[-1] for name, columns in self.columns.items()
        }
        for name, size in {
            **sizes,
            "lengths.i32": 4 * count,
            "keys.bin": KEY_BYTES * count,
        }.items():
            with self._file(name).open("r+b") as file:
                file.truncate(size)
