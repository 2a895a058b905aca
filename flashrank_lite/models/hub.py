"""A repository on the Hugging Face Hub: which of its files a model takes, found or downloaded.

huggingface_hub downloads, into its cache. What is added: only the files that the graph for this
processor takes are brought, each is compared with what the Hub states of it, and a model that was
downloaded before is loaded without asking the Hub (`records.py` says at which commit).
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Literal

from flashrank_lite.errors import (
    CacheNotWritable,
    ChecksumMismatch,
    DownloadFailed,
    InvalidModel,
)
from flashrank_lite.models import records
from flashrank_lite.models.checksums import Facts, check, check_size
from flashrank_lite.models.client import Client
from flashrank_lite.models.folder import ResolvedModel
from flashrank_lite.models.graphs import GraphChoice, choose_graph
from flashrank_lite.models.manifest import (
    CONFIG,
    MANIFEST,
    TOKENIZER,
    TOKENIZER_CONFIG,
    read_manifest,
)
from flashrank_lite.models.records import MAIN, Record
from flashrank_lite.options import Token
from flashrank_lite.runtime.onnx_file import external_files

logger = logging.getLogger(__name__)

_ATTEMPTS = 2  # downloads of a file that arrives damaged


def fetch(
    repository: str,
    revision: str | None = None,
    file: str | GraphChoice | None = None,
    token: Token = None,
    *,
    name: str | None = None,
    refresh: bool = False,
) -> ResolvedModel:
    """Find a model in the cache, and download what is not there.

    Args:
        repository: "org/name".
        revision: a branch, a tag or a full commit hash; None for "main". Without `refresh` it is
            the commit that it was when it was first downloaded.
        file: the graph, as a path inside the repository; None for the best for this processor.
        token: for private and gated repositories.
        name: what to call the model, where it has no reranker.json; None for the repository.
        refresh: ask what the revision is now, and compare the hashes of files that are there.

    Raises:
        ModelNotFound: no such repository or revision.
        AccessDenied: it is private or gated, and the token does not open it.
        DownloadFailed: the Hub could not be reached, refused for now, or broke off.
        CacheNotWritable: the cache cannot be written.
        InvalidModel: it holds nothing that can be run; the message says what it lacks.
        ChecksumMismatch: a file is not the one that the Hub or the model's manifest describes.
    """
    client, revision = Client(repository, token), revision or MAIN
    record = None if refresh else records.recorded(repository, revision)
    if record is not None:
        return _assemble(client, record, file, name)
    try:
        record = client.commit(revision)
        fetched = _assemble(client, record, file, name, compare=True)
        records.keep(record, revision)
    except (DownloadFailed, CacheNotWritable) as error:
        found = None if refresh else _downloaded_by_others(client, revision, file, name)
        if found is None:
            raise
        note = "%s is taken from the cache as another program left it, unverified: %s"
        logger.warning(note, repository, error)
        return found
    logger.info("%s at %s, %s", repository, record.commit, fetched.graph.file)
    return fetched


def fetch_files(
    repository: str,
    revision: str | None,
    wanted: Callable[[Mapping[str, Facts]], list[str]],
    token: Token = None,
    *,
    update: Literal["never", "if reachable", "always"] = "if reachable",
) -> tuple[Path, Record]:
    """Find or download the files that `wanted` picks from a listing, all of one commit.

    Args:
        repository, revision, token: as for `fetch`.
        wanted: gets the files of the commit, returns the paths of those to bring.
        update: whether to ask what the revision is now, if there was an earlier download; "if
            reachable" takes that where the Hub cannot be asked, and "always" also compares the
            hashes of files that are there.

    Returns:
        The folder, and the record of the commit.

    Raises:
        As `fetch`.
    """
    client, revision = Client(repository, token), revision or MAIN
    record = before = records.recorded(repository, revision)
    if record is None or update != "never":
        try:
            record = client.commit(revision)
        except DownloadFailed:
            if before is None or update == "always":
                raise
            record = before
    unknown = records.recorded(repository, record.commit) is None
    compare = unknown or update == "always"
    for name in wanted(record.files):
        _bring(client, record, name, compare)
    if record is not before:
        records.keep(record, revision)
    return records.snapshot(repository, record.commit), record


def _assemble(
    client: Client,
    record: Record,
    file: str | GraphChoice | None,
    name: str | None,
    *,
    compare: bool = False,
) -> ResolvedModel:
    """Choose the graph and bring the files that it takes.

    Small files come first, so that a model that cannot be run is refused before its graph is
    downloaded.
    """
    repository, files = client.repository, record.files
    folder = records.snapshot(repository, record.commit)
    needed: dict[str, None] = {}  # in order, once each

    def bring(names: Iterable[str]) -> None:
        for name in names:
            if name not in needed:
                _bring(client, record, name, compare)
                needed[name] = None

    if TOKENIZER not in files:
        raise InvalidModel(
            f"{repository} has no {TOKENIZER}, the file of a fast tokenizer: export the model, "
            f"which makes one, with `flashrank-lite export {repository} OUT`, and load OUT"
        )
    if MANIFEST not in files:
        choose_graph((), files, repository, file)
    bring(name for name in (MANIFEST, CONFIG, TOKENIZER_CONFIG) if name in files)
    manifest = read_manifest(folder, name or repository)
    graph = choose_graph(manifest.variants, files, repository, file)
    stated = manifest.files_of(graph.file)
    missing = [name for name in stated if name not in files]
    if missing:
        raise InvalidModel(
            f"{repository} lacks {', '.join(missing)}, which its {MANIFEST} names: tell its owner, "
            "or pass the revision= of an earlier upload"
        )
    bring([TOKENIZER, *stated, graph.file])
    bring(_weights(folder, graph.file, files))
    for stated_name, facts in stated.items():
        (check if compare else check_size)(folder / stated_name, facts, MANIFEST)
    return ResolvedModel(
        folder,
        "hub",
        manifest,
        graph,
        repository=repository,
        revision=record.commit,
        languages=manifest.languages,
        needed=tuple(needed),
    )


def _bring(client: Client, record: Record, name: str, compare: bool) -> None:
    """Download a file unless it is there; a copy that is damaged is downloaded once more.

    Args:
        compare: compare the hash of a file that is there, and not only its size.

    Raises:
        InvalidModel: the commit has no such file.
        ChecksumMismatch: it has another size than recorded, or its download was damaged twice.
    """
    facts = record.files.get(name)
    if facts is None:
        raise InvalidModel(f"{record.repository} has no file {name} at {record.commit}")
    path = records.snapshot(record.repository, record.commit) / name
    if path.is_file() and not compare:
        return check_size(path, facts, "the record of its download")
    for _ in range(_ATTEMPTS):
        path = client.download(name, record.commit)
        try:
            check(path, facts, "the Hub")
            return None
        except ChecksumMismatch as error:
            logger.warning("%s; it is removed", error)
            path.resolve().unlink()  # the snapshot's file may be a link
            path.unlink(missing_ok=True)
    raise ChecksumMismatch(
        f"{path} came twice as another file than the Hub lists for {record.repository}: the "
        "download was damaged, or a proxy changed it. Try `flashrank-lite models pull "
        f"{record.repository}`, or another network"
    )


def _weights(folder: Path, graph: str, files: Collection[str]) -> list[str]:
    """The files beside a graph that hold its weights; the runtime tells which are missing."""
    beside = (PurePosixPath(graph).parent / name for name in external_files(folder / graph))
    return [str(path) for path in beside if str(path) in files]


def _downloaded_by_others(
    client: Client, revision: str, file: str | GraphChoice | None, name: str | None
) -> ResolvedModel | None:
    """What another program put into the cache, if it is all that the model takes."""
    commit = revision
    if not records.is_commit(revision):
        ref = records.repository_folder(client.repository) / "refs" / revision
        try:
            commit = ref.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
    folder = records.snapshot(client.repository, commit)
    if not records.is_commit(commit) or not folder.is_dir():
        return None
    paths = [path for path in folder.rglob("*") if path.is_file()]
    files = {path.relative_to(folder).as_posix(): Facts() for path in paths}
    try:
        return _assemble(client, Record(client.repository, commit, files), file, name)
    except InvalidModel:
        return None  # why the rest cannot be downloaded tells more
