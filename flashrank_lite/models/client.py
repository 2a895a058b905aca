"""huggingface_hub, and what its failures mean to somebody who wanted a model.

The client brings what downloading takes: resuming, a lock per file, redirects, proxies, tokens. It
has changed its HTTP library twice, so failures are told apart by status and by its own exceptions,
never by those of requests or httpx. Importing it takes a third of a second: `_api` does it when
something is asked of the Hub, and nothing else does.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashrank_lite import __version__
from flashrank_lite.errors import (
    AccessDenied,
    CacheNotWritable,
    DownloadFailed,
    FlashRankLiteError,
    InvalidModel,
    ModelNotFound,
)
from flashrank_lite.models.paths import is_inside
from flashrank_lite.models.record import Listed

Token = str | bool | None

_CANNOT_WRITE = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT)
)
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


def cache_folder() -> Path:
    """Where the client keeps what it downloads: HF_HUB_CACHE, or HF_HOME and "hub"."""
    from huggingface_hub import constants  # light: the package loads its parts when they are used

    return Path(constants.HF_HUB_CACHE).expanduser()


@dataclass(frozen=True)
class Client:
    """The Hub, asked about one repository.

    Args:
        repository: "org/name".
        token: as huggingface_hub takes it: None for the one it finds (HF_TOKEN or a login), False
            for none.
    """

    repository: str
    token: Token = None

    @property
    def folder(self) -> Path:
        """The repository's folder in the cache."""
        return cache_folder() / f"models--{self.repository.replace('/', '--')}"

    def snapshot(self, commit: str) -> Path:
        """Where the client puts the files of a commit."""
        return self.folder / "snapshots" / commit

    def listing(self, revision: str) -> tuple[str, dict[str, Listed]]:
        """The commit that a revision is, and its files.

        Raises:
            ModelNotFound, AccessDenied, DownloadFailed: the Hub says so.
        """
        with self._explained(revision):
            constants, api = self._api()
            info = api.model_info(
                self.repository,
                revision=revision,
                files_metadata=True,
                # the client would wait for ever; this is the time it gives a file's header
                timeout=constants.HF_HUB_ETAG_TIMEOUT,
            )
        files = {}
        for sibling in info.siblings or ():
            lfs = sibling.lfs or {}
            if is_inside(sibling.rfilename):
                files[sibling.rfilename] = Listed(
                    sibling.size, lfs.get("sha256"), None if lfs else sibling.blob_id
                )
        return str(info.sha), files

    def download(self, file: str, commit: str, *, again: bool = False) -> Path:
        """Bring a file into the cache, unless it is there.

        Args:
            file: path inside the repository.
            commit: full hash.
            again: even if it is there.

        Raises:
            ModelNotFound, AccessDenied, DownloadFailed: the Hub says so, or the line broke.
            CacheNotWritable: there is no place to put it.
        """
        with self._explained(commit, file):
            _, api = self._api()
            path = api.hf_hub_download(
                self.repository,
                file,
                revision=commit,
                cache_dir=cache_folder(),
                force_download=again,
            )
        return Path(path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One process at a time; a second one waits, and then finds what the first has brought.

        Raises:
            CacheNotWritable: there is no place for the lock file.
        """
        from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

        locks = cache_folder() / ".locks" / self.folder.name
        with ExitStack() as held:
            with self._explained("main"):
                locks.mkdir(parents=True, exist_ok=True)
                held.enter_context(WeakFileLock(locks / "flashrank-lite.lock"))
            yield

    def _api(self) -> tuple[Any, Any]:
        from huggingface_hub import HfApi, constants

        return constants, HfApi(
            endpoint=constants.ENDPOINT,
            token=self.token,
            library_name="flashrank-lite",
            library_version=__version__,
        )

    @contextmanager
    def _explained(self, revision: str, file: str | None = None) -> Iterator[None]:
        try:
            yield
        except FlashRankLiteError:
            raise
        except Exception as error:  # of three HTTP libraries, by the client's version
            raise _explain(error, self.repository, revision, file) from error


def _explain(
    error: BaseException, repository: str, revision: str, file: str | None
) -> FlashRankLiteError:
    from huggingface_hub import constants, errors

    hub, model = constants.ENDPOINT, repository
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    cause = error.__cause__
    if isinstance(error, errors.LocalEntryNotFoundError) and cause is not None:
        return _explain(cause, repository, revision, file)  # the client hides why it has no file
    if isinstance(error, errors.GatedRepoError):
        return AccessDenied(
            f"{model} is gated: accept its terms at {hub}/{model}, and pass token= or set HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelNotFound(f"{model} has no revision {revision!r}: see {hub}/{model}/commits")
    if isinstance(error, errors.RepositoryNotFoundError) and status == 404:
        return ModelNotFound(
            f"there is no model {model!r} at {hub}: correct the name; `flashrank-lite models list` "
            "shows the names we know"
        )
    if status in (401, 403):
        return AccessDenied(
            f"{hub} does not show us {model} (it answered {status}): there is no such model, or it "
            "is private and we came without the right token. Correct the name, or pass token= or "
            "set HF_TOKEN"
        )
    if isinstance(error, errors.EntryNotFoundError) or status == 404:
        return InvalidModel(f"{model} has no file {file or ''} at revision {revision}")
    if status == 429:
        wait = getattr(response, "headers", {}).get("Retry-After")
        return DownloadFailed(
            f"{hub} gets too many requests from here (it answered 429): try again "
            + (f"in {wait} seconds" if wait else "later")
            + ", or with a token (token= or HF_TOKEN), which may ask more often"
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return DownloadFailed(
            f"{file or model} is not in the cache ({cache_folder()}) and HF_HUB_OFFLINE is set: "
            f"run `flashrank-lite models pull {model}` where the Hub can be reached, or unset it"
        )
    if status is None and isinstance(error, OSError):
        number = getattr(error, "errno", None)
        if number in _FULL:
            return CacheNotWritable(
                f"the disk of {cache_folder()} is full: make room, or set HF_HOME to a folder on "
                "another disk"
            )
        if number in _CANNOT_WRITE:
            return not_writable(error)
    answer = f"it answered {status}" if status else f"{type(error).__name__}: {_first_line(error)}"
    return DownloadFailed(
        f"{file or 'the list of files'} of {model} could not be had from {hub} ({answer}): try "
        "again, which goes on where it broke off; behind a proxy set HTTPS_PROXY"
    )


def not_writable(error: OSError) -> CacheNotWritable:
    """The error for a cache that cannot be written, naming the variable to set."""
    return CacheNotWritable(
        f"models cannot be put into {cache_folder()} ({os.strerror(error.errno or 0)}): set "
        "HF_HOME to a folder that can be written, or bake the model into a folder with "
        "`flashrank-lite models pull NAME --to DIR` and load DIR"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no more is known"])[0][:200]
