"""The graphs of an export that was refused, kept so that the next try goes on from them.

Tracing 0.6 B parameters takes minutes and rounding them most of an hour, while what a refusal asks
for (another maximum length, evaluation file or tolerance of int8) often changes neither.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flashrank_lite.export.source import Source
from flashrank_lite.models.manifest import read_json

RECORD = "steps.json"
KEPT_FROM = 200_000_000  # bytes of graphs, from which on a refusal keeps them unasked


class Steps:
    """What an earlier try has finished, and what this one has.

    Args:
        kept: where graphs of an earlier try lie, and where those of this one are put if it is
            refused.
        resume: whether to take the earlier ones.
    """

    def __init__(self, kept: Path, *, resume: bool) -> None:
        self._kept, self._resume = kept, resume
        self._done: dict[str, Any] = (read_json(kept / RECORD) or {}) if resume else {}
        self._made: dict[str, Any] = {}

    def take(self, step: str, key: str, into: Path) -> list[Path] | None:
        """The graph of a step, copied into a folder, if an earlier try made it of the same things.

        Returns:
            Its files, the graph first; None if it has to be made.
        """
        found = self._done.get(step) or {}
        files = [self._kept / name for name in found.get("files", ())]
        if found.get("key") != key or not files or not all(file.is_file() for file in files):
            return None
        self._made[step] = found
        return [Path(shutil.copy2(file, into / file.name)) for file in files]

    def record(self, step: str, key: str, files: Sequence[Path]) -> None:
        """Note that a step is done."""
        self._made[step] = {"key": key, "files": [file.name for file in files]}

    def keep(self, folder: Path) -> bool:
        """After a refusal: keep the graphs in `folder`, if they are large or were asked for."""
        names = [name for step in self._made.values() for name in step["files"]]
        files = [folder / name for name in names if (folder / name).is_file()]
        if not files or not (self._resume or sum(f.stat().st_size for f in files) >= KEPT_FROM):
            return False
        self._kept.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.move(file, self._kept / file.name)
        (self._kept / RECORD).write_text(json.dumps(self._made), encoding="utf-8")
        return True

    def drop(self) -> None:
        """After success: what was kept is of no more use."""
        if (self._kept / RECORD).is_file():
            shutil.rmtree(self._kept)


def key_of(source: Source, *parts: object) -> str:
    """Tells two exports apart that would make different graphs: by weights, inputs and `parts`."""
    weights = [
        (file.name, file.stat().st_size, file.stat().st_mtime_ns)
        for file in sorted(source.checkpoint.rglob("*") if source.checkpoint else ())
        if file.suffix in (".safetensors", ".bin", ".json")
    ]
    tokenizer = hashlib.sha256(source.tokenizer.read_bytes()).hexdigest()
    everything = [weights, tokenizer, source.inputs, source.head, source.template, *parts]
    return hashlib.sha256(repr(everything).encode()).hexdigest()
