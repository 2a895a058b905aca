"""Sizes and hashes: is a file still the one that was described?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashrank_lite.errors import ChecksumMismatch, InvalidModel

_BLOCK = 1 << 20  # bytes read at a time


@dataclass(frozen=True)
class Facts:
    """What is known of a file's content; None where nobody stated it.

    Attributes:
        size: in bytes.
        sha256: in lower-case hexadecimal.
        git: the id that git gives the content. The Hub states it of files that are not in LFS, in
            place of a sha256.
    """

    size: int | None = None
    sha256: str | None = None
    git: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON files: what is not known is left out."""
        return {key: value for key, value in vars(self).items() if value is not None}


def facts_of(file: Path) -> Facts:
    """Size and sha256 of a file as it is."""
    return Facts(file.stat().st_size, sha256(file))


def sha256(file: Path) -> str:
    """The sha256 of a file, in lower-case hexadecimal."""
    return _hash(file, "sha256")


def check_size(file: Path, facts: Facts, stated_by: str) -> None:
    """Compare the size, which costs nothing.

    Args:
        file: the file.
        facts: what it should be.
        stated_by: who stated them, for the message.

    Raises:
        InvalidModel: the file is missing.
        ChecksumMismatch: it has another size.
    """
    if not file.is_file():
        raise InvalidModel(f"{file} is missing: fetch or export the model again")
    size = file.stat().st_size
    if facts.size is not None and size != facts.size:
        raise ChecksumMismatch(
            f"{file} has {size} bytes, but {stated_by} states {facts.size}: the copy is incomplete "
            "or the file was changed, so fetch or export the model again"
        )


def check(file: Path, facts: Facts, stated_by: str) -> bool:
    """Compare the size, and the hash if one was stated. Arguments and errors: `check_size`.

    Returns:
        Whether a hash was compared.
    """
    check_size(file, facts, stated_by)
    for name, stated, found in (
        ("sha256", facts.sha256, sha256),
        ("git id", facts.git, _git_id),
    ):
        if stated is not None and found(file) != stated.lower():
            raise ChecksumMismatch(
                f"{file} has {name} {found(file)}, but {stated_by} states {stated}: the file was "
                "changed or damaged, so fetch or export the model again"
            )
    return facts.sha256 is not None or facts.git is not None


def _git_id(file: Path) -> str:
    return _hash(file, "sha1", b"blob %d\0" % file.stat().st_size)


def _hash(file: Path, algorithm: str, before: bytes = b"") -> str:
    import hashlib  # with OpenSSL 3 ms, and loading a model compares nothing but sizes

    digest = hashlib.new(algorithm, before, usedforsecurity=False)
    with file.open("rb") as handle:
        while block := handle.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
