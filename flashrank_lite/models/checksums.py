"""Sizes and hashes: is a file the one that was described?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashrank_lite.errors import ChecksumMismatch, InvalidModel

_BLOCK = 1 << 20  # bytes read at a time


@dataclass(frozen=True)
class Facts:
    """Size in bytes and sha256 of a file; None where nobody said."""

    size: int | None = None
    sha256: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As it stands in JSON files; what is not known is left out."""
        known = {"size": self.size, "sha256": self.sha256}
        return {key: value for key, value in known.items() if value is not None}


def facts_of(file: Path) -> Facts:
    """Size and sha256 of a file as it is."""
    return Facts(file.stat().st_size, sha256(file))


def sha256(file: Path) -> str:
    """The sha256 of a file, in lower-case hexadecimal."""
    return _hash(file, "sha256")


def git_blob_id(file: Path) -> str:
    """What git, and with it the Hub, calls a file that is not in LFS."""
    return _hash(file, "sha1", b"blob %d\0" % file.stat().st_size)


def check_size(file: Path, facts: Facts, said_by: str) -> None:
    """Compare the size, which costs nothing.

    Args:
        file: the file.
        facts: what it should be.
        said_by: who said so, for the message.

    Raises:
        InvalidModel: the file is missing.
        ChecksumMismatch: it has another size.
    """
    if not file.is_file():
        raise InvalidModel(f"{file} is missing: fetch or export the model again")
    size = file.stat().st_size
    if facts.size is not None and size != facts.size:
        raise ChecksumMismatch(
            f"{file} has {size} bytes, but {said_by} says {facts.size}: the copy is incomplete or "
            "the file was changed, so fetch or export the model again"
        )


def check(file: Path, facts: Facts, said_by: str) -> None:
    """Compare size and sha256. Arguments and errors as for `check_size`."""
    check_size(file, facts, said_by)
    if facts.sha256 is None:
        return
    found = sha256(file)
    if found != facts.sha256.lower():
        raise ChecksumMismatch(
            f"{file} has sha256 {found}, but {said_by} says {facts.sha256}: the file was "
            "changed or damaged, so fetch or export the model again"
        )


def _hash(file: Path, algorithm: str, before: bytes = b"") -> str:
    import hashlib  # with OpenSSL 3 ms, and loading a model compares nothing but sizes

    digest = hashlib.new(algorithm, before, usedforsecurity=False)
    with file.open("rb") as handle:
        while block := handle.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
