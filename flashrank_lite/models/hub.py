"""A repository on the Hugging Face Hub → a folder on disk that holds what it takes to run it.

The files are the Hub client's, in the Hub's cache. What is ours: the record of what was got, and
the rule that a model which is there is not asked for again. `needs.py` says which files are needed.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flashrank_lite.errors import (
    CacheNotWritable,
    ChecksumMismatch,
    DownloadFailed,
    InvalidModel,
    ModelNotFound,
)
from flashrank_lite.models.checksums import Facts
from flashrank_lite.models.client import Client, Token, not_writable
from flashrank_lite.models.folder import parse_manifest
from flashrank_lite.models.manifest import MANIFEST
from flashrank_lite.models.needs import CONFIG, beside, plan, weights_of
from flashrank_lite.models.record import MAIN, Listed, Record, Records, is_commit, vouch
from flashrank_lite.models.variants import Choice

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetched:
    """A model on disk.

    Attributes:
        folder: where its files lie.
        choice: the graph to run, and why.
        record: where they came from.
        needed: the files it takes, as paths inside the folder.
    """

    folder: Path
    choice: Choice
    record: Record
    needed: tuple[str, ...]


def fetch(
    repository: str,
    revision: str | None = None,
    file: str | None = None,
    token: Token = None,
    *,
    refresh: bool = False,
) -> Fetched:
    """Find a repository's files in the cache, and download those that are not there.

    Without `refresh`, a revision that was downloaded before is the commit that it was then, and the
    Hub is asked only for what is missing.

    Args:
        repository: "org/name".
        revision: a branch, a tag or a full commit hash; None for "main".
        file: the graph, as a path inside the repository; None for the best for this processor.
        token: for private and gated repositories.
        refresh: ask what the revision is now, and compare the checksums of what is there.

    Raises:
        ModelNotFound: no such repository or revision.
        AccessDenied: it is not for us.
        DownloadFailed: the Hub could not be reached, refused for now, or broke off.
        CacheNotWritable: there is no place to put it.
        InvalidModel: it holds nothing that can be run; the message says what it lacks.
        ChecksumMismatch: a file is not the one that the Hub lists.
    """
    client = Client(repository, token)
    revision = revision or MAIN
    records = Records(client.folder, repository)
    if not refresh:
        found = _recorded(client, records.find(revision), file)
        if found is not None:
            return found
    try:
        with client.lock():
            if not refresh:  # another process may have brought it while we waited
                found = _recorded(client, records.find(revision), file)
                if found is not None:
                    return found
            return _download(client, records, revision, file, refresh)
    except (DownloadFailed, CacheNotWritable):
        found = None if refresh else _left_by_others(client, revision, file)
        if found is None:
            raise
        return found


def fetch_file(
    repository: str, name: str, revision: str | None, token: Token, *, refresh: bool = False
) -> tuple[Path, Record]:
    """Find one file of a repository in the cache, or download it. Arguments and errors: `fetch`."""
    client = Client(repository, token)
    revision = revision or MAIN
    records = Records(client.folder, repository)
    record = None if refresh else records.find(revision)
    if record is None or not _all_there(client.snapshot(record.commit), record, [name]):
        with client.lock():
            record = _newest(client, records, revision, refresh)
            if name not in record.listing:
                raise InvalidModel(f"{repository} has no file {name} any more: see its page")
            record = record.with_files({name: _bring(client, record, name, refresh)})
            _keep(records, record)
    folder = client.snapshot(record.commit)
    record.check_sizes(folder, [name])
    return folder / name, record


def fetch_files(
    repository: str,
    revision: str | None,
    wanted: Callable[[Mapping[str, Listed]], list[str]],
    token: Token = None,
) -> tuple[Path, Record]:
    """Download the files that `wanted` picks from the newest listing, all of one commit.

    Where the Hub cannot be asked, those of an earlier download are found. Errors: `fetch`.
    """
    client = Client(repository, token)
    revision = revision or MAIN
    records = Records(client.folder, repository)
    with client.lock():
        try:
            record = _newest(client, records, revision, True)
        except DownloadFailed:
            before = records.find(revision)
            if before is None:
                raise
            record = before
        names = wanted(record.listing)
        record = record.with_files({name: _bring(client, record, name, False) for name in names})
        _keep(records, record)
    return client.snapshot(record.commit), record


def recorded(repository: str, revision: str | None = None) -> Record | None:
    """The record of an earlier download, None if there is none. Nobody is asked."""
    return Records(Client(repository).folder, repository).find(revision or MAIN)


def folder_of(record: Record) -> Path:
    """Where the files of a record lie in the cache."""
    return Client(record.repository).snapshot(record.commit)


def _recorded(client: Client, record: Record | None, file: str | None) -> Fetched | None:
    """What an earlier download brought, if that is all it takes.

    Raises:
        ChecksumMismatch: a file has another size by now.
    """
    if record is None:
        return None
    folder = client.snapshot(record.commit)
    manifest = MANIFEST in record.listing
    if manifest and not _all_there(folder, record, [MANIFEST]):
        return None
    choice, needed = plan(record, folder, file)
    if not _all_there(folder, record, needed):
        return None
    # whoever recorded the graph has recorded its weights too
    weights = [name for name in beside(choice.file, record.listing) if name in record.files]
    needed = [*needed, *weights]
    record.check_sizes(folder, needed)
    return Fetched(folder, choice, record, tuple(needed))


def _all_there(folder: Path, record: Record, names: list[str]) -> bool:
    return all(name in record.files and (folder / name).is_file() for name in names)


def _download(
    client: Client, records: Records, revision: str, file: str | None, refresh: bool
) -> Fetched:
    record = _newest(client, records, revision, refresh)
    folder = client.snapshot(record.commit)
    got: dict[str, Facts] = {}

    def bring(names: list[str]) -> None:
        for name in names:
            if name not in got:
                got[name] = _bring(client, record, name, refresh)

    if MANIFEST in record.listing:
        bring([MANIFEST])
    choice, needed = plan(record, folder, file)
    bring([name for name in needed if name in CONFIG])
    parse_manifest(folder, client.repository)  # what is refused is refused before its graph comes
    bring(needed)
    weights = weights_of(folder, choice.file, record.listing)
    bring(weights)
    if MANIFEST in got:
        _check_against_manifest(folder, got)
    record = record.with_files(got)
    _keep(records, record)
    logger.info("%s at %s, %s", client.repository, record.commit, choice.file)
    return Fetched(folder, choice, record, (*needed, *weights))


def _check_against_manifest(folder: Path, got: Mapping[str, Facts]) -> None:
    """The owner's manifest has a word of its own on what the files are.

    Raises:
        ChecksumMismatch: a file is the one that lies on the Hub, but not the one that was meant.
    """
    manifest = parse_manifest(folder)
    parts = (manifest.files, *(variant.files for variant in manifest.variants))
    for name, facts in (item for part in parts for item in part.items()):
        found = got.get(name)
        if found and facts.sha256 and found.sha256 != facts.sha256.lower():
            raise ChecksumMismatch(
                f"{folder / name} has sha256 {found.sha256}, but {MANIFEST} says {facts.sha256}: "
                "the repository contradicts itself; tell its owner, or pass the revision= of an "
                "earlier upload"
            )


def _newest(client: Client, records: Records, revision: str, refresh: bool) -> Record:
    record = records.find(revision)
    if record is not None and not refresh:
        return record
    commit, listing = client.listing(revision)
    known = records.find(commit)
    return Record(client.repository, revision, commit, listing, known.files if known else {})


def _keep(records: Records, record: Record) -> None:
    try:
        records.keep(record)
    except OSError as error:
        raise not_writable(error) from error


def _bring(client: Client, record: Record, name: str, check: bool) -> Facts:
    """Download a file, or find it there; a copy that is not what the Hub lists is fetched anew."""
    before = record.files.get(name)
    path = client.download(name, record.commit)
    if before is not None and not check and path.stat().st_size == before.size:
        return before
    listed = record.listing[name]
    try:
        return vouch(path, listed, client.repository)
    except ChecksumMismatch:
        logger.warning("%s is damaged: it is downloaded again", path)
        return vouch(client.download(name, record.commit, again=True), listed, client.repository)


def _left_by_others(client: Client, revision: str, file: str | None) -> Fetched | None:
    """What another program put into the Hub's cache, for when the Hub cannot be asked."""
    commit = revision
    if not is_commit(revision):
        try:
            commit = (client.folder / "refs" / revision).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
    folder = client.snapshot(commit)
    if not is_commit(commit) or not folder.is_dir():
        return None
    paths = [path for path in folder.rglob("*") if path.is_file()]
    listing = {path.relative_to(folder).as_posix(): Listed() for path in paths}
    try:
        choice, needed = plan(Record(client.repository, revision, commit, listing), folder, file)
    except (InvalidModel, ModelNotFound):
        return None  # not all of it is there, and why the rest cannot be had says more
    logger.warning(
        "%s is taken from the cache as another program left it, unverified", client.repository
    )
    return Fetched(folder, choice, Record(client.repository, revision, commit), tuple(needed))
