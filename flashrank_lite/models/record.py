"""What was downloaded: the commit, what the Hub said of its files, and their checksums here.

No release of ours can know the commits of other people's repositories. The first download therefore
writes down which commit it got; later loads take that commit, without asking the Hub, until
`flashrank-lite models pull` asks for a newer one. The checksums make a later change visible.

A record lies beside the repository's snapshots in the Hub's own cache, and, as download.json, in a
folder that `models pull --to` makes.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flashrank_lite.errors import ChecksumMismatch
from flashrank_lite.models.checksums import Facts, check, check_size, git_blob_id, sha256

FORMAT = 1
IN_FOLDER = "download.json"
MAIN = "main"  # the revision that is meant where none is named

_COMMIT_LENGTH = 40


@dataclass(frozen=True)
class Listed:
    """A file of a repository as the Hub describes it: sha256 if it is in LFS, else git's id."""

    size: int | None = None
    sha256: str | None = None
    blob: str | None = None

    def matches(self, file: Path) -> bool:
        """Whether a file is the one that was described, as far as the Hub said."""
        if self.size is not None and file.stat().st_size != self.size:
            return False
        if self.sha256 is not None:
            return sha256(file) == self.sha256
        return self.blob is None or git_blob_id(file) == self.blob


@dataclass(frozen=True)
class Record:
    """One commit of a repository.

    Attributes:
        repository: "org/name" on the Hub.
        revision: the branch, tag or commit that was asked for.
        commit: what that was.
        listing: every file of the commit.
        files: those that were downloaded, as they were then.
    """

    repository: str
    revision: str
    commit: str
    listing: Mapping[str, Listed] = field(default_factory=dict)
    files: Mapping[str, Facts] = field(default_factory=dict)

    def with_files(self, files: Mapping[str, Facts]) -> "Record":
        return replace(self, files={**self.files, **files})

    def check_sizes(self, folder: Path, names: Iterable[str]) -> None:
        """Raises InvalidModel or ChecksumMismatch where a file is gone or has another size."""
        for name in names:
            check_size(folder / name, self.files[name], "the record of its download")

    def verify(self, folder: Path) -> list[str]:
        """Compare the sha256 of all downloaded files; returns their names.

        Raises:
            ChecksumMismatch: a file is not the one that was downloaded.
            InvalidModel: a file is gone.
        """
        for name, facts in self.files.items():
            check(folder / name, facts, "the record of its download")
        return list(self.files)

    def write(self, file: Path) -> None:
        """Write it whole or not at all.

        Raises:
            OSError: the folder cannot be written.
        """
        listing = {name: _known(vars(listed)) for name, listed in self.listing.items()}
        data = {
            "format": FORMAT,
            "repository": self.repository,
            "revision": self.revision,
            "commit": self.commit,
            **({"listing": listing} if listing else {}),
            "files": {name: facts.to_dict() for name, facts in self.files.items()},
        }
        write_whole(file, json.dumps(data, indent=2) + "\n")


class Records:
    """The records of one repository.

    Args:
        folder: the repository's folder in the Hub's cache.
        repository: "org/name".
    """

    def __init__(self, folder: Path, repository: str) -> None:
        self._folder = folder / "flashrank-lite"
        self._repository = repository

    def find(self, revision: str) -> Record | None:
        """The record that a revision was found to be; of a commit, its own."""
        commit = revision
        if not is_commit(revision):
            try:
                commit = self._pin(revision).read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError):
                return None
        record = read_record(self._folder / f"{commit}.json") if is_commit(commit) else None
        return None if record is None else replace(record, revision=revision)

    def keep(self, record: Record) -> None:
        """Write a record, and which commit its revision was.

        Raises:
            OSError: the cache cannot be written.
        """
        record.write(self._folder / f"{record.commit}.json")
        if not is_commit(record.revision):
            write_whole(self._pin(record.revision), record.commit)

    def _pin(self, revision: str) -> Path:
        return self._folder / "revisions" / quote(revision, safe="")


def read_record(file: Path) -> Record | None:
    """Read a record; None if there is none, or none that this release can read."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            return None
        return Record(
            data["repository"],
            data["revision"],
            data["commit"],
            {name: Listed(**facts) for name, facts in data.get("listing", {}).items()},
            {name: Facts(**facts) for name, facts in data["files"].items()},
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def is_commit(revision: str) -> bool:
    """Whether a revision is a full commit hash, and so always the same files."""
    return len(revision) == _COMMIT_LENGTH and set(revision) <= set("0123456789abcdef")


def vouch(file: Path, listed: Listed, repository: str) -> Facts:
    """The checksums of a file that was just downloaded, compared with what the Hub said of it.

    Raises:
        ChecksumMismatch: the file is another one.
    """
    if not listed.matches(file):
        raise ChecksumMismatch(
            f"{file} is not the file that the Hub lists for {repository}: the download was "
            "damaged, or something between us changed it. Try `flashrank-lite models pull "
            f"{repository}`"
        )
    return Facts(file.stat().st_size, listed.sha256 or sha256(file))


def write_whole(file: Path, text: str) -> None:
    """Write a small file in one step, so that nobody ever reads half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(name, 0o644)  # mkstemp's 0600 would shut other users of a shared cache out
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise


def _known(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if value is not None}
