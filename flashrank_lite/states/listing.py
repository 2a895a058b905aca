"""store.json: what a store lists, read with its checks and swapped in one step.

It is a JSON object with a checksum of its own: the format, what the store was made with, and the
segments with what of each was removed (bits in a file beside it).
"""

import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.errors import InvalidStore
from flashrank_lite.files import write_durably
from flashrank_lite.states.codec import Codec, check_precision

FORMAT = 1
MANIFEST = "store.json"
SEGMENTS = "segments"  # the folder that they lie in

Listing = dict[str, Any]


def write_listing(path: Path, manifest: Listing) -> None:
    """Swap a store's listing for another."""
    body = {key: value for key, value in manifest.items() if key != "checksum"}
    body["checksum"] = _checksum(body)
    write_durably(path / MANIFEST, (json.dumps(body, indent=1) + "\n").encode())


def read_listing(path: Path) -> Listing:
    """What a store lists.

    Raises:
        InvalidStore: there is none, it is damaged or of a newer release.
    """
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        version = manifest["format"]
    except FileNotFoundError as error:
        raise InvalidStore(
            f"{path} is no passage store, as it has no {MANIFEST}: make one with "
            "`ranker.encode_passages(passages, path=...)` or `flashrank-lite encode FILE -o PATH`"
        ) from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidStore(
            f"{file} cannot be read ({error}): restore a copy of the store, or encode its passages "
            "anew"
        ) from error
    if version != FORMAT:
        newer = isinstance(version, int) and version > FORMAT
        advice = "upgrade flashrank-lite" if newer else "encode its passages anew"
        raise InvalidStore(
            f"{path} is of format {version!r:.20}, and this release reads {FORMAT}: {advice}"
        )
    if manifest.get("checksum") != _checksum(
        {key: value for key, value in manifest.items() if key != "checksum"}
    ):
        raise InvalidStore(
            f"{file} is not what was written: it was altered; restore a copy of the store, or "
            "encode its passages anew"
        )
    found: dict[str, Any] = manifest
    return found


def codec_of(manifest: Listing) -> Codec:
    """What packed a store's states."""
    # a store of an earlier version has the words of its passages
    precision = check_precision(manifest["precision"])
    return Codec(precision, manifest["width"], manifest["means"], manifest.get("words", True))


def _checksum(body: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())


def removed_rows(path: Path, facts: Listing) -> NDArray[np.bool_]:
    """Rows of a listed segment that do not count any more: bool, (passages,).

    Raises:
        InvalidStore: the file that says so is damaged.
        FileNotFoundError: it is gone: a later listing does not name it.
    """
    count, stated = facts["passages"], facts["removed"]
    if stated is None:
        return np.zeros(count, np.bool_)
    file = path / SEGMENTS / facts["name"] / stated["name"]
    data = file.read_bytes()
    if zlib.crc32(data) != stated["checksum"]:
        raise InvalidStore(
            f"{file} is not what was written: the store is damaged or was altered; restore a copy "
            "of it, or encode its passages anew"
        )
    return np.unpackbits(np.frombuffer(data, np.uint8), count=count).astype(np.bool_)


def sweep(path: Path, manifest: Listing) -> None:
    """Delete what no manifest lists: left by a crash, or replaced by a change."""
    listed = {facts["name"]: facts["removed"] for facts in manifest["segments"]}
    for folder in (path / SEGMENTS).iterdir():
        if folder.name not in listed:
            shutil.rmtree(folder, ignore_errors=True)  # on Windows a reader may still hold it
            continue
        kept = listed[folder.name]
        for file in folder.glob("removed-*.bin"):
            if kept is None or file.name != kept["name"]:
                file.unlink(missing_ok=True)
    for partial in path.glob(f".{MANIFEST}.*"):
        partial.unlink(missing_ok=True)
