"""Requests to the Hugging Face Hub, and what its failures mean to somebody who wanted a model.

huggingface_hub brings what downloading takes: resuming, a lock per file, redirects, proxies and
tokens. It has changed its HTTP library twice, so failures are told apart by status, headers and its
own exceptions, never by those of requests or httpx. Its API takes a third of a second to import:
only `_api` does so, when something is asked of the Hub.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashrank_lite import __version__
from flashrank_lite.errors import (
    AccessDenied,
    DownloadFailed,
    FlashRankLiteError,
    InvalidModel,
    ModelNotFound,
    first_line,
)
from flashrank_lite.files import is_inside
from flashrank_lite.models.checksums import Facts
from flashrank_lite.models.records import Record, cache_folder, not_writable
from flashrank_lite.options import Token

_CANNOT_WRITE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT}
    | {errno.ENOSPC, errno.EDQUOT}
)
_REFUSALS = frozenset((401, 403, 404, 410, 451))  # what a firewall's own page may come with, too


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

    def commit(self, revision: str) -> Record:
        """The commit that a revision is now, and its files.

        Raises:
            ModelNotFound, AccessDenied, DownloadFailed: the Hub says so.
        """
        with self._explained(revision):
            constants, api = self._api()
            info = api.model_info(
                self.repository,
                revision=revision,
                files_metadata=True,
                # huggingface_hub would wait for ever; this is its limit for a file's header
                timeout=constants.HF_HUB_ETAG_TIMEOUT,
            )
        files = {}
        for sibling in info.siblings or ():
            lfs = sibling.lfs or {}
            if is_inside(sibling.rfilename):
                git = None if lfs else sibling.blob_id
                files[sibling.rfilename] = Facts(sibling.size, lfs.get("sha256"), git)
        return Record(self.repository, str(info.sha), files)

    def download(self, file: str, commit: str) -> Path:
        """Bring a file of a commit into the cache, unless it is there.

        Raises:
            ModelNotFound, AccessDenied, DownloadFailed: the Hub says so, or the connection broke.
            CacheNotWritable: the cache cannot be written.
        """
        with self._explained(commit, file):
            _, api = self._api()
            path = api.hf_hub_download(
                self.repository, file, revision=commit, cache_dir=cache_folder()
            )
        return Path(path)

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
        except Exception as error:  # of three HTTP libraries, by huggingface_hub's version
            raise _explain(error, self.repository, revision, file) from error


def _explain(
    error: BaseException, repository: str, revision: str, file: str | None
) -> FlashRankLiteError:
    from huggingface_hub import constants, errors

    hub, model = constants.ENDPOINT, repository
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    headers = getattr(response, "headers", {})
    cause = error.__cause__
    if isinstance(error, errors.LocalEntryNotFoundError) and cause is not None:
        return _explain(cause, repository, revision, file)  # huggingface_hub hides the reason
    if status in _REFUSALS and not (headers.get("X-Error-Code") or headers.get("X-Error-Message")):
        return DownloadFailed(
            f"{file or model} could not be had: {hub} answered {status} without the Hub's error "
            "code, as a firewall or proxy does. Allow the Hub there, set HTTPS_PROXY, or pull the "
            f"model elsewhere (`flashrank-lite models pull {model} --to DIR`) and load DIR"
        )
    if isinstance(error, errors.GatedRepoError):
        return AccessDenied(
            f"{model} is gated: accept its terms at {hub}/{model}, and pass token= or set HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelNotFound(f"{model} has no revision {revision!r}: see {hub}/{model}/commits")
    if isinstance(error, errors.RepositoryNotFoundError) and status == 404:
        return ModelNotFound(
            f"there is no model {model!r} at {hub}: correct the name; `flashrank-lite models list` "
            "shows the names that are known"
        )
    if status in (401, 403):
        return AccessDenied(
            f"access to {model} denied ({status}): it does not exist, or it is private and the "
            "token is missing or wrong. Correct the name, or pass token= or set HF_TOKEN"
        )
    if isinstance(error, errors.EntryNotFoundError) or status == 404:
        return InvalidModel(f"{model} has no file {file or ''} at revision {revision}")
    if status == 429:
        wait = headers.get("Retry-After")
        return DownloadFailed(
            f"{hub} answered 429, too many requests from here: try again "
            f"{f'in {wait} seconds' if wait else 'later'}, or with a token (token= or HF_TOKEN), "
            "which allows more of them"
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return DownloadFailed(
            f"{file or model} is not in the cache ({cache_folder()}) and HF_HUB_OFFLINE is set: "
            f"run `flashrank-lite models pull {model}` where the Hub can be reached, or unset it"
        )
    if status is None and isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
        return not_writable(error)
    answer = f"it answered {status}" if status else f"{type(error).__name__}: {first_line(error)}"
    return DownloadFailed(
        f"{file or 'the list of files'} of {model} could not be had from {hub} ({answer}): try "
        "again, which goes on where it broke off; behind a proxy set HTTPS_PROXY"
    )
