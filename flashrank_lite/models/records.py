"""Which commit of a repository was downloaded, and what the Hub stated of that commit's files.

What huggingface_hub keeps does not serve for this. Its `refs/main` is moved by every program that
downloads from the repository, so a model would change under a user who asked for nothing; here a
revision stays at its commit until `flashrank-lite models pull`. Its listing of a commit is stored
by recent versions only, privately; here it lets a load choose the graph, and notice a damaged file,
without asking the Hub. Its `verify_repo_checksums` asks the Hub, and reports as missing
every file that was not downloaded.

A record lies beside the repository's snapshots in the Hub's own cache and never changes, since a
commit does not; which of its files were downloaded is what lies in the snapshot. As download.json,
one lies in a folder that `models pull --to` makes.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from flashrank_lite.errors import CacheNotWritable
from flashrank_lite.files import write_whole
from flashrank_lite.models.checksums import Facts

FORMAT = 2
IN_FOLDER = "download.json"
MAIN = "main"  # the revision that is meant where none is named

_COMMIT_LENGTH = 40


@dataclass(frozen=True)
class Record:
    """One commit of a repository.

    Attributes:
        repository: "org/name" on the Hub.
        commit: its full hash.
        files: what is known of each of its files.
    """

    repository: str
    commit: str
    files: Mapping[str, Facts]

    def write(self, file: Path) -> None:
        """Write it whole or not at all.

        Raises:
            OSError: the folder cannot be written.
        """
        files = {name: facts.to_dict() for name, facts in self.files.items()}
        data = {"format": FORMAT, "repository": self.repository, "commit": self.commit}
        write_whole(file, json.dumps({**data, "files": files}, indent=1) + "\n")


def read_record(file: Path) -> Record | None:
    """Read a record; None if there is none, or none that this release can read."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            return None
        files = {name: Facts(**facts) for name, facts in data["files"].items()}
        return Record(data["repository"], data["commit"], files)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def cache_folder() -> Path:
    """Where huggingface_hub keeps what it downloads: HF_HUB_CACHE, or HF_HOME and "hub"."""
    from huggingface_hub import constants  # light: the package loads its parts when they are used

    return Path(constants.HF_HUB_CACHE).expanduser()


def repository_folder(repository: str) -> Path:
    """The folder of a repository in the cache."""
    return cache_folder() / f"models--{repository.replace('/', '--')}"


def snapshot(repository: str, commit: str) -> Path:
    """Where huggingface_hub puts the files of a commit."""
    return repository_folder(repository) / "snapshots" / commit


def recorded(repository: str, revision: str | None = None) -> Record | None:
    """The record of an earlier download, None if there is none. The Hub is not asked."""
    revision = revision or MAIN
    commit = revision
    if not is_commit(revision):
        try:
            commit = _pin(repository, revision).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
    return read_record(_own_folder(repository) / f"{commit}.json") if is_commit(commit) else None


def downloaded(
    repository: str, revision: str | None = None, archive: str | None = None
) -> tuple[Path, Record] | None:
    """What an earlier download brought. The Hub is not asked.

    Args:
        repository, revision: as for `flashrank_lite.models.hub.fetch`.
        archive: the zip file of the repository that holds the model, if one does.

    Returns:
        The folder, and the record of those of its files that are there; None if there are none.
    """
    record = recorded(repository, revision)
    if record is None:
        return None
    if archive is not None:
        folder = unpacked(record, archive)
        unzipped = read_record(folder / IN_FOLDER)
        return None if unzipped is None else (folder, unzipped)
    folder = snapshot(repository, record.commit)
    there = {name: facts for name, facts in record.files.items() if (folder / name).is_file()}
    return (folder, replace(record, files=there)) if there else None


def unpacked(record: Record, archive: str) -> Path:
    """Where a zip file of a repository is unpacked."""
    return _own_folder(record.repository) / f"{record.commit}-{PurePosixPath(archive).stem}"


def keep(record: Record, revision: str) -> None:
    """Write a record, and that its commit is what the revision stands for from now on.

    Raises:
        CacheNotWritable: the cache cannot be written.
    """
    try:
        record.write(_own_folder(record.repository) / f"{record.commit}.json")
        if not is_commit(revision):
            write_whole(_pin(record.repository, revision), record.commit)
    except OSError as error:
        raise not_writable(error) from error


def not_writable(error: OSError) -> CacheNotWritable:
    """The error for a cache that cannot be written, naming the variable to set."""
    return CacheNotWritable(
        f"models cannot be put into {cache_folder()} ({os.strerror(error.errno or 0)}): make room, "
        "set HF_HOME to a folder that can be written, or bake the model into a folder with "
        "`flashrank-lite models pull NAME --to DIR` and load DIR"
    )


def is_commit(revision: str) -> bool:
    """Whether a revision is a full commit hash, and so always the same files."""
    return len(revision) == _COMMIT_LENGTH and set(revision) <= set("0123456789abcdef")


def _pin(repository: str, revision: str) -> Path:
    return _own_folder(repository) / "revisions" / quote(revision, safe="")


def _own_folder(repository: str) -> Path:
    return repository_folder(repository) / "flashrank-lite"
